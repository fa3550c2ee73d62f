//! What a heartbeat reports of one model, under the names that a slot of the wire has for it
//! (`core/src/wire/messages/heartbeat.rs`).

use super::backend::Memory;
use crate::disk::DiskCounts;

/// The share of the newest sample in the observed speeds.
const NEWEST_SHARE: f64 = 0.3;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CapacitySnapshot {
    /// The engine's thread panicked, or is in a step that does not end; it serves no more.
    pub has_crashed: bool,
    pub num_running: u32,
    pub num_waiting: u32,
    pub max_concurrency: u32,
    /// Prompt and generated tokens of running rows.
    pub active_tokens: u64,
    /// Output bounds of running rows.
    pub max_tokens_potential: u64,
    /// Absent until measured.
    pub observed_prefill_tps: Option<f64>,
    pub observed_decode_tps: Option<f64>,
    pub active_token_budget_used: u64,
    pub active_token_budget_max: u64,
    pub queued_token_budget: u64,
    /// Tokens of prompt and answer that one row may have: the model's context, or less where there is
    /// no memory for it.
    pub row_tokens_max: u32,
    pub context_tokens: u32,
    pub kv_bytes_per_token: u64,
    pub model_load_time_ms: u64,
    pub steps_executed: u64,
    pub admits: u64,
    pub first_tokens_emitted: u64,
    /// Prompt tokens of rows that entered, and those of them that were found and not computed.
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    /// Times that a row lost what was computed of it.
    pub preemptions: u64,
    /// Of blocks that left memory; all zero where none do.
    pub disk: DiskCounts,
    pub memory: Memory,
}

impl CapacitySnapshot {
    /// The slot's state on the wire.
    #[must_use]
    pub const fn state(&self) -> &'static str {
        if self.has_crashed {
            "crashed"
        } else if self.num_running == 0 && self.num_waiting == 0 {
            "idle"
        } else {
            "running"
        }
    }
}

/// Folds a new sample into an observed speed.
pub(super) fn observe(average: &mut Option<f64>, sample: f64) {
    let before = average.unwrap_or(sample);
    *average = Some(before + NEWEST_SHARE * (sample - before));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sample_stands_and_each_next_moves_three_tenths_of_the_way() {
        let mut average = None;
        observe(&mut average, 100.0);
        assert_eq!(average, Some(100.0));
        observe(&mut average, 200.0);
        assert_eq!(average, Some(130.0));
    }
}
