use proptest::prelude::*;

use super::*;
use crate::wire::{DecodeError, Frame, FrameKind, ToCoordinator};

const ID: &str = "0b1d6f3e-52a4-4c0e-9f6e-7a0d6a1f2c33";

fn frame() -> Vec<u8> {
    let mut out = Vec::new();
    let id = WireId::parse(ID).unwrap();
    encode_chunk(id, "c2VhbGVy", "Y2lwaGVy", &mut out);
    out
}

#[test]
fn the_hand_written_encoder_writes_what_serde_writes() {
    let chunk = ChunkFrame {
        request_id: Text::from(ID),
        encrypted_data: Some(SealedText {
            ephemeral_public_key: Text::from("c2VhbGVy"),
            ciphertext: Text::from("Y2lwaGVy"),
            session_step: None,
        }),
        data: Text::default(),
    };
    let by_serde = serde_json::to_vec(&chunk).unwrap();
    assert_eq!(frame(), by_serde);
    assert_eq!(ChunkFrame::decode_fast(&by_serde), Some(chunk));
}

#[test]
fn the_short_cut_takes_every_order_of_keys_and_every_space() {
    let inner = [
        r#""ephemeral_public_key" : "k""#,
        "\"ciphertext\":\n\"pöng+/=\"",
    ];
    let kind = r#""type":"inference_response_chunk""#;
    for (one, two) in [(0, 1), (1, 0)] {
        let sealed = format!(r#""encrypted_data": {{ {} , {}}}"#, inner[one], inner[two]);
        let id = "\t\"request_id\":\"r\"";
        let all = [kind, id, sealed.as_str()];
        for [a, b, c] in [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ] {
            let frame = format!(" {{{},{} , {} }}\r\n", all[a], all[b], all[c]);
            let fast = ChunkFrame::decode_fast(frame.as_bytes()).map(ToCoordinator::Chunk);
            assert!(fast.is_some(), "{frame}");
            assert_eq!(fast, ToCoordinator::decode_generic(frame.as_bytes()).ok());
        }
    }
}

#[test]
fn the_short_cut_gives_up_on_whatever_it_does_not_know() {
    let sealed = r#"{"ephemeral_public_key":"k","ciphertext":"c"}"#;
    let unknown_shapes = [
        format!(
            r#"{{"type":"inference_response_chunk","request_id":"r","encrypted_data":{sealed},"data":""}}"#
        ),
        format!(
            r#"{{"type":"inference_response_chunk","request_id":"r","request_id":"s","encrypted_data":{sealed}}}"#
        ),
        format!(
            r#"{{"type":"inference_response_chunk","request_id":"\u0072","encrypted_data":{sealed}}}"#
        ),
        format!(r#"{{"type":"heartbeat","request_id":"r","encrypted_data":{sealed}}}"#),
        format!(
            r#"{{"type":"inference_response_chunk","request_id":"r","encrypted_data":{sealed}}} x"#
        ),
        r#"{"type":"inference_response_chunk","request_id":"r","encrypted_data":null}"#.to_owned(),
        r#"{"type":"inference_response_chunk","request_id":"r","data":"plain"}"#.to_owned(),
    ];
    for shape in unknown_shapes {
        assert_eq!(ChunkFrame::decode_fast(shape.as_bytes()), None, "{shape}");
    }
}

#[test]
fn a_line_break_inside_a_string_is_malformed_on_both_paths() {
    let text = String::from_utf8(frame()).unwrap().replace("Y2lw", "Y2\nw");
    let malformed = Err(DecodeError::Malformed(FrameKind::InferenceResponseChunk));
    assert_eq!(ToCoordinator::decode(text.as_bytes()), malformed);
    assert_eq!(ToCoordinator::decode_generic(text.as_bytes()), malformed);
}

/// Frames near what the short cut knows: keys present or not, twice, escaped, in any order.
fn near_chunk() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        4 => Just(r#""abc+/=""#),
        1 => Just(r#""""#),
        1 => Just(r#""a\/b""#),
        1 => Just("\"pöng ✓\""),
        1 => Just("\"a\u{1}b\""),
        1 => Just("null"),
        1 => Just("7"),
    ];
    let inner = prop::collection::vec(
        (
            prop_oneof![
                6 => Just("ephemeral_public_key"),
                6 => Just("ciphertext"),
                1 => Just("other"),
            ],
            text.clone(),
        ),
        0..4,
    )
    .prop_map(|members| {
        let members: Vec<String> = members
            .iter()
            .map(|(k, v)| format!(r#""{k}":{v}"#))
            .collect();
        format!("{{{}}}", members.join(" ,"))
    });
    let member = prop_oneof![
        6 => Just(r#""type":"inference_response_chunk""#.to_owned()),
        1 => Just(r#""type":"heartbeat""#.to_owned()),
        1 => Just(r#""Type":"inference_response_chunk""#.to_owned()),
        6 => text.clone().prop_map(|v| format!(r#""request_id" : {v}"#)),
        6 => inner.prop_map(|v| format!("\"encrypted_data\":\n{v}")),
        1 => text.prop_map(|v| format!(r#""data":{v}"#)),
    ];
    prop::collection::vec(member, 0..5).prop_map(|members| format!(" {{{}}}", members.join(",")))
}

fn paths_agree(bytes: &[u8]) -> Result<(), TestCaseError> {
    prop_assert_eq!(
        ToCoordinator::decode(bytes),
        ToCoordinator::decode_generic(bytes)
    );
    Ok(())
}

proptest! {
    #[test]
    fn the_short_cut_cannot_be_told_from_the_generic_decoder(text in near_chunk()) {
        paths_agree(text.as_bytes())?;
    }

    #[test]
    fn not_even_when_a_byte_is_wrong(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = frame();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        paths_agree(&bytes)?;
        bytes.truncate(cut.index(bytes.len()));
        paths_agree(&bytes)?;
    }
}

#[test]
fn every_message_states_its_type_once() {
    let accepted = crate::wire::messages::InferenceAccepted {
        request_id: Text::from(ID),
    };
    let mut out = Vec::new();
    accepted.encode(&mut out);
    assert_eq!(
        out,
        format!(r#"{{"type":"inference_accepted","request_id":"{ID}"}}"#).as_bytes()
    );
}

#[test]
fn a_frame_of_another_type_is_told_apart_at_its_first_member() {
    let mut chunk = Vec::new();
    encode_chunk(WireId::from_bits(1), "key", "Ym94", &mut chunk);
    assert!(may_be_chunk(&chunk));
    for other in [
        r#" { "encrypted_data" : {}, "type":"inference_response_chunk" }"#,
        r#"{"request_id":"r","type":"inference_accepted"}"#,
        r#"{ "type" : "inference_response_chunk"}"#,
    ] {
        assert!(may_be_chunk(other.as_bytes()), "{other}");
    }
    for other in [
        r#"{"type":"heartbeat","status":"idle"}"#,
        r#"{"status":"idle","type":"heartbeat"}"#,
        r#"{"type":"inference_complete"}"#,
        r#"{"type""#,
        "{",
        "[]",
        "",
    ] {
        assert!(!may_be_chunk(other.as_bytes()), "{other}");
    }
}
