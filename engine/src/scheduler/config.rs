//! What bounds a scheduler, checked once at birth.

use core::fmt;

/// Limits of one loaded model, each with its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SchedulerConfig {
    /// Rows that run together.
    pub rows_max: u16,
    /// Tokens of one step, prefill and decode together; also the longest prefill when nothing
    /// decodes.
    pub step_token_budget: u32,
    /// Prefill tokens of a step that also decodes: how long a decoding row may be held up.
    pub prefill_chunk_tokens: u32,
    /// Longest prompt plus output of one row.
    pub context_tokens: u32,
    /// Tokens of KV cache that all running rows may come to need together.
    pub kv_token_budget: u64,
    /// Rows that may wait.
    pub waiting_max: u16,
}

/// A configuration that no scheduler can keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// A step must hold one decode token for each row and at least one of prefill.
    BudgetBelowRows,
    NoChunk,
    NoContext,
    NoKv,
    NoRows,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BudgetBelowRows => "step_token_budget must exceed rows_max",
            Self::NoChunk => "prefill_chunk_tokens must be at least 1",
            Self::NoContext => "context_tokens must be at least 2",
            Self::NoKv => "kv_token_budget must be at least 2",
            Self::NoRows => "rows_max must be at least 1",
        })
    }
}

impl core::error::Error for ConfigError {}

impl SchedulerConfig {
    /// The product values of `spec/engine` 2.2 for a model of this context and KV room.
    #[must_use]
    pub const fn reference(context_tokens: u32, kv_token_budget: u64) -> Self {
        Self {
            rows_max: 8,
            step_token_budget: 2_048,
            prefill_chunk_tokens: 512,
            context_tokens,
            kv_token_budget,
            waiting_max: 64,
        }
    }

    pub(super) fn checked(self) -> Result<Self, ConfigError> {
        if self.rows_max == 0 {
            return Err(ConfigError::NoRows);
        }
        if self.prefill_chunk_tokens == 0 {
            return Err(ConfigError::NoChunk);
        }
        if self.context_tokens < 2 {
            return Err(ConfigError::NoContext);
        }
        if self.kv_token_budget < 2 {
            return Err(ConfigError::NoKv);
        }
        if self.step_token_budget <= u32::from(self.rows_max) {
            return Err(ConfigError::BudgetBelowRows);
        }
        Ok(self)
    }
}
