//! What computes the tokens: a model on MLX, or the echo that computes nothing.
//!
//! A backend lives on the engine's thread and is built there, because tensors may not move between
//! threads. It is told what to run and keeps each running row's state under the row's slot.

use thiserror::Error;

use crate::chat::{ChatRequest, Defaults};
use crate::failure::Failure;
use crate::sampling::Chosen;
use crate::scheduler::RowSlot;
use crate::text::{AnswerParser, Vocabulary};

pub use crate::sampling::Sample;

/// The engine's seam to the model.
pub trait Backend: Vocabulary {
    fn limits(&self) -> Limits;

    /// How the model samples where a request does not say.
    fn defaults(&self) -> Defaults {
        Defaults::API
    }

    /// Turns a request into the tokens of its prompt.
    ///
    /// # Errors
    /// The template refuses the messages.
    fn prompt(&self, request: &ChatRequest) -> Result<Vec<u32>, Failure>;

    /// How the answer to a request is read, given the prompt that was made of it.
    fn parser(&self, _request: &ChatRequest, _prompt: &[u32]) -> AnswerParser {
        AnswerParser::plain()
    }

    /// Whether this token ends an answer; it has no text.
    fn is_end(&self, token: u32) -> bool;

    /// Runs one step and appends to `out` one token for each piece of work that asks, in order;
    /// `None` where the row's logits are not numbers, or its constraint allows none.
    ///
    /// # Errors
    /// The whole step is lost, and with it the state of the rows in it.
    fn step(
        &mut self,
        work: &[RowWork<'_>],
        out: &mut Vec<Option<Chosen>>,
    ) -> Result<(), StepError>;

    /// The row in `slot` ended; its state is of no more use.
    fn release(&mut self, slot: RowSlot);

    fn memory(&self) -> Memory;
}

/// What a loaded model can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub context_tokens: u32,
    pub kv_bytes_per_token: u64,
}

/// Bytes of accelerator memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub active_bytes: u64,
    pub peak_bytes: u64,
    pub cache_bytes: u64,
}

/// What one row does in a step.
#[derive(Clone, Copy, Debug)]
pub struct RowWork<'a> {
    pub slot: RowSlot,
    /// Position of the first of `tokens`; zero begins a new row in this slot.
    pub start: u32,
    pub tokens: &'a [u32],
    /// Present when the last token's logits give a new token.
    pub sample: Option<Sample<'a>>,
}

/// A step that failed. The cause comes from the tensor library and holds no text of a request.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct StepError(pub String);
