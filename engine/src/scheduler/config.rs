//! What bounds a scheduler, checked once at birth.

use core::num::NonZeroU32;

use thiserror::Error;

use crate::kv::{HitLimit, LayoutError};

/// What a row must have before it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Admission {
    /// Room for its prompt, and then from step to step. More rows run together, and now and then one
    /// is preempted; it comes back only into room for all of its output, so that it is not computed
    /// over and over where answers are long. So many millionths of the grant are held back for the
    /// growth of rows that run.
    Optimistic { watermark_ppm: u32 },
    /// Room for its prompt and all of its output. A row that runs is preempted only after the grant
    /// shrank.
    WorstCase,
}

impl Admission {
    /// With a watermark of 5 %, as the published engine has it.
    pub const OPTIMISTIC: Self = Self::Optimistic {
        watermark_ppm: 50_000,
    };
}

/// Limits of one loaded model, each with its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SchedulerConfig {
    /// Rows that run together.
    pub rows_max: u16,
    /// Rows that may wait.
    pub waiting_max: u16,
    /// Longest prompt plus output of one row.
    pub context_tokens: u32,
    /// Tokens of one step, prefill and decode together.
    pub step_token_budget: u32,
    /// The most of one prompt in a step: how long a decoding row may be held up.
    pub prefill_chunk_tokens: u32,
    /// The same when there is one row and nobody is held up.
    pub solo_prefill_tokens: u32,
    /// Prefill of all rows together in a step that also decodes.
    pub mixed_prefill_tokens_max: Option<NonZeroU32>,
    /// Prompts that may be half done at the same time.
    pub partial_prefills_max: u16,
    pub admission: Admission,
    pub hit_limit: HitLimit,
    /// Recurrent layouts save a state after every so many blocks, and after a prompt's last.
    pub checkpoint_blocks: NonZeroU32,
}

/// A configuration that no scheduler can keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// A step must hold one decode token for each row and at least one of prefill.
    #[error("step_token_budget must exceed rows_max")]
    BudgetBelowRows,
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error("prefill_chunk_tokens must be at least 1")]
    NoChunk,
    #[error("context_tokens must be at least 2")]
    NoContext,
    #[error("the grant of KV memory must hold a row of 2 tokens")]
    NoKv,
    #[error("partial_prefills_max must be at least 1")]
    NoPartialPrefill,
    #[error("rows_max must be at least 1")]
    NoRows,
    #[error("solo_prefill_tokens must not be below prefill_chunk_tokens")]
    SoloBelowChunk,
}

impl SchedulerConfig {
    /// What a provider serves a model of this context with ("Engine product values" in
    /// `docs/protocol.md`).
    #[must_use]
    pub const fn reference(context_tokens: u32) -> Self {
        Self {
            rows_max: 8,
            waiting_max: 64,
            context_tokens,
            step_token_budget: 2_048,
            prefill_chunk_tokens: 512,
            solo_prefill_tokens: 2_048,
            mixed_prefill_tokens_max: None,
            partial_prefills_max: 1,
            admission: Admission::WorstCase,
            hit_limit: HitLimit::LastBlock,
            checkpoint_blocks: NonZeroU32::new(32).expect("not zero"),
        }
    }

    pub(super) fn checked(self) -> Result<Self, ConfigError> {
        if self.rows_max == 0 {
            return Err(ConfigError::NoRows);
        }
        if self.prefill_chunk_tokens == 0 {
            return Err(ConfigError::NoChunk);
        }
        if self.solo_prefill_tokens < self.prefill_chunk_tokens {
            return Err(ConfigError::SoloBelowChunk);
        }
        if self.partial_prefills_max == 0 {
            return Err(ConfigError::NoPartialPrefill);
        }
        if self.context_tokens < 2 {
            return Err(ConfigError::NoContext);
        }
        if self.step_token_budget <= u32::from(self.rows_max) {
            return Err(ConfigError::BudgetBelowRows);
        }
        Ok(self)
    }
}
