//! From what a provider claims to what the core believes: slots of models that it does not have are dropped,
//! numbers are clamped to what a machine can be.
//!
//! The only place where floats of the wire are read; they leave as integers with a unit.

use super::limits::{
    BANDWIDTH_GBS_MAX, CONCURRENCY_MAX, DECODE_TPS_MAX, LOAD_MS_MAX, MEMORY_GB_MAX,
    PREFILL_TPS_MAX, TOKEN_BUDGET_MAX,
};
use super::messages::{Heartbeat, Register, Slot, SystemMetrics, UsageFrame};
use crate::config::Catalog;
use crate::event::{MachineReport, MachineSpec, SlotReport, SlotState, Thermal, Usage, UsageParts};
use crate::ids::ModelIx;

/// Cached tokens of one request that are believed: more than any context holds is made up.
const CACHED_TOKENS_MAX: i64 = 1_000_000;

/// Slots of one report that are read; the rest is dropped.
pub const REPORTED_SLOTS_MAX: usize = 64;

const BYTES_PER_GB: f64 = (1u64 << 30) as f64;
const PPM: u32 = 1_000_000;

impl Heartbeat<'_> {
    /// Clamps the report; its slots go into `slots`, which is cleared first.
    ///
    /// Slots of models outside `inventory` are dropped, the first of two slots of a model wins.
    #[must_use]
    pub fn to_reports(
        &self,
        catalog: &Catalog,
        inventory: &[ModelIx],
        slots: &mut Vec<SlotReport>,
    ) -> MachineReport {
        slots.clear();
        let capacity = self.backend_capacity.as_ref();
        for slot in capacity.map_or(&[][..], |capacity| &capacity.slots) {
            if slots.len() == REPORTED_SLOTS_MAX {
                break;
            }
            let Some(model) = catalog.find(&slot.model) else {
                continue;
            };
            let is_repeated = slots.iter().any(|seen| seen.model == model);
            if inventory.contains(&model) && !is_repeated {
                slots.push(slot_report(model, slot));
            }
        }
        MachineReport {
            seq: capacity.map_or(0, |capacity| capacity.capacity_seq),
            draining: self.status.as_str() == "draining",
            thermal: thermal(&self.system_metrics),
            memory_pressure_ppm: scaled_clamped(self.system_metrics.memory_pressure, PPM, 1),
            has_capacity: capacity.is_some(),
            free_for_load_bytes: capacity
                .and_then(|capacity| capacity.free_for_load_gb)
                .and_then(free_bytes),
        }
    }
}

impl UsageFrame<'_> {
    /// What is billed, within bounds that the relay's count tightens.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: whole_tokens(self.prompt_tokens),
            completion_tokens: whole_tokens(self.completion_tokens),
        }
    }

    /// What the consumer is told besides. A claim of cached tokens that contradicts itself counts as
    /// none.
    #[must_use]
    pub fn parts(&self) -> UsageParts {
        let is_hit = self.cache_outcome.as_str() == "hit"
            && matches!(self.cache_tier.as_str(), "memory" | "ssd")
            && (1..=CACHED_TOKENS_MAX.min(self.prompt_tokens)).contains(&self.cached_tokens)
            && (1..=self.cached_tokens).contains(&self.prefill_tokens_saved);
        UsageParts {
            cached_tokens: if is_hit {
                whole_tokens(self.cached_tokens)
            } else {
                0
            },
            reasoning_tokens: whole_tokens(self.reasoning_tokens.min(self.completion_tokens)),
        }
    }
}

fn whole_tokens(count: i64) -> u32 {
    u32::try_from(count.max(0)).unwrap_or(u32::MAX)
}

fn slot_report(model: ModelIx, slot: &Slot<'_>) -> SlotReport {
    let budget_max = tokens(slot.active_token_budget_max);
    // A slot that says what a token costs and grants no budget is known to be full: the same as a
    // budget of one token that is spent.
    let is_full = budget_max == 0 && slot.kv_bytes_per_token > 0;
    SlotReport {
        model,
        state: slot_state(&slot.state),
        running: count(slot.num_running, u16::MAX),
        waiting: count(slot.num_waiting, u16::MAX),
        concurrency_max: count(slot.max_concurrency, CONCURRENCY_MAX),
        budget_used: tokens(slot.active_token_budget_used).max(u64::from(is_full)),
        budget_max: budget_max.max(u64::from(is_full)),
        budget_queued: tokens(slot.queued_token_budget),
        decode_mtps: scaled_clamped(slot.observed_decode_tps, 1_000, DECODE_TPS_MAX),
        prefill_mtps: scaled_clamped(slot.observed_prefill_tps, 1_000, PREFILL_TPS_MAX),
        load_ms: u32::try_from(slot.model_load_time_ms.clamp(0, i64::from(LOAD_MS_MAX)))
            .unwrap_or(LOAD_MS_MAX),
        wedged: slot.wedge_suspected,
    }
}

fn slot_state(state: &str) -> SlotState {
    match state {
        "" | "running" => SlotState::Running,
        "crashed" => SlotState::Crashed,
        "idle" => SlotState::Idle,
        "idle_shutdown" => SlotState::IdleShutdown,
        "reloading" => SlotState::Reloading,
        _ => SlotState::Absent,
    }
}

fn thermal(metrics: &SystemMetrics<'_>) -> Thermal {
    match metrics.thermal_state.as_str() {
        "fair" => Thermal::Fair,
        "serious" => Thermal::Serious,
        "critical" => Thermal::Critical,
        _ => Thermal::Nominal,
    }
}

/// What `register` says of the machine. `can_seal` is the caller's verdict.
#[must_use]
pub fn machine_spec(register: &Register<'_>, can_seal: bool) -> MachineSpec {
    let memory_gb = register
        .hardware
        .memory_gb
        .clamp(0, i64::from(MEMORY_GB_MAX));
    MachineSpec {
        memory_gb: u32::try_from(memory_gb).unwrap_or(0),
        bandwidth_gbs: scaled_clamped(register.hardware.memory_bandwidth_gbs, 1, BANDWIDTH_GBS_MAX),
        decode_mtps: scaled_clamped(register.decode_tps, 1_000, DECODE_TPS_MAX),
        prefill_mtps: scaled_clamped(register.prefill_tps, 1_000, PREFILL_TPS_MAX),
        can_seal,
        private_only: register.private_only,
    }
}

fn count(value: i64, max: u16) -> u16 {
    u16::try_from(value.clamp(0, i64::from(max))).unwrap_or(max)
}

fn tokens(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0).min(TOKEN_BUDGET_MAX)
}

/// `value` within `0..=max` in units of `1 / scale`, rounded down; not a number counts as 0.
fn scaled_clamped(value: f64, scale: u32, max: u32) -> u32 {
    let limit = f64::from(max);
    let value = if value > limit { limit } else { value };
    if value > 0.0 {
        whole(value * f64::from(scale))
            .try_into()
            .unwrap_or(u32::MAX)
    } else {
        0
    }
}

/// An unbelievable figure is an unknown one, never 0.
fn free_bytes(gb: f64) -> Option<u64> {
    (0.0..=f64::from(MEMORY_GB_MAX))
        .contains(&gb)
        .then(|| whole(gb * BYTES_PER_GB))
}

/// The one conversion from a float: rounds towards zero, saturates, takes NaN for 0.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
