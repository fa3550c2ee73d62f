use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::*;
use crate::api::Api;
use crate::ids::RequestId;

mod forms;
mod text;

fn direct(api: Api) -> Writer {
    Writer::direct(api, RequestId(1), 7, "m")
}

fn chat() -> Writer {
    direct(Api::Chat)
}

fn event(out: &[u8]) -> Value {
    let text = core::str::from_utf8(out).unwrap();
    let payload = text.strip_prefix("data: ").unwrap();
    serde_json::from_str(payload.strip_suffix("\n\n").unwrap()).unwrap()
}

fn chunk(writer: &mut Writer, piece: &Piece<'_>) -> Value {
    let mut out = Vec::new();
    writer.write_piece(0, piece, &mut out).unwrap();
    event(&out)
}

/// The chunk behind the one with the role.
fn later(piece: &Piece<'_>) -> Value {
    let mut writer = chat();
    chunk(&mut writer, &Piece::content("first"));
    chunk(&mut writer, piece)
}

fn token(bytes: &[u8], logprob_millionths: i64) -> ScoredToken<'_> {
    ScoredToken {
        bytes,
        logprob_millionths,
    }
}

fn part<'a>(index: u32, begun: Option<(&'a str, &'a str)>, arguments: &'a str) -> CallPart<'a> {
    CallPart {
        index,
        id: begun.map(|(id, _)| PieceText::Plain(id)),
        name: begun.map(|(_, name)| PieceText::Plain(name)),
        arguments: PieceText::Plain(arguments),
    }
}

#[test]
fn a_chunk_carries_what_is_there_and_its_role_once() {
    let mut writer = chat();
    let first = chunk(&mut writer, &Piece::content("a\"ä\n"));
    assert_eq!(
        first["choices"][0]["delta"],
        json!({"role": "assistant", "content": "a\"ä\n"})
    );
    assert_eq!(first["choices"][0]["finish_reason"], Value::Null);
    let piece = Piece {
        thought: PieceText::unless_empty("r"),
        ..Piece::content("c")
    };
    assert_eq!(
        chunk(&mut writer, &piece)["choices"][0]["delta"],
        json!({"reasoning_content": "r", "content": "c"})
    );
}

#[test]
fn an_answer_without_a_word_has_its_role() {
    let relayed = Writer::relayed(Api::Chat, RequestId(1), 7, "m");
    for (mut writer, delta) in [
        (chat(), json!({"role": "assistant"})),
        (relayed, json!({"role": "assistant", "content": ""})),
    ] {
        let mut out = Vec::new();
        writer.write_finish(0, FinishReason::Stop, &mut out);
        let text = core::str::from_utf8(&out).unwrap();
        let events: Vec<&str> = text.split_inclusive("\n\n").collect();
        let [first, last] = events[..] else {
            panic!("{text}");
        };
        assert_eq!(event(first.as_bytes())["choices"][0]["delta"], delta);
        let last = &event(last.as_bytes())["choices"][0];
        assert_eq!(
            *last,
            json!({"index": 0, "delta": {}, "finish_reason": "stop"})
        );
    }
}

#[test]
fn whole_answers_stand_side_by_side_with_what_each_said() {
    let mut writer = chat().of_answers(vec![String::new(); 2]);
    let mut first = WholeAnswer::direct();
    for (content, arguments) in [("c\"", "{\"q\""), ("ä\n", ":1}")] {
        let begun = content.starts_with('c').then_some(("i", "f"));
        let piece = Piece {
            thought: PieceText::unless_empty("r"),
            calls: Some(vec![part(0, begun, arguments)]),
            ..Piece::content(content)
        };
        first.push(&piece).unwrap();
    }
    let mut out = Vec::new();
    let second = WholeAnswer::direct();
    let answers = [
        (&first, FinishReason::ToolCalls),
        (&second, FinishReason::Stop),
    ];
    writer.write_whole(&answers, AnswerUsage::default(), &mut out);
    let whole: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(whole["object"], "chat.completion");
    let call = json!({"id": "i", "type": "function",
        "function": {"name": "f", "arguments": "{\"q\":1}"}});
    assert_eq!(
        whole["choices"][0],
        json!({"index": 0, "logprobs": null, "finish_reason": "tool_calls", "message":
            {"role": "assistant", "content": "c\"ä\n", "reasoning": "rr",
            "reasoning_content": "rr", "refusal": null, "tool_calls": [call]}})
    );
    assert_eq!(whole["choices"][1]["index"], 1);
    assert_eq!(whole["usage"]["total_tokens"], 0);
    let mut out = Vec::new();
    let piece = Piece::content("x");
    writer.write_piece(1, &piece, &mut out).unwrap();
    assert_eq!(event(&out)["choices"][0]["index"], 1);
}

#[test]
fn calls_are_written_as_clients_accumulate_them() {
    let piece = Piece {
        calls: Some(vec![
            part(0, Some(("i", "f")), "{\"q\""),
            part(0, None, ":1}"),
            part(1, Some(("j", "g")), "{}"),
        ]),
        ..Piece::default()
    };
    let call = |index, id, name, arguments| {
        json!({"index": index, "id": id, "type": "function",
            "function": {"name": name, "arguments": arguments}})
    };
    let more = json!({"index": 0, "function": {"arguments": ":1}"}});
    assert_eq!(
        later(&piece)["choices"][0]["delta"],
        json!({"tool_calls": [call(0, "i", "f", "{\"q\""), more, call(1, "j", "g", "{}")]})
    );
}

#[test]
fn log_probabilities_show_half_characters_by_their_bytes() {
    let tokens = vec![
        TokenLogprobs {
            chosen: token(b"\xe2\x82", -1_500_001),
            top: vec![token(b"a", 0)],
        },
        TokenLogprobs {
            chosen: token(b"b", -3),
            top: vec![],
        },
    ];
    let piece = Piece {
        logprobs: Logprobs::Plain(tokens),
        ..Piece::content("x")
    };
    let chunk = later(&piece);
    let tokens = &chunk["choices"][0]["logprobs"]["content"];
    assert_eq!(
        tokens[0],
        json!({"token": "\u{fffd}", "logprob": -1.500_001, "bytes": [226, 130],
            "top_logprobs": [{"token": "a", "logprob": 0.0, "bytes": [97]}]})
    );
    assert_eq!(tokens[1]["logprob"], json!(-0.000_003));
}

#[test]
fn the_token_that_was_drawn_may_stand_behind_twenty_likelier_ones() {
    let is_taken = |count: usize| {
        let likely = vec![r#"{"token":"b","logprob":-1}"#; count].join(",");
        let raw =
            format!(r#"{{"content":[{{"token":"a","logprob":-9,"top_logprobs":[{likely}]}}]}}"#);
        let raw: &RawValue = serde_json::from_str(&raw).unwrap();
        let piece = Piece {
            logprobs: Logprobs::Escaped(raw),
            ..Piece::content("x")
        };
        let mut out = Vec::new();
        piece.logprobs.write_elements(&mut out).is_ok()
    };
    assert!(is_taken(20) && is_taken(21));
    assert!(!is_taken(22));
}

/// A racing attempt may have filled the answer before another goes on with it.
#[test]
fn a_piece_that_is_too_large_leaves_room_for_others() {
    let raw = format!(
        r#"{{"content":[{{"token":"{}","logprob":0}}]}}"#,
        "x".repeat(SIZE_MAX)
    );
    let raw: &RawValue = serde_json::from_str(&raw).unwrap();
    let large = Piece {
        logprobs: Logprobs::Escaped(raw),
        ..Piece::content("x")
    };
    let mut answer = WholeAnswer::relayed();
    assert_eq!(answer.push(&large), Err(Overfull::TooLarge));
    assert_eq!(answer.push(&Piece::content("y")), Ok(()));
}
