//! One sequence to compute: what was asked for and how far it is.

use thiserror::Error;

use crate::kv::BlockHash;

/// Names a row: chosen by the caller, never used twice while the row lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId(pub u64);

/// Where a running row lives: below `rows_max`, reused after the row ends. Recurrent state is kept
/// by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowSlot(pub u16);

/// One sequence to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowRequest {
    pub id: RowId,
    pub prompt_tokens: u32,
    pub output_tokens_max: u32,
    /// Higher goes first; equals in order of arrival.
    pub priority: u8,
}

impl RowRequest {
    pub(super) const fn tokens_max(&self) -> u32 {
        self.prompt_tokens.saturating_add(self.output_tokens_max)
    }
}

/// Why a row was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
pub enum Refused {
    #[error("a row with this id waits or runs already")]
    Duplicate,
    #[error("a row needs at least one prompt token and one output token")]
    Empty,
    /// Not even alone.
    #[error("prompt and output bound exceed the KV budget; lower max_tokens")]
    NeverFits,
    #[error("the queue of waiting rows is full; try again later")]
    QueueFull,
    #[error("prompt and output bound exceed the context; lower max_tokens")]
    TooLong,
}

/// Where a cancelled row was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    Running(RowSlot),
    /// Neither waits nor runs: it ended before.
    Unknown,
    Waiting,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Row {
    pub(super) ask: RowRequest,
    /// In order of submission: who came first, among equals.
    pub(super) arrival: u64,
    /// Names of the sequence's blocks, as far as they are known. None: nothing is looked up or kept.
    pub(super) hashes: Vec<BlockHash>,
    /// Tokens whose KV is written.
    pub(super) computed: u32,
    /// Tokens sampled so far.
    pub(super) generated: u32,
    /// Prefill ends after so many tokens: the prompt and what was generated before a preemption.
    pub(super) prefill_end: u32,
    /// Leading tokens that its first admission found.
    pub(super) cached: Option<u32>,
    pub(super) is_paused: bool,
    /// It was preempted, and does not come back on trust.
    pub(super) has_left: bool,
}

impl Row {
    /// Prompt and confirmed output.
    pub(super) const fn tokens(&self) -> u32 {
        self.ask.prompt_tokens + self.generated
    }

    pub(super) const fn is_prefilling(&self) -> bool {
        self.computed < self.prefill_end
    }

    pub(super) const fn is_decoding(&self) -> bool {
        !self.is_prefilling() && !self.is_paused
    }

    pub(super) const fn prefill_left(&self) -> u32 {
        self.prefill_end.saturating_sub(self.computed)
    }

    /// Tokens that it may still sample.
    pub(super) const fn remaining(&self) -> u32 {
        self.ask.output_tokens_max - self.generated
    }
}
