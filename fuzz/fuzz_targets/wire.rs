//! Every wire message, read by both sides: no bytes panic, what was read is written back the same,
//! and the short cut for chunks agrees with the general decoder.
#![no_main]

use cereus_core::config::{Catalog, ModelSpec};
use cereus_core::ids::{ModelIx, WireId};
use cereus_core::money::Price;
use cereus_core::wire::messages::{
    AttestationResponse, Heartbeat, Register, encode_inference_request,
};
use cereus_core::wire::proof::{
    AttestedKey, Posture, is_challenge_signed, verify_blob, write_status,
};
use cereus_core::wire::{
    DecodeError, Frame, ToCoordinator, ToProvider, clock, encode_chunk, machine_spec,
};
use cereus_fuzz::nested::unfolded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let frame = unfolded(input);
    from_provider(&frame);
    from_coordinator(&frame);
});

fn from_provider(frame: &[u8]) {
    let decoded = ToCoordinator::decode(frame);
    assert_eq!(
        decoded,
        ToCoordinator::decode_generic(frame),
        "the short cut differs"
    );
    let Ok(message) = decoded else {
        return;
    };
    let Some(written) = written_by_provider(&message) else {
        return;
    };
    let again = ToCoordinator::decode(&written);
    assert_eq!(
        again.as_ref(),
        Ok(&message),
        "a round trip changed the message"
    );
    use_message(&message);
}

fn written_by_provider(message: &ToCoordinator<'_>) -> Option<Vec<u8>> {
    Some(match message {
        ToCoordinator::Accepted(m) => encoded(m),
        ToCoordinator::AttestationResponse(m) => encoded(&**m),
        ToCoordinator::Chunk(m) => {
            // The encoder for chunks writes no member that a peer might have left out.
            if let (Some(id), Some(sealed)) = (WireId::parse(&m.request_id), &m.encrypted_data) {
                check_chunk_writer(id, &sealed.ephemeral_public_key, &sealed.ciphertext);
            }
            serde_json::to_vec(m).expect("a chunk holds text only")
        }
        ToCoordinator::CodeAttestationResponse(m) => encoded(m),
        ToCoordinator::Complete(m) => encoded(m),
        ToCoordinator::Error(m) => encoded(m),
        ToCoordinator::Heartbeat(m) => encoded(&**m),
        ToCoordinator::Later => return None,
        ToCoordinator::LoadModelStatus(m) => encoded(m),
        ToCoordinator::ModelsUpdate(m) => encoded(m),
        ToCoordinator::PrefetchModelStatus(m) => encoded(m),
        ToCoordinator::Register(m) => encoded(&**m),
    })
}

fn from_coordinator(frame: &[u8]) {
    let Ok(message) = ToProvider::decode(frame) else {
        return;
    };
    let written = match &message {
        ToProvider::AttestationChallenge(m) => encoded(m),
        ToProvider::Cancel(m) => encoded(m),
        ToProvider::DesiredModels(m) => encoded(m),
        ToProvider::InferenceRequest(m) => encoded(m),
        ToProvider::Later => return,
        ToProvider::LoadModel(m) => encoded(m),
        ToProvider::PrefetchModel(m) => encoded(m),
        ToProvider::RuntimeStatus(m) => encoded(m),
        ToProvider::TrustStatus(m) => encoded(m),
    };
    assert_eq!(ToProvider::decode(&written).as_ref(), Ok(&message));
}

fn encoded<T: Frame>(message: &T) -> Vec<u8> {
    let mut out = vec![];
    message.encode(&mut out);
    out
}

/// Both writers of sealed text give frames that their readers take, for texts as base64 has them.
fn check_chunk_writer(id: WireId, sealer: &str, ciphertext: &str) {
    let is_plain = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
    };
    if !is_plain(sealer) || !is_plain(ciphertext) {
        return;
    }
    let mut out = vec![];
    encode_chunk(id, sealer, ciphertext, &mut out);
    let Ok(ToCoordinator::Chunk(chunk)) = ToCoordinator::decode(&out) else {
        panic!("a chunk that we wrote cannot be read");
    };
    assert_eq!(WireId::parse(&chunk.request_id), Some(id));
    let sealed = chunk.encrypted_data.expect("it was written");
    assert_eq!(sealed.ephemeral_public_key.as_str(), sealer);
    assert_eq!(sealed.ciphertext.as_str(), ciphertext);
    out.clear();
    encode_inference_request(id, sealer, None, ciphertext, "", &mut out);
    assert!(matches!(
        ToProvider::decode(&out),
        Ok::<_, DecodeError>(ToProvider::InferenceRequest(_))
    ));
}

/// What the coordinator does with what it read.
fn use_message(message: &ToCoordinator<'_>) {
    match message {
        ToCoordinator::AttestationResponse(m) => use_response(m),
        ToCoordinator::Heartbeat(m) => use_heartbeat(m),
        ToCoordinator::Register(m) => use_register(m),
        ToCoordinator::Accepted(_)
        | ToCoordinator::Chunk(_)
        | ToCoordinator::CodeAttestationResponse(_)
        | ToCoordinator::Complete(_)
        | ToCoordinator::Error(_)
        | ToCoordinator::Later
        | ToCoordinator::LoadModelStatus(_)
        | ToCoordinator::ModelsUpdate(_)
        | ToCoordinator::PrefetchModelStatus(_) => {}
    }
}

fn use_response(response: &AttestationResponse<'_>) {
    let mut status = String::new();
    write_status(
        &response.nonce,
        "2026-01-01T00:00:00Z",
        response,
        &mut status,
    );
    serde_json::from_str::<serde::de::IgnoredAny>(&status).expect("the canonical status is JSON");
    if let Some(key) = AttestedKey::parse(&response.public_key) {
        let _ = is_challenge_signed(&key, &response.nonce, "", &response.signature);
    }
}

fn use_heartbeat(heartbeat: &Heartbeat<'_>) {
    let models = ["a", "b"].map(|id| ModelSpec {
        id: id.into(),
        price: Price::DEFAULT,
        context_tokens: 4_096,
        output_tokens_default: 256,
        weights_bytes: 1 << 20,
    });
    let catalog = Catalog::new(models.into()).expect("two different models");
    let mut slots = vec![];
    let report = heartbeat.to_reports(&catalog, &[ModelIx(0), ModelIx(1)], &mut slots);
    assert!(slots.len() <= catalog.count(), "one slot for each model");
    assert!(report.memory_pressure_ppm <= 1_000_000);
}

fn use_register(register: &Register<'_>) {
    let spec = machine_spec(register, true);
    assert!(spec.memory_gb <= cereus_core::wire::limits::MEMORY_GB_MAX);
    assert!(spec.decode_mtps <= cereus_core::wire::limits::DECODE_TPS_MAX * 1_000);
    if let Some(attestation) = register.attestation {
        let _ = verify_blob(attestation.0, &register.public_key, Posture::Required);
    }
    let _ = clock::is_rfc3339(&register.version);
}
