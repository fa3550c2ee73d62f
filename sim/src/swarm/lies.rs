//! What becomes of a liar's frames on their way out.

use super::plan::Lie;

/// Frames after which a mute machine answers no challenge.
const MUTE_FROM: u64 = 6;

/// Whether a frame that the agent wrote is of this type: the type comes first in all of them.
pub(super) fn is_of(frame: &[u8], kind: &str) -> bool {
    let start = format!("{{\"type\":\"{kind}\"");
    frame.starts_with(start.as_bytes())
}

/// The frames that go out in place of `frame`, the `count`th of its provider. One that swaps keeps a
/// piece back in `kept`.
pub(super) fn told(lie: Lie, frame: &[u8], count: u64, kept: &mut Option<Vec<u8>>) -> Vec<Vec<u8>> {
    let is_chunk = is_of(frame, "inference_response_chunk");
    match lie {
        Lie::BlackHole
        | Lie::Blames
        | Lie::Breaks
        | Lie::Deaf
        | Lie::None
        | Lie::OverClaim
        | Lie::Refuses => {
            vec![frame.to_vec()]
        }
        Lie::Mute if is_of(frame, "attestation_response") && count > MUTE_FROM => Vec::new(),
        Lie::Damages if is_chunk && count.is_multiple_of(3) => vec![forged(frame)],
        Lie::Repeats if is_chunk => vec![frame.to_vec(), frame.to_vec()],
        Lie::Swaps if is_chunk && kept.is_none() => {
            *kept = Some(frame.to_vec());
            Vec::new()
        }
        // Whatever comes next, the piece that was kept back follows a piece, or precedes the rest.
        Lie::Swaps => match (is_chunk, kept.take()) {
            (true, Some(before)) => vec![frame.to_vec(), before],
            (false, Some(before)) => vec![before, frame.to_vec()],
            (_, None) => vec![frame.to_vec()],
        },
        Lie::Doubles => {
            let is_doubled = [
                "inference_accepted",
                "inference_complete",
                "inference_error",
            ]
            .iter()
            .any(|kind| is_of(frame, kind));
            vec![frame.to_vec(); if is_doubled { 2 } else { 1 }]
        }
        Lie::Garbage if is_chunk => vec![
            b"{\"type\":\"inference_response_chunk\",\"request_id\":7".to_vec(),
            frame.to_vec(),
            vec![0xff, 0xfe, 0x00],
            b"{\"type\":\"no_such_thing\"}".to_vec(),
        ],
        Lie::Plaintext if is_chunk => vec![plaintext(frame)],
        Lie::WrongKey if is_chunk => vec![forged(frame)],
        Lie::Damages | Lie::Garbage | Lie::Mute | Lie::Plaintext | Lie::Repeats | Lie::WrongKey => {
            vec![frame.to_vec()]
        }
    }
}

fn value(frame: &[u8]) -> serde_json::Value {
    serde_json::from_slice(frame).expect("the agent writes JSON")
}

fn plaintext(frame: &[u8]) -> Vec<u8> {
    let mut value = value(frame);
    value["encrypted_data"] = serde_json::Value::Null;
    value["data"] = "in the clear".into();
    value.to_string().into_bytes()
}

/// Another box under the same name.
fn forged(frame: &[u8]) -> Vec<u8> {
    let mut value = value(frame);
    let sealed = &mut value["encrypted_data"]["ciphertext"];
    let mut text = sealed.as_str().unwrap_or("").to_owned();
    let flipped = if text.get(60..61) == Some("A") {
        "B"
    } else {
        "A"
    };
    if text.len() > 61 {
        text.replace_range(60..61, flipped);
    }
    *sealed = text.into();
    value.to_string().into_bytes()
}
