//! A whole answer, put together from the pieces of a stream.

use serde_json::value::RawValue;

use super::delta::{Delta, Malformed, calls, inside};
use super::finish::FinishReason;
use super::json::quote;
use super::logprobs::write_tokens;
use super::said::{Said, SaidCall};
use super::stream::{AnswerUsage, Framing, write_logprobs};

/// Largest answer, in bytes of escaped text.
pub const SIZE_MAX: usize = 8 << 20;

const TOOL_CALLS_MAX: usize = 128;

/// Why a piece could not be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overfull {
    Malformed,
    /// The answer would outgrow [`SIZE_MAX`].
    TooLarge,
}

impl From<Malformed> for Overfull {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// The pieces so far. Texts are the insides of JSON strings, still escaped, so that joining them is
/// appending them.
#[derive(Clone, Default)]
pub struct Answer {
    content: Vec<u8>,
    reasoning: Vec<u8>,
    refusal: Vec<u8>,
    tool_calls: Vec<Call>,
    /// The elements of `logprobs.content`.
    tokens: Vec<u8>,
    size: usize,
}

#[derive(Clone, Default)]
struct Call {
    index: u32,
    id: Vec<u8>,
    name: Vec<u8>,
    arguments: Vec<u8>,
}

impl core::fmt::Debug for Answer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Answer({} bytes)", self.size)
    }
}

impl Answer {
    /// Adds a piece; `logprobs` are as a provider sent them.
    pub fn push(&mut self, delta: &Delta<'_>, logprobs: Option<&RawValue>) -> Result<(), Overfull> {
        if let Some(logprobs) = logprobs {
            let before = self.tokens.len();
            write_tokens(logprobs, &mut self.tokens)?;
            self.size += self.tokens.len() - before;
            if self.size > SIZE_MAX {
                return Err(Overfull::TooLarge);
            }
        }
        for (raw, text) in [
            (delta.content, &mut self.content),
            (delta.thought(), &mut self.reasoning),
            (delta.refusal, &mut self.refusal),
        ] {
            if let Some(raw) = raw {
                append(inside(raw)?, text, &mut self.size)?;
            }
        }
        let Some(raw) = delta.tool_calls else {
            return Ok(());
        };
        for (position, piece) in (0u32..).zip(calls(raw)?) {
            let index = piece.index.unwrap_or(position);
            let ix = match self.tool_calls.iter().position(|call| call.index == index) {
                Some(ix) => ix,
                None if self.tool_calls.len() < TOOL_CALLS_MAX => {
                    self.tool_calls.push(Call {
                        index,
                        ..Call::default()
                    });
                    self.tool_calls.len() - 1
                }
                None => return Err(Overfull::TooLarge),
            };
            let call = &mut self.tool_calls[ix];
            let name = piece.function().and_then(|function| function.name);
            let arguments = piece.function().and_then(|function| function.arguments);
            for (raw, text) in [
                (piece.id, &mut call.id),
                (name, &mut call.name),
                (arguments, &mut call.arguments),
            ] {
                if let Some(raw) = raw {
                    append(inside(raw)?, text, &mut self.size)?;
                }
            }
        }
        Ok(())
    }

    /// Adds a piece of an engine of our own. Its size is bounded by that of the answer's tokens.
    pub fn say(&mut self, said: &Said<'_>, calls: &[SaidCall<'_>]) {
        escape(said.content, &mut self.content);
        escape(said.reasoning, &mut self.reasoning);
        if !said.logprobs.is_empty() && !self.tokens.is_empty() {
            self.tokens.push(b',');
        }
        self.tokens.extend_from_slice(said.logprobs);
        for piece in calls {
            if let Some(begun) = piece.begun {
                let mut call = Call {
                    index: piece.index,
                    ..Call::default()
                };
                escape(begun.id, &mut call.id);
                escape(begun.name, &mut call.name);
                self.tool_calls.push(call);
            }
            let known = self.tool_calls.iter_mut();
            if let Some(call) = known.rev().find(|call| call.index == piece.index) {
                escape(piece.arguments, &mut call.arguments);
            }
        }
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.size == 0 && self.tool_calls.is_empty()
    }

    /// Forgets everything, as a new attempt begins.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Appends the `chat.completion` object of one answer.
    pub fn write(
        &self,
        framing: &Framing,
        finish: FinishReason,
        usage: AnswerUsage,
        out: &mut Vec<u8>,
    ) {
        Self::write_all(framing, [(self, finish)].into_iter(), usage, out);
    }

    /// Appends the `chat.completion` object of all answers to a request.
    pub fn write_all<'a>(
        framing: &Framing,
        answers: impl Iterator<Item = (&'a Self, FinishReason)>,
        usage: AnswerUsage,
        out: &mut Vec<u8>,
    ) {
        framing.open_whole(out);
        for ((answer, finish), index) in answers.zip(0u32..) {
            if index > 0 {
                out.push(b',');
            }
            answer.write_choice(index, finish, out);
        }
        out.extend_from_slice(b"],\"usage\":");
        usage.write(out);
        out.push(b'}');
    }

    fn write_choice(&self, index: u32, finish: FinishReason, out: &mut Vec<u8>) {
        let head =
            format!("{{\"index\":{index},\"message\":{{\"role\":\"assistant\",\"content\":\"");
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(&self.content);
        out.push(b'"');
        if !self.reasoning.is_empty() {
            for name in ["reasoning", "reasoning_content"] {
                member(name, &self.reasoning, out);
            }
        }
        if self.refusal.is_empty() {
            out.extend_from_slice(b",\"refusal\":null");
        } else {
            member("refusal", &self.refusal, out);
        }
        if !self.tool_calls.is_empty() {
            out.extend_from_slice(b",\"tool_calls\":[");
            for (ix, call) in self.tool_calls.iter().enumerate() {
                if ix > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(b"{\"type\":\"function\"");
                member("id", &call.id, out);
                out.extend_from_slice(b",\"function\":{\"name\":\"");
                out.extend_from_slice(&call.name);
                out.push(b'"');
                member("arguments", &call.arguments, out);
                out.extend_from_slice(b"}}");
            }
            out.push(b']');
        }
        out.extend_from_slice(b"},\"logprobs\":");
        write_logprobs(&self.tokens, out);
        out.extend_from_slice(b",\"finish_reason\":\"");
        out.extend_from_slice(finish.as_str().as_bytes());
        out.extend_from_slice(b"\"}");
    }
}

/// Appends the inside of a JSON string.
fn escape(text: &str, out: &mut Vec<u8>) {
    let from = out.len();
    quote(text, out);
    out.pop();
    out.remove(from);
}

fn append(piece: &str, text: &mut Vec<u8>, size: &mut usize) -> Result<(), Overfull> {
    if piece.len() > SIZE_MAX - *size {
        return Err(Overfull::TooLarge);
    }
    *size += piece.len();
    text.extend_from_slice(piece.as_bytes());
    Ok(())
}

fn member(name: &str, escaped: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":\"");
    out.extend_from_slice(escaped);
    out.push(b'"');
}
