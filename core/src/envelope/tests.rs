use ::base64::Engine as _;
use proptest::prelude::*;

use super::*;

fn ascending<const N: usize>(first: u8) -> [u8; N] {
    core::array::from_fn(|ix| first + u8::try_from(ix).unwrap())
}

fn provider() -> SecretKey {
    SecretKey::from_bytes(ascending(0x40))
}

fn session() -> SecretKey {
    SecretKey::from_bytes(ascending(0x80))
}

fn shared() -> BoxKey {
    session().agree(&provider().public()).unwrap()
}

const NONCE_FIRST: u8 = 0xc0;
const ROOM: usize = 1 << 20;

fn sealed_text(plaintext: &[u8]) -> String {
    let mut out = String::new();
    shared().seal_text(ascending(NONCE_FIRST), plaintext, &mut vec![], &mut out);
    out
}

fn opened(text: &str) -> Result<Vec<u8>, OpenFault> {
    shared()
        .open_text(text, ROOM, &mut vec![])
        .map(<[u8]>::to_vec)
}

#[test]
fn public_keys_and_the_shared_key_match_the_published_ones() {
    let own = "eaYx7t4b+cmPEgMs3q3Q56B5OY/HhriMyEbsia+FpRo=";
    let other = "ST6C/HRGSlkmiBdiPSBTxeuOLMSpiLT+4XnsawENUx0=";
    assert_eq!(provider().public().text().as_str(), own);
    assert_eq!(session().public().text().as_str(), other);
    assert_eq!(PublicKey::parse(own), Ok(provider().public()));
    let from_other_side = provider().agree(&session().public()).unwrap();
    let hex = "a3a9504c8fbf12e46a99c443a663d03103b81a2856ae1c0f499e8938378df552";
    for key in [shared(), from_other_side] {
        let shown: String = key
            .bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(shown, hex);
    }
}

#[test]
fn boxes_match_the_published_ones() {
    let vectors = [
        (
            "",
            "wMHCw8TFxsfIycrLzM3Oz9DR0tPU1dbXkK56CSuSV/1To31LhCAbkA==",
        ),
        (
            r#"{"model":"m","messages":[{"role":"user","content":"ping"}],"stream":true}"#,
            "wMHCw8TFxsfIycrLzM3Oz9DR0tPU1dbXMYNxpG0//wjSzL4PVOw7eLQ4A/uLexflyIsqJbfprNoDkwoAxRvKzd8JhEfL45sAuXeykKjNLeGKSs0xuSgaSgC+rj0GmWwYdwU9M/MA4lYKZr33VdG+FVk=",
        ),
        (
            "data: {\"choices\":[{\"delta\":{\"content\":\"pöng ✓\"}}]}\n\n",
            "wMHCw8TFxsfIycrLzM3Oz9DR0tPU1dbX4QHQI8XwmliZQOhg4lUKlKt7GvXVPgDlkcEobviusp1KuxBFxA2Eg+VQnE6G7JFM9zCpl++FLb1rn8w47a/orQD58RAS/QE=",
        ),
    ];
    for (plaintext, text) in vectors {
        assert_eq!(sealed_text(plaintext.as_bytes()), text);
        assert_eq!(opened(text).unwrap(), plaintext.as_bytes());
    }
}

#[test]
fn a_zero_shared_secret_gives_the_published_key_and_is_never_used() {
    let zero = BoxKey::from_shared_secret(&[0; 32]);
    let shown: String = zero
        .bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        shown,
        "351f86faa3b988468a850122b65b0acece9c4826806aeee63de9c0da2bd7f91e"
    );
    let mut one = [0; 32];
    one[0] = 1;
    // A point of order 8, little-endian.
    let order_eight: [u8; 32] = [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4,
        0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49,
        0xb8, 0x00,
    ];
    for low in [[0; 32], one, order_eight] {
        assert_eq!(
            session().agree(&PublicKey(low)).err(),
            Some(KeyFault::LowOrder)
        );
    }
}

#[test]
fn every_size_survives_a_round_trip() {
    let sizes = [
        0, 1, 15, 16, 17, 23, 24, 25, 31, 32, 33, 255, 256, 1_024, 65_536, 68_123,
    ];
    for size in sizes {
        let plaintext: Vec<u8> = (0..size)
            .map(|ix| u8::try_from(ix % 251).unwrap())
            .collect();
        let mut sealed = vec![];
        shared().seal(ascending(NONCE_FIRST), &plaintext, &mut sealed);
        assert_eq!(sealed.len(), size + OVERHEAD_SIZE);
        let other_side = provider().agree(&session().public()).unwrap();
        assert_eq!(other_side.open(&sealed, &mut vec![]).unwrap(), plaintext);
        assert_eq!(
            other_side.open(&sealed, &mut vec![]).unwrap(),
            plaintext,
            "twice"
        );
    }
}

#[test]
fn two_seals_of_one_text_differ_with_their_nonces() {
    let mut other = String::new();
    shared().seal_text([7; 24], "grüße".as_bytes(), &mut vec![], &mut other);
    assert_ne!(other, sealed_text("grüße".as_bytes()));
    assert_eq!(opened(&other).unwrap(), "grüße".as_bytes());
}

#[test]
fn every_flipped_bit_is_noticed() {
    let mut sealed = vec![];
    shared().seal(ascending(NONCE_FIRST), b"attack at dawn", &mut sealed);
    for bit in 0..sealed.len() * 8 {
        let mut forged = sealed.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(
            shared().open(&forged, &mut vec![]),
            Err(OpenFault::Forged),
            "bit {bit}"
        );
    }
}

#[test]
fn a_box_that_was_cut_does_not_open() {
    let mut sealed = vec![];
    shared().seal(ascending(NONCE_FIRST), b"attack at dawn", &mut sealed);
    for size in 0..sealed.len() {
        let expected = if size < OVERHEAD_SIZE {
            OpenFault::TooShort
        } else {
            OpenFault::Forged
        };
        assert_eq!(
            shared().open(&sealed[..size], &mut vec![]),
            Err(expected),
            "{size} bytes"
        );
    }
}

#[test]
fn the_wrong_recipient_and_the_wrong_sender_open_nothing() {
    let text = sealed_text(b"x");
    let sender = session().public().text();
    let room = &mut vec![];
    let stranger = SecretKey::from_bytes([9; 32]);
    let open = |own: &SecretKey, sender: &str, room: &mut Vec<u8>| {
        open_from(own, sender, &text, ROOM, room).map(|(_, plain)| plain.to_vec())
    };
    assert_eq!(open(&provider(), sender.as_str(), room), Ok(b"x".to_vec()));
    assert_eq!(
        open(&stranger, sender.as_str(), room),
        Err(OpenFault::Forged)
    );
    let other = stranger.public().text();
    assert_eq!(
        open(&provider(), other.as_str(), room),
        Err(OpenFault::Forged)
    );
    let zero = PublicKey([0; 32]).text();
    assert_eq!(
        open(&provider(), zero.as_str(), room),
        Err(OpenFault::Key(KeyFault::LowOrder))
    );
    for size in [0, 31, 33, 64] {
        let wrong = ::base64::engine::general_purpose::STANDARD.encode(vec![1; size]);
        let malformed = Err(OpenFault::Key(KeyFault::Malformed));
        assert_eq!(open(&provider(), &wrong, room), malformed, "{size} bytes");
    }
    for wrong in ["!!!!", "AAA", &sender.as_str()[..43], "AAAA AAAA"] {
        assert_eq!(
            open(&provider(), wrong, room),
            Err(OpenFault::Key(KeyFault::Malformed))
        );
    }
}

#[test]
fn base64_is_standard_padded_and_bounded() {
    for bad in [
        "A", "AA", "AAA", "AA=A", "AA==AA==", "AA--", "AA__", "AAAA\n", "AAAA=", "AB==",
    ] {
        assert_eq!(opened(bad), Err(OpenFault::Base64), "{bad}");
    }
    assert_eq!(opened("AAAA"), Err(OpenFault::TooShort));
    let mut out = vec![1, 2];
    assert_eq!(decode_base64_append("AwQ=", 2, &mut out), Ok(()));
    assert_eq!(
        decode_base64_append("AwQ=", 1, &mut out),
        Err(Base64Fault::WrongSize)
    );
    assert_eq!(
        decode_base64_append("AwQ", 9, &mut out),
        Err(Base64Fault::Malformed)
    );
    assert_eq!(out, [1, 2, 3, 4]);
    let text = sealed_text(&[0; 100]);
    assert_eq!(
        shared().open_text(&text, 139, &mut vec![]),
        Err(OpenFault::TooLong)
    );
    assert!(shared().open_text(&text, 140, &mut vec![]).is_ok());
}

#[test]
fn keys_show_nothing_of_themselves() {
    assert_eq!(
        format!("{:?} {:?}", provider(), shared()),
        "SecretKey(..) BoxKey(..)"
    );
}

#[test]
fn a_payload_that_stands_alone_names_its_sealer() {
    let payload =
        EncryptedPayload::seal(&session(), &provider().public(), ascending(1), b"hi").unwrap();
    assert_eq!(payload.ephemeral_public_key, session().public().text());
    let sender = payload.ephemeral_public_key;
    let room = &mut vec![];
    let (key, plain) = open_from(
        &provider(),
        sender.as_str(),
        &payload.ciphertext,
        ROOM,
        room,
    )
    .unwrap();
    assert_eq!((plain, key.bytes()), (&b"hi"[..], shared().bytes()));
}

proptest! {
    #[test]
    fn random_text_opens_nothing_and_never_panics(
        text in ".{0,200}",
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        prop_assert!(opened(&text).is_err());
        prop_assert!(shared().open(&bytes, &mut vec![]).is_err());
        let _ = PublicKey::parse(&text);
    }

    #[test]
    fn a_box_is_what_the_published_library_makes_and_the_other_way_round(
        plaintext in prop::collection::vec(any::<u8>(), 0..700),
        nonce: [u8; 24],
        flip in any::<prop::sample::Index>(),
    ) {
        use crypto_secretbox::aead::{AeadInPlace as _, KeyInit as _};
        let theirs = crypto_secretbox::XSalsa20Poly1305::new(shared().bytes().into());
        let mut own = vec![];
        shared().seal(nonce, &plaintext, &mut own);
        let mut body = plaintext.clone();
        let tag = theirs.encrypt_in_place_detached(&nonce.into(), b"", &mut body).unwrap();
        prop_assert_eq!(&own[NONCE_SIZE..OVERHEAD_SIZE], &tag[..]);
        prop_assert_eq!(&own[OVERHEAD_SIZE..], &body[..]);
        let at = flip.index(own.len());
        own[at] ^= 0x10;
        prop_assert!(shared().open(&own, &mut vec![]).is_err());
    }

    #[test]
    fn what_is_sealed_opens(
        plaintext in prop::collection::vec(any::<u8>(), 0..500),
        nonce: [u8; 24],
    ) {
        let mut text = String::new();
        shared().seal_text(nonce, &plaintext, &mut vec![], &mut text);
        prop_assert_eq!(text.len(), base64_size(plaintext.len() + OVERHEAD_SIZE));
        prop_assert_eq!(opened(&text), Ok(plaintext));
    }
}
