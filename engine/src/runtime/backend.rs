//! What computes the tokens: a model on MLX, or the echo that computes nothing.
//!
//! A backend lives on the engine's thread and is built there, because tensors may not move between
//! threads. It is told what to run and keeps each running row's state under the row's slot.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::prepare::Prompts;
use crate::chat::{ChatRequest, Defaults};
use crate::failure::{Failure, Reason};
use crate::grammar::Grammars;
use crate::kv::{KvLayout, Ledger, PageCopy, PageId};
use crate::sampling::Chosen;
use crate::scheduler::leases::Watchdog;
use crate::scheduler::{Restore, RowSlot, Save};
use crate::text::{AnswerParser, Vocabulary};

pub use crate::sampling::Sample;

/// The engine's seam to the model.
pub trait Backend: Vocabulary {
    fn limits(&self) -> Limits;

    /// How the past of a row is cut into pages, under a grant of so many bytes.
    fn layout(&self, grant_bytes: u64) -> KvLayout {
        KvLayout::full_attention(self.limits().kv_bytes_per_token.max(1), grant_bytes)
    }

    /// Names what makes tokens of a request: prompts share a past only under the same. Without one
    /// nothing is shared.
    fn contract(&self) -> Option<[u8; 32]> {
        None
    }

    /// A step that takes longer will never end. A generous bound: all that runs is given up.
    fn step_time_max(&self) -> Duration {
        Duration::from_micros(Watchdog::REFERENCE_LIMIT.0)
    }

    /// The tokens that [`Backend::is_end`] knows; empty where they cannot be held back.
    fn ends(&self) -> Vec<u32> {
        vec![]
    }

    /// How the model samples where a request does not say.
    fn defaults(&self) -> Defaults {
        Defaults::API
    }

    /// What makes prompts of requests, on other threads. Where there is none, because it costs
    /// nothing, the engine's thread asks for [`Backend::prompt`] and [`Backend::parser`].
    fn prompts(&self) -> Option<Arc<dyn Prompts>> {
        None
    }

    /// Turns a request into the tokens of its prompt.
    ///
    /// # Errors
    /// The template refuses the messages.
    fn prompt(&self, _request: &ChatRequest) -> Result<Vec<u32>, Failure> {
        let text = "this backend makes its prompts elsewhere";
        Err(Failure::new(Reason::ProviderError, text))
    }

    /// How the answer to a request is read, given the prompt that was made of it.
    fn parser(&self, _request: &ChatRequest, _prompt: &[u32]) -> AnswerParser {
        AnswerParser::plain()
    }

    /// Compiles the forms that answers can be held to; `None` where there is no such thing.
    fn grammars(&self) -> Option<Arc<dyn Grammars>> {
        None
    }

    /// Whether this token ends an answer; it has no text.
    fn is_end(&self, token: u32) -> bool;

    /// Runs one step and appends to `out` one token for each piece of work that asks, in order;
    /// `None` where the row's logits are not numbers, or its constraint allows none.
    ///
    /// # Errors
    /// The whole step is lost, and with it the state of the rows in it.
    fn step(&mut self, step: &StepWork<'_>, out: &mut Vec<Option<Chosen>>)
    -> Result<(), StepError>;

    /// Names the weights, and how their keys and values lie in exported blocks. Without one no block
    /// leaves memory.
    fn blocks_id(&self) -> Option<[u8; 32]> {
        None
    }

    /// What the pages of a block hold, as bytes, between two steps.
    ///
    /// # Errors
    /// It cannot be told.
    fn export(&mut self, _pages: &[PageId]) -> Result<Vec<u8>, StepError> {
        Err(StepError("this backend keeps no pages".to_owned()))
    }

    /// Fills the pages of blocks with what was exported, between two steps.
    ///
    /// # Errors
    /// The bytes are of no use; then the pages are not either.
    fn import(&mut self, _kv: &Ledger, _blocks: &[FilledBlock<'_>]) -> Result<(), StepError> {
        Err(StepError("this backend keeps no pages".to_owned()))
    }

    /// The row in `slot` ended; its state is of no more use.
    fn release(&mut self, slot: RowSlot);

    fn memory(&self) -> Memory;
}

/// What a loaded model can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub context_tokens: u32,
    pub kv_bytes_per_token: u64,
    /// A step of more tokens takes as much longer: it would only hold up first tokens.
    pub step_tokens_useful: u32,
}

/// Bytes of accelerator memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub active_bytes: u64,
    pub peak_bytes: u64,
    pub cache_bytes: u64,
}

/// One step, carried out in the order of the fields.
#[derive(Clone, Copy, Debug)]
pub struct StepWork<'a> {
    /// Whose pages are whose.
    pub kv: &'a Ledger,
    pub copies: &'a [PageCopy],
    pub restores: &'a [Restore],
    pub rows: &'a [RowWork<'a>],
    pub saves: &'a [Save],
}

/// A block that comes from elsewhere.
#[derive(Clone, Copy)]
pub struct FilledBlock<'a> {
    pub pages: &'a [PageId],
    /// As [`Backend::export`] told of it.
    pub bytes: &'a [u8],
}

/// Prints no bytes.
impl std::fmt::Debug for FilledBlock<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FilledBlock({} bytes)", self.bytes.len())
    }
}

/// What one row does in a step.
#[derive(Clone, Copy, Debug)]
pub struct RowWork<'a> {
    pub slot: RowSlot,
    /// Position of the first of `tokens`. What is before it lies in the row's pages.
    pub start: u32,
    pub tokens: &'a [u32],
    /// Present when the last token's logits give a new token.
    pub sample: Option<Sample<'a>>,
}

/// A step that failed. The cause comes from the tensor library and holds no text of a request.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct StepError(pub String);
