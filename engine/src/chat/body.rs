//! The body's own shape, and what is made of it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::wishes::RawWishes;
use super::{ChatRequest, MESSAGES_MAX, Message, Role, STOP_BYTES_MAX, STOPS_MAX};
use crate::failure::Failure;

pub(super) fn read(body: &[u8]) -> Result<ChatRequest, Failure> {
    // serde's own message may quote a value, and a value may be a prompt.
    let raw: RawBody = serde_json::from_slice(body).map_err(|cause| {
        let kind = match cause.classify() {
            serde_json::error::Category::Data => "is not a chat-completions request",
            serde_json::error::Category::Eof => "ends before its JSON does",
            serde_json::error::Category::Io | serde_json::error::Category::Syntax => "is not JSON",
        };
        let (line, column) = (cause.line(), cause.column());
        Failure::client(format!("the body {kind}, at line {line} column {column}"))
    })?;
    raw.refuse_unsupported()?;
    raw.into_request()
}

#[derive(Deserialize)]
struct RawBody {
    messages: Vec<RawMessage>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<i64>,
    min_p: Option<f64>,
    repetition_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    presence_penalty: Option<f64>,
    logit_bias: Option<BTreeMap<String, f64>>,
    seed: Option<i64>,
    logprobs: Option<bool>,
    top_logprobs: Option<i64>,
    stop: Option<RawStop>,
    n: Option<u64>,
    tools: Option<Vec<IgnoredAny>>,
    response_format: Option<RawFormat>,
    chat_template_kwargs: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct RawMessage {
    role: String,
    content: Option<RawContent>,
    tool_calls: Option<Vec<IgnoredAny>>,
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

impl RawBody {
    fn refuse_unsupported(&self) -> Result<(), Failure> {
        let is_other_format = self
            .response_format
            .as_ref()
            .is_some_and(|format| format.kind != "text");
        let table = [
            (self.n.is_some_and(|n| n != 1), "n other than 1"),
            (
                self.tools.as_ref().is_some_and(|tools| !tools.is_empty()),
                "tools",
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
        let wishes = RawWishes {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            logit_bias: self.logit_bias,
            seed: self.seed,
            logprobs: self.logprobs,
            top_logprobs: self.top_logprobs,
        };
        Ok(ChatRequest {
            messages,
            max_tokens: max_tokens.map(|count| u32::try_from(count).unwrap_or(u32::MAX)),
            wishes: wishes.into_wishes()?,
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
