//! What becomes of a liar's frames on their way out.

use super::plan::Lie;

/// Whether a frame that the agent wrote is of this type: the type comes first in all of them.
pub(super) fn is_of(frame: &[u8], kind: &str) -> bool {
    let start = format!("{{\"type\":\"{kind}\"");
    frame.starts_with(start.as_bytes())
}

/// The frames that go out in place of `frame`.
pub(super) fn told(lie: Lie, frame: &[u8]) -> Vec<Vec<u8>> {
    let is_chunk = is_of(frame, "inference_response_chunk");
    match lie {
        Lie::BlackHole | Lie::Deaf | Lie::None | Lie::OverClaim | Lie::Refuses => {
            vec![frame.to_vec()]
        }
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
        Lie::Garbage | Lie::Plaintext | Lie::WrongKey => vec![frame.to_vec()],
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
