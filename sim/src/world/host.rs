//! One machine that has several models: the provider's own [`Slots`], the jobs that wait for a load,
//! and what is under way.

use std::collections::BTreeMap;

use cereus_core::event::{SlotReport, SlotState as Told};
use cereus_core::ids::{AttemptKey, ModelIx};
use cereus_core::slots::{
    BuildIx, IDLE_WAIT, JobId, PressureLimits, SLOTS_MAX, SlotState, SlotView, Slots, SlotsConfig,
};
use cereus_core::time::Tick;
use cereus_engine::scheduler::Capacity;

use super::config::RunConfig;
use super::wares::{Stock, Wares, cap_of};
use crate::machine::Machine;

/// A job on its machine, from its coming to its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) attempt: AttemptKey,
    pub(super) number: u64,
    /// Its model is in memory, and a scheduler has it.
    pub(super) is_ready: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Host {
    config: SlotsConfig,
    pub(super) memory_gb: u32,
    pub(super) models: Vec<ModelIx>,
    pub(super) slots: Slots,
    pub(super) jobs: BTreeMap<JobId, Held>,
    /// Models whose weights lie in memory, or come or go.
    pub(super) in_memory: Vec<BuildIx>,
    /// Processes that this machine has had: what one began ends with it.
    pub(super) life: u32,
    pub(super) wake_at: Tick,
}

impl Host {
    pub(super) fn new(wares: &Wares, stock: &Stock, memory_gb: u32, run: &RunConfig) -> Self {
        let models: Vec<ModelIx> = stock.0.iter().map(|(model, _)| *model).collect();
        let beside = u16::try_from(models.len()).unwrap_or(u16::MAX);
        let config = SlotsConfig {
            cap: cap_of(memory_gb),
            builds: models.iter().map(|model| wares.build(*model)).collect(),
            slots_max: SLOTS_MAX,
            idle_wait: IDLE_WAIT,
            jobs_max: run.rows_max.saturating_mul(beside.min(SLOTS_MAX.into())),
            pressure: PressureLimits::reference(),
        };
        Self {
            slots: Slots::new(Tick::ZERO, config.clone()),
            config,
            memory_gb,
            models,
            jobs: BTreeMap::new(),
            in_memory: Vec::new(),
            life: 0,
            wake_at: Tick::NEVER,
        }
    }

    /// The process ends, and another begins with nothing in memory.
    pub(super) fn restart(&mut self, now: Tick) {
        self.slots = Slots::new(now, self.config.clone());
        self.jobs.clear();
        self.in_memory.clear();
        self.life += 1;
        self.wake_at = Tick::NEVER;
    }

    pub(super) fn build_of(&self, model: ModelIx) -> Option<BuildIx> {
        let at = self.models.iter().position(|other| *other == model)?;
        u16::try_from(at).ok().map(BuildIx)
    }

    /// The size of the weights that are in memory.
    pub(super) fn weights_bytes(&self) -> u64 {
        let size = |build: &BuildIx| self.config.builds[usize::from(build.0)].weights_bytes;
        self.in_memory.iter().map(size).sum()
    }

    /// What a heartbeat says of each model that is or was in memory.
    pub(super) fn report(&self, now: Tick, engines: &[Machine]) -> Vec<SlotReport> {
        let slot = |view: SlotView| {
            let build = usize::from(view.build.0);
            slot_of(self.models[build], &view, &engines[build])
        };
        self.slots.views(now).map(slot).collect()
    }
}

pub(super) const fn job_of(attempt: AttemptKey) -> JobId {
    JobId(((attempt.slot as u128) << 32) | attempt.generation as u128)
}

fn slot_of(model: ModelIx, view: &SlotView, engine: &Machine) -> SlotReport {
    let is_warm = view.state.is_warm();
    let capacity = match is_warm {
        true => engine.capacity(),
        false => Capacity::default(),
    };
    let measured = |mtps| if is_warm { mtps } else { 0 };
    SlotReport {
        model,
        state: match view.state {
            SlotState::Crashed => Told::Crashed,
            SlotState::Idle => Told::Idle,
            SlotState::IdleShutdown => Told::IdleShutdown,
            SlotState::Reloading => Told::Reloading,
            SlotState::Running => Told::Running,
        },
        running: capacity.running,
        waiting: capacity.waiting,
        concurrency_max: capacity.concurrency_max,
        budget_used: capacity.budget_used,
        budget_max: capacity.budget_max,
        budget_queued: capacity.budget_queued,
        decode_mtps: measured(engine.decode_mtps()),
        prefill_mtps: measured(engine.prefill_mtps()),
        load_ms: u32::try_from(view.load_time.as_millis_floor()).unwrap_or(u32::MAX),
        wedged: view.is_suspect,
    }
}
