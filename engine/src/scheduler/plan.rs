//! What a scheduler hands out: the step to compute, the rows that ended, the room that is left.

use super::{RowId, RowSlot};
use crate::kv::{PageCopy, StateId};

/// A row that enters a slot with this step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Admitted {
    pub row: RowId,
    pub slot: RowSlot,
    /// Leading tokens that were found and are not computed.
    pub cached_tokens: u32,
}

/// A row that lost its slot and all that was computed of it. It waits again, at the front of its
/// class, and keeps the tokens that it generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Preempted {
    pub row: RowId,
    pub slot: RowSlot,
}

/// A piece of a prompt to run through the model. The prompt of a row that was preempted is its
/// prompt and what it had generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefill {
    pub row: RowId,
    pub slot: RowSlot,
    /// Position of the piece's first token in the prompt.
    pub start: u32,
    pub len: u32,
    /// The prompt ends with this piece: its last logits give the next token of output.
    pub is_last: bool,
}

/// One more token for a row: its newest token goes in at `position`, the next comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decode {
    pub row: RowId,
    pub slot: RowSlot,
    pub position: u32,
}

/// The slot's recurrent state is this saved one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Restore {
    pub slot: RowSlot,
    pub from: StateId,
}

/// The slot's recurrent state is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Save {
    pub row: RowId,
    pub slot: RowSlot,
    /// Tokens that the state has seen, a whole number of blocks.
    pub tokens: u32,
    pub to: StateId,
}

/// One step of the model. Reused by its owner, who carries it out in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct StepPlan {
    pub preempted: Vec<Preempted>,
    pub admitted: Vec<Admitted>,
    /// Before the step, in this order.
    pub copies: Vec<PageCopy>,
    /// Before the step.
    pub restores: Vec<Restore>,
    pub prefill: Vec<Prefill>,
    pub decode: Vec<Decode>,
    /// After the step.
    pub saves: Vec<Save>,
}

impl StepPlan {
    /// Nothing is computed. Rows may have been preempted all the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.prefill.is_empty() && self.decode.is_empty()
    }

    #[must_use]
    pub fn prefill_tokens(&self) -> u64 {
        self.prefill.iter().map(|chunk| u64::from(chunk.len)).sum()
    }

    pub fn clear(&mut self) {
        let Self {
            preempted,
            admitted,
            copies,
            restores,
            prefill,
            decode,
            saves,
        } = self;
        preempted.clear();
        admitted.clear();
        copies.clear();
        restores.clear();
        prefill.clear();
        decode.clear();
        saves.clear();
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

/// What a heartbeat reports of one model. Bytes are told as tokens of a long row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Capacity {
    pub running: u16,
    pub waiting: u16,
    pub concurrency_max: u16,
    /// KV tokens that running rows have reserved.
    pub budget_used: u64,
    pub budget_max: u64,
    /// Worst-case KV tokens of waiting rows.
    pub budget_queued: u64,
    /// Prompt tokens of running rows that are still to be computed.
    pub prefill_left_tokens: u64,
}
