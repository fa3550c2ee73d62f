//! The laws of the scheduler.

mod cases;
mod independence;
mod laws;
mod leases;
mod macro_steps;
mod preemption;
mod tenants;

use core::num::NonZeroU32;

use super::*;
use crate::kv::{Group, HitLimit};

pub(super) fn config() -> SchedulerConfig {
    SchedulerConfig {
        rows_max: 3,
        waiting_max: 6,
        context_tokens: 256,
        step_token_budget: 64,
        prefill_chunk_tokens: 16,
        solo_prefill_tokens: 64,
        mixed_prefill_tokens_max: None,
        partial_prefills_max: 1,
        admission: Admission::WorstCase,
        hit_limit: HitLimit::LastBlock,
        checkpoint_blocks: NonZeroU32::new(2).unwrap(),
    }
}

/// Full attention, a byte a token, pages of 8.
pub(super) fn layout(grant_tokens: u64) -> KvLayout {
    KvLayout {
        page_tokens: 8,
        block_tokens: 16,
        groups: vec![Group {
            window_tokens: None,
            bytes_per_page: 8,
        }],
        state_bytes: 0,
        grant_bytes: grant_tokens,
    }
}

pub(super) fn scheduler() -> Scheduler {
    Scheduler::new(config(), layout(400)).unwrap()
}

pub(super) fn ask(id: u64, prompt_tokens: u32, output_tokens_max: u32) -> RowRequest {
    RowRequest {
        id: RowId(id),
        prompt_tokens,
        output_tokens_max,
        priority: 0,
    }
}

pub(super) fn submit(scheduler: &mut Scheduler, ask: RowRequest) {
    scheduler.submit(ask, &[]).unwrap();
}

/// One step in which no text ends.
pub(super) fn step(scheduler: &mut Scheduler) -> StepPlan {
    let mut plan = StepPlan::default();
    scheduler.plan(&mut plan);
    scheduler.commit(&plan, &[], &mut Vec::new());
    plan
}

pub(super) fn running(scheduler: &Scheduler) -> Vec<u64> {
    scheduler.running().map(|(_, row)| row.0).collect()
}
