//! The chat-completions body that a provider opens, read into what the engine needs.
//!
//! Parsed once; what comes out cannot be wrong. What the engine cannot honour is refused, not
//! ignored: a caller who asked for a JSON schema must not get prose. Errors name fields, never
//! their contents.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::failure::Failure;
use crate::sampling::Sampling;

/// Bytes of a body; what a consumer may send at most (`spec/wire.md` 1.2).
pub const BODY_BYTES_MAX: usize = 16 << 20;
pub const MESSAGES_MAX: usize = 4_096;
pub const STOPS_MAX: usize = 16;
pub const STOP_BYTES_MAX: usize = 256;
/// The range that clients know for `temperature`.
pub const TEMPERATURE_MAX: f64 = 2.0;

/// A request's messages and wishes.
#[derive(Debug)]
pub struct ChatRequest {
    pub messages: Vec<Message>,
    /// Output bound; absent means as much as fits.
    pub max_tokens: Option<u32>,
    pub wishes: Wishes,
    pub stops: Vec<String>,
    /// Variables for the chat template, such as `enable_thinking`: a JSON object as it came.
    pub template_variables: Option<Box<RawValue>>,
}

/// How tokens are to be chosen, as far as the caller said; each value lies in its range.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Wishes {
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub top_k: Option<u32>,
    pub seed: Option<u64>,
}

impl Wishes {
    /// Fills what the caller left open: the model's own defaults, and a seed.
    #[must_use]
    pub fn or(self, defaults: Defaults, seed: u64) -> Sampling {
        Sampling {
            temperature: self.temperature.unwrap_or(defaults.temperature),
            top_p: self.top_p.unwrap_or(defaults.top_p),
            top_k: self.top_k.unwrap_or(defaults.top_k),
            seed: self.seed.unwrap_or(seed),
        }
    }
}

/// How a model is best sampled, by its makers' word.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Defaults {
    pub temperature: f32,
    pub top_p: f32,
    pub top_k: u32,
}

impl Defaults {
    /// Those of the API, for a model that says nothing.
    pub const API: Self = Self {
        temperature: 1.0,
        top_p: 1.0,
        top_k: 0,
    };
}

/// One turn, as chat templates see it.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    pub role: Role,
    pub content: String,
}

/// Prints no content.
impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Message({:?}, {} bytes)", self.role, self.content.len())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Assistant,
    System,
    User,
}

#[derive(Deserialize)]
struct RawBody {
    messages: Vec<RawMessage>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<i64>,
    seed: Option<i64>,
    stop: Option<RawStop>,
    n: Option<u64>,
    logprobs: Option<bool>,
    frequency_penalty: Option<f64>,
    presence_penalty: Option<f64>,
    tools: Option<Vec<serde::de::IgnoredAny>>,
    logit_bias: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    response_format: Option<RawFormat>,
    chat_template_kwargs: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct RawMessage {
    role: String,
    content: Option<RawContent>,
    tool_calls: Option<Vec<serde::de::IgnoredAny>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawContent {
    Text(String),
    Parts(Vec<RawPart>),
}

#[derive(Deserialize)]
struct RawPart {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawStop {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
struct RawFormat {
    #[serde(rename = "type")]
    kind: String,
}

impl ChatRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// 400 `client_error`, naming the field and the line.
    pub fn from_json(body: &[u8]) -> Result<Self, Failure> {
        if body.len() > BODY_BYTES_MAX {
            return Err(Failure::client(format!(
                "the body exceeds {BODY_BYTES_MAX} bytes"
            )));
        }
        // serde's own message may quote a value, and a value may be a prompt.
        let raw: RawBody = serde_json::from_slice(body).map_err(|cause| {
            let kind = match cause.classify() {
                serde_json::error::Category::Data => "is not a chat-completions request",
                serde_json::error::Category::Eof => "ends before its JSON does",
                serde_json::error::Category::Io | serde_json::error::Category::Syntax => {
                    "is not JSON"
                }
            };
            let (line, column) = (cause.line(), cause.column());
            Failure::client(format!("the body {kind}, at line {line} column {column}"))
        })?;
        raw.refuse_unsupported()?;
        raw.into_request()
    }
}

impl RawBody {
    fn refuse_unsupported(&self) -> Result<(), Failure> {
        let is_some_penalty = |penalty: Option<f64>| penalty.is_some_and(|it| it != 0.0);
        let is_other_format = self
            .response_format
            .as_ref()
            .is_some_and(|format| format.kind != "text");
        let table = [
            (self.n.is_some_and(|n| n != 1), "n other than 1"),
            (self.logprobs == Some(true), "logprobs"),
            (is_some_penalty(self.frequency_penalty), "frequency_penalty"),
            (is_some_penalty(self.presence_penalty), "presence_penalty"),
            (
                self.tools.as_ref().is_some_and(|tools| !tools.is_empty()),
                "tools",
            ),
            (
                self.logit_bias
                    .as_ref()
                    .is_some_and(|bias| !bias.is_empty()),
                "logit_bias",
            ),
            (is_other_format, "response_format other than text"),
        ];
        let refused = table.into_iter().find(|(is_asked, _)| *is_asked);
        refused.map_or(Ok(()), |(_, what)| {
            Err(Failure::client(format!(
                "this engine does not support {what}"
            )))
        })
    }

    fn into_request(self) -> Result<ChatRequest, Failure> {
        if self.messages.is_empty() || self.messages.len() > MESSAGES_MAX {
            return Err(Failure::client(format!(
                "messages must hold 1 to {MESSAGES_MAX} messages"
            )));
        }
        let messages = self
            .messages
            .into_iter()
            .map(RawMessage::into_message)
            .collect::<Result<_, _>>()?;
        let max_tokens = self.max_completion_tokens.or(self.max_tokens);
        if max_tokens == Some(0) {
            return Err(Failure::client("max_tokens must be at least 1"));
        }
        let stops = match self.stop {
            None => vec![],
            Some(RawStop::One(stop)) => vec![stop],
            Some(RawStop::Several(stops)) => stops,
        };
        let is_bad = |stop: &String| stop.is_empty() || stop.len() > STOP_BYTES_MAX;
        if stops.len() > STOPS_MAX || stops.iter().any(is_bad) {
            return Err(Failure::client(format!(
                "stop must hold at most {STOPS_MAX} strings of 1 to {STOP_BYTES_MAX} bytes"
            )));
        }
        let top_k =
            match self.top_k {
                None => None,
                Some(-1) => Some(0),
                Some(top_k) => Some(u32::try_from(top_k).map_err(|_| {
                    Failure::client("top_k must be -1, 0 or a small positive number")
                })?),
            };
        Ok(ChatRequest {
            messages,
            max_tokens: max_tokens.map(|count| u32::try_from(count).unwrap_or(u32::MAX)),
            wishes: Wishes {
                temperature: within("temperature", self.temperature, 0.0, TEMPERATURE_MAX)?,
                top_p: within("top_p", self.top_p, 0.0, 1.0)?,
                top_k,
                seed: self.seed.map(i64::cast_unsigned),
            },
            stops,
            template_variables: self.chat_template_kwargs,
        })
    }
}

impl RawMessage {
    fn into_message(self) -> Result<Message, Failure> {
        let role = match self.role.as_str() {
            "assistant" => Role::Assistant,
            // What newer clients call the system's messages.
            "developer" | "system" => Role::System,
            "user" => Role::User,
            _ => {
                return Err(Failure::client(
                    "a message's role must be system, user or assistant",
                ));
            }
        };
        if self.tool_calls.is_some_and(|calls| !calls.is_empty()) {
            return Err(Failure::client("this engine does not support tool_calls"));
        }
        let content = match self.content {
            None => String::new(),
            Some(RawContent::Text(text)) => text,
            Some(RawContent::Parts(parts)) => joined(parts)?,
        };
        Ok(Message { role, content })
    }
}

fn joined(parts: Vec<RawPart>) -> Result<String, Failure> {
    let mut content = String::new();
    for part in parts {
        match part.text {
            Some(text) if part.kind == "text" => content.push_str(&text),
            Some(_) | None => {
                return Err(Failure::client(
                    "this engine takes content parts of type text only",
                ));
            }
        }
    }
    Ok(content)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a checked range that f32 holds"
)]
fn within(field: &str, value: Option<f64>, low: f64, high: f64) -> Result<Option<f32>, Failure> {
    match value {
        None => Ok(None),
        Some(value) if (low..=high).contains(&value) => Ok(Some(value as f32)),
        Some(_) => Err(Failure::client(format!(
            "{field} must lie between {low} and {high}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::failure::Reason;

    fn with(extra: &str) -> String {
        format!(r#"{{"model":"m","messages":[{{"role":"user","content":"secret"}}]{extra}}}"#)
    }

    #[test]
    fn a_plain_request_takes_the_defaults_that_clients_know() {
        let request = ChatRequest::from_json(with("").as_bytes()).unwrap();
        assert_eq!(
            request.messages[0],
            Message {
                role: Role::User,
                content: "secret".into()
            }
        );
        assert_eq!(request.max_tokens, None);
        assert_eq!(request.wishes, Wishes::default());
        let sampling = request.wishes.or(Defaults::API, 9);
        let expected = Sampling {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            seed: 9,
        };
        assert_eq!(sampling, expected);
        assert!(request.stops.is_empty());
    }

    #[test]
    fn every_wish_is_read() {
        let body = with(
            r#","max_tokens":5,"max_completion_tokens":7,"temperature":0.5,"top_p":0.9,
            "top_k":40,"seed":-1,"stop":["a","b"],"stream":true,"user":"x","n":1,"tools":[],
            "chat_template_kwargs":{"enable_thinking":false}"#,
        );
        let request = ChatRequest::from_json(body.as_bytes()).unwrap();
        assert_eq!(request.max_tokens, Some(7));
        let sampling = Sampling {
            temperature: 0.5,
            top_p: 0.9,
            top_k: 40,
            seed: u64::MAX,
        };
        let defaults = Defaults {
            temperature: 0.0,
            top_p: 0.5,
            top_k: 3,
        };
        assert_eq!(request.wishes.or(defaults, 9), sampling);
        assert_eq!(request.stops, ["a", "b"]);
        assert!(request.template_variables.is_some());
    }

    #[test]
    fn content_parts_are_joined() {
        let body = r#"{"messages":[{"role":"developer","content":[
            {"type":"text","text":"a"},{"type":"text","text":"b"}]}]}"#;
        let request = ChatRequest::from_json(body.as_bytes()).unwrap();
        assert_eq!(
            request.messages[0],
            Message {
                role: Role::System,
                content: "ab".into()
            }
        );
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name_and_without_the_prompt() {
        let table = [
            (with(r#","n":2"#), "n other than 1"),
            (with(r#","logprobs":true"#), "logprobs"),
            (with(r#","tools":[{"type":"function"}]"#), "tools"),
            (
                with(r#","response_format":{"type":"json_object"}"#),
                "response_format",
            ),
            (with(r#","logit_bias":{"5":1}"#), "logit_bias"),
            (with(r#","presence_penalty":0.5"#), "presence_penalty"),
            (
                with(r#","temperature":2.5"#),
                "temperature must lie between 0 and 2",
            ),
            (with(r#","top_p":-0.1"#), "top_p"),
            (with(r#","top_k":-5"#), "top_k"),
            (with(r#","max_tokens":0"#), "max_tokens"),
            (with(r#","stop":"""#), "stop must hold"),
            (with("").replace("user", "oracle"), "role"),
            (
                with("").replace(
                    r#""content":"secret""#,
                    r#""content":[{"type":"image_url"}]"#,
                ),
                "parts",
            ),
            (r#"{"messages":[]}"#.to_owned(), "messages"),
            (
                r#"{"messages":"secret"}"#.to_owned(),
                "not a chat-completions request",
            ),
            (
                r#"{"messages":[{"role":"user","content":"secret"#.to_owned(),
                "ends before",
            ),
            (r#"secret"#.to_owned(), "not JSON"),
            ("x".repeat(BODY_BYTES_MAX + 1), "exceeds"),
        ];
        for (body, expected) in table {
            let failure = ChatRequest::from_json(body.as_bytes()).unwrap_err();
            assert_eq!(failure.reason, Reason::ClientError);
            assert!(
                failure.text.contains(expected),
                "{failure} should speak of {expected}"
            );
            assert!(!failure.text.contains("secret"), "{failure}");
        }
    }

    #[test]
    fn a_message_is_not_printed() {
        let request = ChatRequest::from_json(with("").as_bytes()).unwrap();
        assert!(!format!("{request:?}").contains("secret"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ChatRequest::from_json(&bytes);
        }
    }
}
