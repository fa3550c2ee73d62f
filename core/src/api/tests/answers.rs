use proptest::prelude::*;
use serde_json::{Value, json};

use super::{catalog, read};
use crate::api::*;
use crate::denial::Denial;
use crate::event::Usage;
use crate::ids::RequestId;

#[test]
fn each_denial_has_the_status_and_type_that_clients_switch_on() {
    let cases = [
        (
            Denial::UnknownAccount,
            401,
            "authentication_error",
            "invalid_api_key",
            None,
        ),
        (
            Denial::UnknownModel,
            404,
            "model_not_found",
            "model_not_found",
            None,
        ),
        (
            Denial::Full { retry_after_s: 3 },
            429,
            "rate_limit_exceeded",
            "machine_busy",
            Some(3),
        ),
        (
            Denial::NoProvider { retry_after_s: 9 },
            429,
            "rate_limit_exceeded",
            "no_provider",
            Some(9),
        ),
        (
            Denial::Broke,
            402,
            "insufficient_funds",
            "insufficient_quota",
            None,
        ),
        (
            Denial::TooLong,
            400,
            "invalid_request_error",
            "context_length_exceeded",
            None,
        ),
        (Denial::Timeout, 504, "timeout", "timeout", None),
        (
            Denial::AnswerTooLarge,
            502,
            "provider_error",
            "answer_too_large",
            None,
        ),
        (
            Denial::HoldOverdue,
            503,
            "service_unavailable",
            "ledger_busy",
            Some(5),
        ),
        (
            Denial::Internal,
            500,
            "server_error",
            "internal_error",
            None,
        ),
        (
            Denial::Draining,
            503,
            "service_unavailable",
            "draining",
            Some(5),
        ),
        (
            Denial::Encryption,
            502,
            "provider_error",
            "encryption_failure",
            None,
        ),
        (
            Denial::Client(422),
            422,
            "invalid_request_error",
            "invalid_request",
            None,
        ),
    ];
    for (denial, status, kind, code, retry_after_s) in cases {
        let envelope = Envelope::from(denial);
        assert_eq!(envelope.status, status);
        assert_eq!(envelope.retry_after_s, retry_after_s);
        let mut out = Vec::new();
        envelope.write(&mut out);
        let error = &read(&out)["error"];
        assert_eq!(error["type"], kind);
        assert_eq!(error["code"], code);
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty())
        );
        assert!(
            error
                .as_object()
                .is_some_and(|error| error.contains_key("param"))
        );
    }
}

#[test]
fn a_request_that_is_too_long_hears_the_limit_and_its_size() {
    let sizes = Sizes {
        prompt_tokens: 5_000,
        output_tokens_max: 512,
        context_tokens: 4_096,
    };
    for denial in [Denial::TooLong, Denial::Client(Denial::LENGTH_STATUS)] {
        let envelope = Envelope::of(denial, sizes);
        assert_eq!(
            (envelope.status, envelope.code),
            (400, "context_length_exceeded")
        );
        assert_eq!(envelope.param.as_deref(), Some("messages"));
        for number in ["4096", "5000"] {
            assert!(envelope.message.contains(number), "{}", envelope.message);
        }
        // A machine looks at the prompt alone.
        let is_sum = envelope.message.contains("up to 512 more");
        assert_eq!(is_sum, denial == Denial::TooLong, "{}", envelope.message);
        assert!(
            envelope
                .message
                .contains("By our estimate, a token for 4 bytes")
        );
        let is_of_a_machine = envelope.message.contains("The machine");
        assert_eq!(is_of_a_machine, denial != Denial::TooLong);
    }
    let other = Envelope::of(Denial::Broke, sizes);
    assert_eq!(other, Envelope::from(Denial::Broke));
}

#[test]
fn the_model_list_has_openais_shape() {
    let mut out = Vec::new();
    write_models(&catalog(), 1_700_000_000, &mut out);
    let list = read(&out);
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"][0]["id"], "acme/tiny");
    assert_eq!(list["data"][0]["object"], "model");
    assert_eq!(list["data"][0]["created"], 1_700_000_000);
    assert_eq!(list["data"][0]["context_length"], 4_096);
    // What can be asked for, and not what comes unasked.
    assert_eq!(list["data"][0]["max_output_length"], 4_096);
}

fn usage() -> AnswerUsage {
    AnswerUsage {
        tokens: Usage {
            prompt_tokens: 3,
            completion_tokens: 4,
        },
        cached_tokens: 0,
        reasoning_tokens: 1,
    }
}

#[test]
fn usage_tells_of_prompt_tokens_that_were_found() {
    let read = |usage: AnswerUsage| {
        let mut out = Vec::new();
        let answer = WholeAnswer::relayed();
        let writer = Writer::relayed(Api::Chat, RequestId(1), 5, "m");
        writer.write_whole(&[(&answer, FinishReason::Stop)], usage, &mut out);
        read(&out)["usage"].take()
    };
    assert_eq!(read(usage())["prompt_tokens_details"], Value::Null);
    let found = AnswerUsage {
        cached_tokens: 2,
        ..usage()
    };
    assert_eq!(read(found)["prompt_tokens_details"]["cached_tokens"], 2);
    assert_eq!(
        read(found)["completion_tokens_details"]["reasoning_tokens"],
        1
    );
}

/// Reads a provider's chunk with this delta.
fn with_delta<E: From<Malformed>>(
    delta: &str,
    take: impl FnMut(&Piece<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let chunk = format!("data: {{\"choices\":[{{\"delta\":{delta}}}]}}");
    Dialect::ChatChunks.read(&chunk, take)
}

#[test]
fn a_whole_answer_is_the_sum_of_its_pieces() {
    let writer = Writer::relayed(Api::Chat, RequestId(1), 5, "a \"quoted\" name");
    let mut answer = WholeAnswer::relayed();
    let pieces = [
        r#"{"role":"assistant","content":""}"#,
        r#"{"reasoning_content":"hm\n"}"#,
        r#"{"content":"p\u00f6","reasoning":null}"#,
        r#"{"content":"ng ✓"}"#,
        r#"{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a"}}]}"#,
        r#"{"tool_calls":[{"index":0,"function":{"arguments":"\":1}"}}]}"#,
    ];
    for piece in pieces {
        with_delta(piece, |piece| answer.push(piece)).expect("a small piece");
    }
    let mut out = Vec::new();
    writer.write_whole(&[(&answer, FinishReason::ToolCalls)], usage(), &mut out);
    let whole = read(&out);
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(whole["model"], "a \"quoted\" name");
    let message = &whole["choices"][0]["message"];
    assert_eq!(message["content"], "pöng ✓");
    assert_eq!(message["reasoning_content"], "hm\n");
    assert_eq!(message["tool_calls"][0]["id"], "c1");
    assert_eq!(
        message["tool_calls"][0]["function"]["arguments"],
        r#"{"a":1}"#
    );
    assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(whole["usage"]["total_tokens"], 7);
}

#[test]
fn every_frame_of_a_stream_is_one_json_event() {
    let mut writer = Writer::relayed(Api::Chat, RequestId(1), 5, "m");
    let mut out = Vec::new();
    for delta in [r#"{"content":"hi"}"#, r#"{"content":"hi"},"logprobs":null"#] {
        with_delta(delta, |piece| writer.write_piece(0, piece, &mut out)).expect("well formed");
    }
    writer.write_finish(0, FinishReason::Stop, &mut out);
    writer.write_usage(usage(), &mut out);
    writer.write_failed(&Envelope::from(Denial::ProviderFailed), &mut out);
    let text = core::str::from_utf8(&out).expect("events are text");
    let events: Vec<Value> = text
        .split_terminator("\n\n")
        .map(|event| {
            read(
                event
                    .strip_prefix("data: ")
                    .expect("one data line")
                    .as_bytes(),
            )
        })
        .collect();
    assert_eq!(
        events[0]["choices"][0]["delta"],
        json!({"role":"assistant","content":"hi"})
    );
    assert_eq!(events[1]["choices"][0]["delta"], json!({"content":"hi"}));
    assert_eq!(events[2]["choices"][0]["finish_reason"], "stop");
    assert_eq!(events[3]["choices"], json!([]));
    assert_eq!(events[3]["usage"]["completion_tokens"], 4);
    assert_eq!(events[4]["error"]["code"], "provider_error");
}

#[test]
fn calls_of_a_whole_message_get_the_index_that_a_delta_needs() {
    let message = r#"{"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}},
        {"id":"b","type":"function","function":{"name":"g","arguments":"{}"}}]}"#;
    let mut out = vec![];
    let mut writer = Writer::relayed(Api::Chat, RequestId(1), 5, "m");
    with_delta(&message.replace('\n', ""), |piece| {
        writer.write_piece(0, piece, &mut out)
    })
    .expect("well formed");
    let event = out.strip_prefix(b"data: ").expect("an event");
    let calls = &read(event)["choices"][0]["delta"]["tool_calls"];
    assert_eq!(calls[1]["index"], 1);
    assert_eq!(calls[1]["function"]["name"], "g");
}

proptest! {
    #[test]
    fn the_size_of_a_string_is_that_of_its_text(text in any::<String>(), is_ascii in any::<bool>()) {
        let mut raw = serde_json::to_string(&text).expect("text is JSON");
        if is_ascii {
            raw = raw.chars().map(|c| {
                if c.is_ascii() { return c.to_string(); }
                let mut units = [0u16; 2];
                c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect()
            }).collect();
        }
        prop_assert_eq!(decoded_size(&raw), Some(text.len() as u64));
    }

}
