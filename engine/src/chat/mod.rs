//! The chat-completions body that a provider opens, read into what the engine needs.
//!
//! Parsed once; what comes out cannot be wrong. What the engine cannot honour is refused, not
//! ignored: a caller who asked for a JSON schema must not get prose. Errors name fields, never
//! their contents.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod body;
#[cfg(test)]
mod tests;
mod wishes;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::failure::Failure;

pub use wishes::{Defaults, Wishes};

/// Bytes of a body; what a consumer may send at most (`spec/wire.md` 1.2).
pub const BODY_BYTES_MAX: usize = 16 << 20;
pub const MESSAGES_MAX: usize = 4_096;
pub const STOPS_MAX: usize = 16;
pub const STOP_BYTES_MAX: usize = 256;

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
}
