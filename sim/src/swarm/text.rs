//! What consumers ask and what a truthful model answers: a function of the request's number, so that
//! provider and oracle agree without talking.

use super::plan::{PlannedAsk, model_name};

/// The body of request `number`, as an OpenAI client writes it.
pub(super) fn body(number: u32, ask: &PlannedAsk) -> Vec<u8> {
    let filler = "lorem ".repeat(ask.prompt_chars as usize / 6);
    format!(
        r#"{{"model":"{}","messages":[{{"role":"user","content":"request {number} {filler}"}}],"max_tokens":{},"stream":{}}}"#,
        model_name(ask.model),
        ask.output_tokens_max,
        ask.is_streamed,
    )
    .into_bytes()
}

/// The number that a lowered body speaks of.
pub(super) fn number_in(body: &[u8]) -> Option<u32> {
    let text = core::str::from_utf8(body).ok()?;
    let (_, after) = text.split_once("\"request ")?;
    let digits = after.split(' ').next()?;
    digits.parse().ok()
}

/// The number of the model that a body names; models beyond those of a plan there are none.
pub(super) fn model_in(body: &serde_json::Value) -> u16 {
    let name = body["model"].as_str().unwrap_or("");
    let number = name
        .strip_prefix("model-")
        .and_then(|digits| digits.parse().ok());
    number.unwrap_or(0)
}

/// Tokens `from..to` of the answer to request `number`.
pub(super) fn tokens(number: u32, from: u32, to: u32) -> String {
    use core::fmt::Write as _;
    let mut text = String::new();
    for token in from..to {
        write!(text, "{number}.{token} ").expect("a string takes everything");
    }
    text
}

/// How an answer looks to its consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// All of it, with its last mark.
    Whole(String),
    /// Some of it, then one error event.
    Broken,
    /// Neither an end nor an error.
    Torn,
}

/// Reads what a consumer got.
pub(super) fn seen(bytes: &[u8], is_streamed: bool) -> Seen {
    let Ok(text) = core::str::from_utf8(bytes) else {
        return Seen::Torn;
    };
    if !is_streamed {
        return whole(text);
    }
    let mut content = String::new();
    let mut is_done = false;
    for event in text.split("\n\n").filter(|event| !event.is_empty()) {
        let Some(payload) = event.strip_prefix("data: ") else {
            return Seen::Torn;
        };
        if is_done {
            return Seen::Torn;
        }
        if payload == "[DONE]" {
            is_done = true;
            continue;
        }
        let Ok(value) = serde_json::from_str::<serde_json::Value>(payload) else {
            return Seen::Torn;
        };
        if value.get("error").is_some() {
            return Seen::Broken;
        }
        let delta = value.pointer("/choices/0/delta/content");
        content.push_str(delta.and_then(serde_json::Value::as_str).unwrap_or(""));
    }
    if is_done {
        Seen::Whole(content)
    } else {
        Seen::Torn
    }
}

fn whole(text: &str) -> Seen {
    let Ok(value) = serde_json::from_str::<serde_json::Value>(text) else {
        return Seen::Torn;
    };
    let content = value.pointer("/choices/0/message/content");
    match content.and_then(serde_json::Value::as_str) {
        Some(content) => Seen::Whole(content.to_owned()),
        None => Seen::Torn,
    }
}
