//! The chat-completions body that a provider opens, read into what the engine needs.
//!
//! Parsed once; what comes out cannot be wrong. What the engine cannot honour is refused, not
//! ignored: a caller who asked for a JSON schema must not get prose. Errors name fields, never
//! their contents.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod body;
mod message;
#[cfg(test)]
mod tests;
mod tools;
mod wishes;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::failure::Failure;

pub use message::{CALLS_MAX, Call, CalledFunction, Message, Role};
pub use tools::{Format, Parallel, SCHEMA_BYTES_MAX, TOOLS_MAX, Tool, ToolChoice, Tools};
pub use wishes::{Defaults, Wishes};

/// Bytes of a body; what a consumer may send at most (`spec/wire.md` 1.2).
pub const BODY_BYTES_MAX: usize = 16 << 20;
pub const MESSAGES_MAX: usize = 4_096;
pub const STOPS_MAX: usize = 16;
pub const STOP_BYTES_MAX: usize = 256;

/// Stop strings of an answer that must have a form.
pub const CONSTRAINED_STOPS_MAX: usize = 4;

/// What is asked, and how it is to be answered.
#[derive(Debug)]
pub struct ChatRequest {
    pub input: Input,
    /// Output bound; absent means as much as fits.
    pub max_tokens: Option<u32>,
    pub wishes: Wishes,
    pub stops: Vec<String>,
    pub ends: Ends,
    pub tools: Tools,
    pub format: Format,
    pub template: TemplateWishes,
}

/// What an end token does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ends {
    #[default]
    Heeded,
    /// Nothing: the answer goes on to its bound. For measurements, which need answers of one length.
    Ignored,
}

/// What the answer goes on from.
pub enum Input {
    Conversation(Vec<Message>),
    /// Taken as it is, without the chat template.
    Text(String),
}

/// Prints no content.
impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Conversation(messages) => write!(f, "{} messages", messages.len()),
            Self::Text(text) => write!(f, "{} bytes", text.len()),
        }
    }
}

/// What the caller says to the chat template.
#[derive(Debug, Default)]
pub struct TemplateWishes {
    /// Its own variables by name: a JSON object as it came.
    pub variables: Option<Json>,
    /// `enable_thinking`, where the variables lack it.
    pub thinking: Option<bool>,
    /// `reasoning_effort`, where the variables lack it.
    pub effort: Option<String>,
}

/// JSON as it came, in the caller's order.
#[derive(Clone, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

impl Json {
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// # Errors
    /// The text is not JSON.
    pub fn from_text(text: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text).map(Self)
    }

    fn is_object(&self) -> bool {
        self.as_str().starts_with('{')
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Json {}

/// Prints no content.
impl std::fmt::Debug for Json {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Json({} bytes)", self.as_str().len())
    }
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
        body::read(body)
    }

    /// Whether the answer must have a form.
    #[must_use]
    pub fn is_constrained(&self) -> bool {
        self.must_have_form() || self.tools.are_strict()
    }

    fn must_have_form(&self) -> bool {
        self.tools.must_be_called() || !matches!(self.format, Format::Text)
    }

    /// The turns of a conversation; none for a plain text.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        match &self.input {
            Input::Conversation(messages) => messages,
            Input::Text(_) => &[],
        }
    }
}
