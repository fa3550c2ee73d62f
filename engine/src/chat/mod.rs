//! A request in the engine's hands: what the core has read of a body, in a form of its own that
//! outlives the body.
//!
//! The core's reader has refused what cannot be honoured; what only a model can tell, such as whether
//! a token is in its vocabulary, is checked here. Errors name fields, never their contents.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod message;
mod owned;
#[cfg(test)]
mod tests;
mod tools;
mod wishes;

use cereus_core::api::Request;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::failure::Failure;

pub use cereus_core::api::{CALLS_MAX, Ending, Ends, Parallel, Role, ToolChoice};
pub use message::{Call, CalledFunction, Message};
pub use tools::{Format, Tool, Tools};
pub use wishes::{Defaults, Wishes};

/// What is asked, and how it is to be answered.
#[derive(Clone, Debug)]
pub struct ChatRequest {
    pub input: Input,
    /// Output bound; absent means as much as fits.
    pub max_tokens: Option<u32>,
    /// The answer has at least this many tokens: none that would end it is allowed before.
    pub min_tokens: u32,
    pub wishes: Wishes,
    /// They count in what is said, once the answer has its least length.
    pub stops: Vec<String>,
    pub ends: Ends,
    /// Tokens that end the answer beside the model's own.
    pub end_tokens: Vec<u32>,
    pub tools: Tools,
    pub format: Format,
    pub template: TemplateWishes,
}

/// What the answer goes on from.
#[derive(Clone)]
pub enum Input {
    Conversation(Vec<Message>),
    /// A plain text prompt: it goes to the tokenizer without the chat template.
    Text(String),
    /// A prompt that was made elsewhere, in the model's own tokens.
    Tokens(Vec<u32>),
}

impl Input {
    /// Bytes of what there is to cut into tokens, about.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Conversation(messages) => messages.iter().map(|it| it.content.len()).sum(),
            Self::Text(text) => text.len(),
            Self::Tokens(tokens) => tokens.len(),
        }
    }
}

/// Prints no content.
impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Conversation(messages) => write!(f, "{} messages", messages.len()),
            Self::Text(text) => write!(f, "{} bytes", text.len()),
            Self::Tokens(tokens) => write!(f, "{} tokens", tokens.len()),
        }
    }
}

/// What the caller says to the chat template.
#[derive(Clone, Debug, Default)]
pub struct TemplateWishes {
    /// Its own variables by name: a JSON object as it came.
    pub variables: Option<Json>,
    /// `enable_thinking`, where the variables lack it.
    pub thinking: Option<bool>,
    /// `reasoning_effort`, where the variables lack it.
    pub effort: Option<String>,
    pub ending: Ending,
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
    /// Reads a body that asks for one answer.
    ///
    /// # Errors
    /// 400 `client_error`, naming the field.
    pub fn from_json(body: &[u8]) -> Result<Self, Failure> {
        let request = Request::read_any(body)?;
        request.one_answer()?;
        let mut all = Self::each(&request);
        Ok(all.remove(0))
    }

    /// The same for a further answer: its chances are others, and known where the seed is.
    #[must_use]
    pub fn choice(&self, choice: u64) -> Self {
        let mut other = self.clone();
        other.wishes.seed = other.wishes.seed.map(|seed| seed.wrapping_add(choice));
        other
    }

    /// Whether the answer must have a form.
    #[must_use]
    pub fn is_constrained(&self) -> bool {
        self.must_have_form() || self.tools.are_strict()
    }

    fn must_have_form(&self) -> bool {
        self.tools.must_be_called() || !matches!(self.format, Format::Text)
    }

    /// Whether the answer is a turn of a conversation, with thoughts and calls, and not just text.
    #[must_use]
    pub const fn is_chat(&self) -> bool {
        matches!(self.input, Input::Conversation(_))
    }

    /// The turns of a conversation; none for a plain text.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        match &self.input {
            Input::Conversation(messages) => messages,
            Input::Text(_) | Input::Tokens(_) => &[],
        }
    }

    /// That the request names no token that a vocabulary of this size lacks.
    ///
    /// # Errors
    /// 400, naming the field.
    pub fn check_tokens(&self, vocab_size: u32) -> Result<(), Failure> {
        let prompt: &[u32] = match &self.input {
            Input::Conversation(_) | Input::Text(_) => &[],
            Input::Tokens(tokens) => tokens,
        };
        let biased = self.wishes.logit_bias.iter().map(|&(token, _)| token);
        let is_absent = |token: u32| token >= vocab_size;
        let fields = [
            ("logit_bias", biased.clone().any(is_absent)),
            ("prompt", prompt.iter().copied().any(is_absent)),
            (
                "stop_token_ids",
                self.end_tokens.iter().copied().any(is_absent),
            ),
        ];
        match fields.into_iter().find(|(_, is_wrong)| *is_wrong) {
            None => Ok(()),
            Some((field, _)) => {
                let text =
                    format!("{field} names a token that this model lacks: it has {vocab_size}");
                Err(Failure::field(field, text))
            }
        }
    }
}
