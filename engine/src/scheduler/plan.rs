//! What a scheduler hands out: the step to compute, the rows that ended, the room that is left.

use super::{RowId, RowSlot};

/// A piece of a prompt to run through the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefill {
    pub row: RowId,
    pub slot: RowSlot,
    /// Position of the piece's first token in the prompt.
    pub start: u32,
    pub len: u32,
    /// The prompt ends with this piece: its last logits give the first token of output.
    pub is_last: bool,
}

/// One more token for a row: its newest token goes in at `position`, the next comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decode {
    pub row: RowId,
    pub slot: RowSlot,
    pub position: u32,
}

/// One step of the model. Reused by its owner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct StepPlan {
    pub prefill: Vec<Prefill>,
    pub decode: Vec<Decode>,
}

impl StepPlan {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.prefill.is_empty() && self.decode.is_empty()
    }

    #[must_use]
    pub fn prefill_tokens(&self) -> u64 {
        self.prefill.iter().map(|chunk| u64::from(chunk.len)).sum()
    }

    pub fn clear(&mut self) {
        self.prefill.clear();
        self.decode.clear();
    }
}

/// Why a row ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// `output_tokens_max` tokens were generated.
    LimitReached,
    /// The caller said that the newest token ended it.
    Stopped,
}

/// A row that ended in a commit. Its slot is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ended {
    pub row: RowId,
    pub slot: RowSlot,
    /// Tokens sampled, the ending one included.
    pub generated: u32,
    pub reason: EndReason,
}

/// What a heartbeat reports of one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Capacity {
    pub running: u16,
    pub waiting: u16,
    pub concurrency_max: u16,
    /// Worst-case KV tokens of running rows.
    pub budget_used: u64,
    pub budget_max: u64,
    /// Worst-case KV tokens of waiting rows.
    pub budget_queued: u64,
    /// Prompt tokens of running rows that are still to be computed.
    pub prefill_left_tokens: u64,
}
