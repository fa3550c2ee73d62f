use p256::elliptic_curve::ops::Neg as _;

use super::*;

const NONCE: &str = "AAECAw==";
const MOMENT: &str = "2026-07-01T00:00:00Z";
const SEALING: &str = "eaYx7t4b+cmPEgMs3q3Q56B5OY/HhriMyEbsia+FpRo=";

fn machine() -> MachineKey {
    MachineKey::from_bytes([7; 32]).unwrap()
}

fn status(reported: &AttestationResponse<'_>, nonce: &str) -> String {
    let mut out = String::new();
    write_status(nonce, MOMENT, reported, &mut out);
    out
}

fn map(entries: &[(&'static str, &'static str)]) -> BTreeMap<Text<'static>, Text<'static>> {
    entries
        .iter()
        .map(|(k, v)| (Text::from(*k), Text::from(*v)))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_canonical_status_matches_the_published_vector() {
    let reported = AttestationResponse {
        rdma_disabled: Some(true),
        sip_enabled: Some(true),
        secure_boot_enabled: Some(false),
        binary_hash: Text::from("ab"),
        template_hashes: map(&[("b", "2"), ("a", "1")]),
        model_hashes: map(&[("org/m2", "h2"), ("Org/m1", "h1")]),
        ..AttestationResponse::default()
    };
    let text = status(&reported, NONCE);
    assert_eq!(
        text,
        r#"{"binary_hash":"ab","model_hashes":{"Org/m1":"h1","org/m2":"h2"},"nonce":"AAECAw==","rdma_disabled":true,"secure_boot_enabled":false,"sip_enabled":true,"template_hashes":{"a":"1","b":"2"},"timestamp":"2026-07-01T00:00:00Z"}"#
    );
    assert_eq!(
        hex(&Sha256::digest(text.as_bytes())),
        "997c833677008bd2dc5620b957b25f6c65b2c4636f8f03b8a4189ccc906bf222"
    );
}

#[test]
fn status_fixtures_of_every_published_class() {
    let none = AttestationResponse::default();
    let tail = format!(r#""timestamp":"{MOMENT}"}}"#);
    assert_eq!(
        status(&none, NONCE),
        format!(r#"{{"nonce":"{NONCE}",{tail}"#)
    );
    for (claim, text) in [(true, "true"), (false, "false")] {
        let old = AttestationResponse {
            hypervisor_active: Some(claim),
            ..none.clone()
        };
        let expected = format!(r#"{{"hypervisor_active":{text},"nonce":"{NONCE}",{tail}"#);
        assert_eq!(status(&old, NONCE), expected);
    }
    let raw = "é<>&/\u{2028}\u{2029}\u{7f}\t\n\r\"\\\u{8}\u{c}\u{1f}";
    let expected = "é<>&/\\u2028\\u2029\u{7f}\\t\\n\\r\\\"\\\\\\u0008\\u000c\\u001f";
    assert_eq!(
        status(&none, raw),
        format!(r#"{{"nonce":"{expected}",{tail}"#)
    );
    let full = AttestationResponse {
        active_model_hash: Text::from("1"),
        python_hash: Text::from("2"),
        runtime_hash: Text::from("3"),
        ..none
    };
    let expected = format!(
        r#"{{"active_model_hash":"1","nonce":"{NONCE}","python_hash":"2","runtime_hash":"3",{tail}"#
    );
    assert_eq!(status(&full, NONCE), expected);
}

#[test]
fn a_challenge_is_signed_over_nonce_and_moment_without_a_separator() {
    let signature = machine().sign_challenge(NONCE, MOMENT);
    let key = machine().attested();
    assert!(is_challenge_signed(&key, NONCE, MOMENT, &signature));
    assert!(key.has_signed(format!("{NONCE}{MOMENT}").as_bytes(), &signature));
    assert!(!is_challenge_signed(&key, "AAECBA==", MOMENT, &signature));
    assert!(!is_challenge_signed(
        &key,
        NONCE,
        "2026-07-01T00:00:01Z",
        &signature
    ));
    let other = MachineKey::from_bytes([8; 32]).unwrap().attested();
    assert!(!is_challenge_signed(&other, NONCE, MOMENT, &signature));
    for wrong in ["", "AAAA", "!", &signature[..signature.len() - 4]] {
        assert!(!is_challenge_signed(&key, NONCE, MOMENT, wrong));
    }
}

#[test]
fn a_high_s_signature_counts() {
    let low: Signature = machine().0.sign(b"m");
    let (r, s) = low.split_scalars();
    let high = Signature::from_scalars(*r, s.neg().to_bytes()).unwrap();
    let mut text = String::new();
    encode_base64(high.to_der().as_bytes(), &mut text);
    assert_ne!(high, low);
    assert!(machine().attested().has_signed(b"m", &text));
}

#[test]
fn keys_read_in_both_lengths_and_nothing_else() {
    let key = machine().attested();
    let mut bytes = vec![];
    decode_base64(&key.text(), 65, &mut bytes).unwrap();
    let text_of = |bytes: &[u8]| {
        let mut text = String::new();
        encode_base64(bytes, &mut text);
        text
    };
    assert_eq!(AttestedKey::parse(&key.text()), Some(key));
    assert_eq!(AttestedKey::parse(&text_of(&bytes[1..])), Some(key));
    assert_eq!(AttestedKey::parse(&text_of(&bytes[..64])), None);
    assert_eq!(
        AttestedKey::parse(&text_of(&[4; 65])),
        None,
        "off the curve"
    );
    assert_eq!(AttestedKey::parse(&text_of(&[0; 33])), None);
    assert_eq!(AttestedKey::parse("?"), None);
}

fn blob() -> Blob<'static> {
    Blob {
        chip_name: Text::from("Apple M3 Ultra"),
        encryption_public_key: Some(Text::from(SEALING)),
        hardware_model: Text::from("Mac15,14"),
        os_version: Text::from("15.5.0"),
        public_key: Text::from(machine().attested().text()),
        secure_boot_enabled: true,
        secure_enclave_available: true,
        sip_enabled: true,
        timestamp: Text::from(MOMENT),
        ..Blob::default()
    }
}

#[test]
fn the_blob_is_written_in_byte_order_with_escaped_slashes() {
    let signed = machine().sign_blob(&blob());
    let text = signed.get();
    assert!(
        text.contains(r#""encryptionPublicKey":"eaYx7t4b+cmPEgMs3q3Q56B5OY\/HhriMyEbsia+FpRo=""#)
    );
    let keys: Vec<&str> = [
        "authenticatedRootEnabled",
        "chipName",
        "encryptionPublicKey",
        "hardwareModel",
        "osVersion",
        "publicKey",
        "rdmaDisabled",
        "secureBootEnabled",
        "secureEnclaveAvailable",
        "sipEnabled",
        "timestamp",
    ]
    .into();
    let places: Vec<usize> = keys
        .iter()
        .map(|key| text.find(&format!("\"{key}\"")).unwrap())
        .collect();
    assert!(places.is_sorted());
}

#[test]
fn a_blob_proves_its_key_or_says_why_not() {
    use BlobFault::{
        Forged, KeyUnbound, KeyUnreadable, Malformed, SystemWeak, TimestampUnreadable,
    };
    let judged = |blob: &Blob<'_>, key: &str| {
        verify_blob(&machine().sign_blob(blob), key, Posture::Required)
    };
    assert_eq!(judged(&blob(), SEALING), Ok(machine().attested()));
    assert_eq!(judged(&blob(), ""), Ok(machine().attested()));
    assert_eq!(judged(&blob(), "other"), Err(KeyUnbound));
    let unbound = Blob {
        encryption_public_key: None,
        ..blob()
    };
    assert_eq!(judged(&unbound, SEALING), Err(KeyUnbound));
    let timeless = Blob {
        timestamp: Text::from("yesterday"),
        ..blob()
    };
    assert_eq!(judged(&timeless, SEALING), Err(TimestampUnreadable));
    let keyless = Blob {
        public_key: Text::from("AAAA"),
        ..blob()
    };
    assert_eq!(judged(&keyless, SEALING), Err(KeyUnreadable));
    let stranger = MachineKey::from_bytes([8; 32]).unwrap();
    let forged = stranger.sign_blob(&blob());
    assert_eq!(
        verify_blob(&forged, SEALING, Posture::Advisory),
        Err(Forged)
    );
    let junk = RawValue::from_string("[1]".to_owned()).unwrap();
    assert_eq!(
        verify_blob(&junk, SEALING, Posture::Advisory),
        Err(Malformed)
    );
    let key_file = Blob {
        secure_enclave_available: false,
        sip_enabled: false,
        ..blob()
    };
    let signed = machine().sign_blob(&key_file);
    assert_eq!(
        verify_blob(&signed, SEALING, Posture::Required),
        Err(SystemWeak)
    );
    assert_eq!(
        verify_blob(&signed, SEALING, Posture::Advisory),
        Ok(machine().attested())
    );
}

#[test]
fn one_changed_byte_of_the_blob_breaks_its_signature() {
    let signed = machine().sign_blob(&blob());
    let changed = signed.get().replace("15.5.0", "15.5.1");
    let changed = RawValue::from_string(changed).unwrap();
    assert_eq!(
        verify_blob(&changed, SEALING, Posture::Required),
        Err(BlobFault::Forged)
    );
}

#[test]
fn machine_ids_follow_the_key_and_the_kind() {
    let id = machine().attested().machine_id();
    assert_eq!(id, machine().attested().machine_id());
    assert_ne!(
        id,
        MachineKey::from_bytes([8; 32])
            .unwrap()
            .attested()
            .machine_id()
    );
    assert_ne!(machine_id("a", b"x"), machine_id("b", b"x"));
    assert_ne!(machine_id("a", b"x"), machine_id("a", b"y"));
}
