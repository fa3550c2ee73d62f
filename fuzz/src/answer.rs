//! A slow, plain reading of what goes into a relay and of what comes out.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

type Object<'a> = BTreeMap<String, &'a RawValue>;

/// The text of an answer, escaped as it was written, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    pub content: String,
    pub reasoning: String,
    pub refusal: String,
    /// Each call's arguments, by the index that the provider gave or by position.
    pub arguments: Vec<(u32, String)>,
}

impl Content {
    pub fn push(&mut self, other: &Self) {
        self.content += &other.content;
        self.reasoning += &other.reasoning;
        self.refusal += &other.refusal;
        self.arguments.extend(other.arguments.iter().cloned());
    }

    fn is_empty(&self) -> bool {
        self.content.is_empty() && self.reasoning.is_empty() && self.refusal.is_empty()
    }

    /// As one whole message has it: the pieces of each call joined, in order of appearance.
    #[must_use]
    pub fn joined(&self) -> Self {
        let mut joined: Vec<(u32, String)> = vec![];
        for (index, piece) in &self.arguments {
            match joined.iter_mut().find(|(seen, _)| seen == index) {
                Some((_, arguments)) => *arguments += piece,
                None => joined.push((*index, piece.clone())),
            }
        }
        let arguments = (0..)
            .zip(joined)
            .map(|(ix, (_, text))| (ix, text))
            .collect();
        Self {
            arguments,
            ..self.clone()
        }
    }
}

/// The content-bearing pieces of an opened chunk, up to the first thing that is no event, and
/// whether there was none.
#[must_use]
pub fn contents(chunk: &[u8]) -> (Vec<Content>, bool) {
    let mut pieces = vec![];
    let Ok(text) = core::str::from_utf8(chunk) else {
        return (pieces, false);
    };
    for line in text.split('\n') {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty()
            || [":", "event:", "id:", "retry:"]
                .iter()
                .any(|it| line.starts_with(it))
        {
            continue;
        }
        let Some(payload) = line.strip_prefix("data:") else {
            return (pieces, false);
        };
        let payload = payload.trim();
        if payload.is_empty() || payload == "[DONE]" {
            continue;
        }
        match piece(payload) {
            None => return (pieces, false),
            Some(None) => {}
            Some(Some(piece)) => pieces.push(piece),
        }
    }
    (pieces, true)
}

/// The outer `None`: not an event. The inner: nothing to relay.
fn piece(payload: &str) -> Option<Option<Content>> {
    let event: Object<'_> = serde_json::from_str(payload).ok()?;
    let Some(choices) = event.get("choices") else {
        return Some(None);
    };
    let choices: Vec<&RawValue> = serde_json::from_str(choices.get()).ok()?;
    let Some(choice) = choices.first() else {
        return Some(None);
    };
    let choice: Object<'_> = serde_json::from_str(choice.get()).ok()?;
    let Some(delta) = present(&choice, "delta").or(present(&choice, "message")) else {
        return Some(None);
    };
    let delta: Object<'_> = serde_json::from_str(delta).ok()?;
    let (found, calls) = delta_content(&delta)?;
    Some((calls > 0 || !found.is_empty()).then_some(found))
}

/// What a delta or a message says, and how many calls are in it.
fn delta_content(delta: &Object<'_>) -> Option<(Content, usize)> {
    let mut found = Content {
        content: inside(present(delta, "content"))?,
        reasoning: inside(present(delta, "reasoning_content").or(present(delta, "reasoning")))?,
        refusal: inside(present(delta, "refusal"))?,
        arguments: vec![],
    };
    let Some(calls) = present(delta, "tool_calls") else {
        return Some((found, 0));
    };
    let calls: Vec<Object<'_>> = serde_json::from_str(calls).ok()?;
    for (position, call) in (0u32..).zip(&calls) {
        let index = match present(call, "index") {
            Some(index) => serde_json::from_str(index).ok()?,
            None => position,
        };
        let mut arguments = String::new();
        if let Some(function) = present(call, "function") {
            let function: Object<'_> = serde_json::from_str(function).ok()?;
            arguments = inside(present(&function, "arguments"))?;
        }
        found.arguments.push((index, arguments));
    }
    Some((found, calls.len()))
}

fn present<'a>(object: &Object<'a>, name: &str) -> Option<&'a str> {
    object
        .get(name)
        .map(|raw| raw.get())
        .filter(|text| *text != "null")
}

fn inside(text: Option<&str>) -> Option<String> {
    let Some(text) = text else {
        return Some(String::new());
    };
    Some(text.strip_prefix('"')?.strip_suffix('"')?.to_owned())
}

/// What a consumer of a stream saw.
#[derive(Debug, Default)]
pub struct Streamed {
    pub content: Content,
    pub roles: usize,
    pub finishes: usize,
    pub has_usage: bool,
    pub has_error: bool,
    pub is_done: bool,
}

/// Reads server-sent events as the standard says: a line ends with LF, CR or both.
///
/// # Panics
/// When the stream is not what every client can read.
#[must_use]
pub fn streamed(bytes: &[u8]) -> Streamed {
    let text = core::str::from_utf8(bytes).expect("a stream is text");
    let mut seen = Streamed::default();
    for line in text.replace("\r\n", "\n").split(['\n', '\r']) {
        if line.is_empty() {
            continue;
        }
        let payload = line.strip_prefix("data: ").expect("every line is data");
        assert!(
            !seen.is_done && !seen.has_error,
            "something follows the end"
        );
        if payload == "[DONE]" {
            seen.is_done = true;
            continue;
        }
        let event: Object<'_> = serde_json::from_str(payload).expect("every event is an object");
        if event.contains_key("error") {
            seen.has_error = true;
            continue;
        }
        seen.has_usage |= event.contains_key("usage");
        let choices = event.get("choices").expect("every event has choices");
        let choices: Vec<Object<'_>> = serde_json::from_str(choices.get()).expect("a list");
        let Some(choice) = choices.first() else {
            continue;
        };
        seen.finishes += usize::from(present(choice, "finish_reason").is_some());
        let delta = present(choice, "delta").expect("every choice has a delta");
        let delta: Object<'_> = serde_json::from_str(delta).expect("a delta is an object");
        seen.roles += usize::from(delta.contains_key("role"));
        let (content, _) = delta_content(&delta).expect("a delta that clients can read");
        seen.content.push(&content);
    }
    seen
}

/// Reads one whole answer.
///
/// # Panics
/// When it is not what every client can read.
#[must_use]
pub fn whole(bytes: &[u8]) -> Content {
    let answer: Object<'_> = serde_json::from_slice(bytes).expect("an answer is an object");
    let choices = answer.get("choices").expect("an answer has choices");
    let choices: Vec<Object<'_>> = serde_json::from_str(choices.get()).expect("a list");
    let message = present(&choices[0], "message").expect("a choice has a message");
    let message: Object<'_> = serde_json::from_str(message).expect("a message is an object");
    delta_content(&message)
        .expect("a message that clients can read")
        .0
}
