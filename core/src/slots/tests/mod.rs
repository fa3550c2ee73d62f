//! A small world around the slots: memory that models really take, loads that end when the test
//! says so, and a look at every law after every step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;
use crate::memory::{GIB, MemoryPolicy, Rule, Shortage, loaded_bytes};
use crate::time::Tick;

mod laws;
mod stories;

/// What a loaded model takes beyond its files, in hundredths.
const REAL_PERCENT: u64 = 110;

struct World {
    slots: Slots,
    now: Tick,
    /// Memory that others on the machine hold.
    foreign_bytes: u64,
    cache_bytes: u64,
    strain: Strain,
    reserved_bytes: u64,
    in_memory: BTreeSet<BuildIx>,
    loading: Option<BuildIx>,
    unloading: BTreeMap<BuildIx, Leave>,
    dead: BTreeSet<BuildIx>,
    steps: BTreeMap<BuildIx, u64>,
    grants: BTreeMap<BuildIx, u64>,
    /// Asked, and neither ready nor refused.
    open: BTreeMap<JobId, BuildIx>,
    /// Of those that are open or run.
    accepted: BTreeSet<JobId>,
    running: BTreeMap<JobId, BuildIx>,
    told: Vec<SlotsEffect>,
    states: BTreeMap<BuildIx, SlotState>,
}

fn gib_build(weights_gib: u64) -> BuildSpec {
    BuildSpec {
        weights_bytes: weights_gib * GIB,
        kv: Some(KvRate {
            bytes_per_token: 32_768,
            context_tokens: 8_192,
        }),
        keep: Keep::WhileUsed,
        offer: Offer::Open,
    }
}

fn config(physical_gib: u64, builds: Vec<BuildSpec>) -> SlotsConfig {
    SlotsConfig {
        cap: MemoryCap::new(physical_gib * GIB, MemoryPolicy::reference()),
        builds,
        slots_max: SLOTS_MAX,
        idle_wait: IDLE_WAIT,
        jobs_max: 16,
        pressure: PressureLimits::reference(),
    }
}

impl World {
    fn new(config: SlotsConfig) -> Self {
        let mut world = Self {
            slots: Slots::new(Tick::ZERO, config),
            now: Tick::ZERO,
            foreign_bytes: GIB,
            cache_bytes: 0,
            strain: Strain::default(),
            reserved_bytes: 0,
            in_memory: BTreeSet::new(),
            loading: None,
            unloading: BTreeMap::new(),
            dead: BTreeSet::new(),
            steps: BTreeMap::new(),
            grants: BTreeMap::new(),
            open: BTreeMap::new(),
            accepted: BTreeSet::new(),
            running: BTreeMap::new(),
            told: Vec::new(),
            states: BTreeMap::new(),
        };
        world.step(SlotsEvent::Woke);
        world.told.clear();
        world
    }

    fn spec(&self, build: BuildIx) -> BuildSpec {
        self.slots.config().builds[usize::from(build.0)]
    }

    fn memory(&self) -> MemoryFacts {
        let real = |build: &BuildIx| self.spec(*build).weights_bytes / 100 * REAL_PERCENT;
        let held: u64 = self.in_memory.iter().map(real).sum();
        let used = held + self.cache_bytes;
        let physical = self.slots.config().cap.physical_bytes();
        MemoryFacts {
            available_bytes: physical.saturating_sub(self.foreign_bytes + used),
            engine_used_bytes: used,
        }
    }

    /// Steps, and answers at once whatever has an answer at once.
    fn step(&mut self, event: SlotsEvent) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let mut out = Vec::new();
            self.slots.step(self.now, event, &mut out);
            for effect in out {
                self.follow(effect, &mut events);
            }
            self.look();
        }
        // While a model that left no room is on its way out, whoever asks for it is about to be refused.
        let mut open = self.open.iter();
        let is_known = |(job, build): (&JobId, &BuildIx)| {
            self.accepted.contains(job) || self.unloading.contains_key(build)
        };
        assert!(open.all(is_known), "nobody is kept in doubt");
    }

    fn follow(&mut self, effect: SlotsEffect, events: &mut VecDeque<SlotsEvent>) {
        self.told.push(effect);
        match effect {
            SlotsEffect::Accept { job } => {
                assert!(self.open.contains_key(&job), "accepted while it is open");
                assert!(self.accepted.insert(job), "accepted once");
            }
            SlotsEffect::BeginLoad { build, grant_bytes } => {
                assert_eq!(self.loading, None, "two loads at once");
                assert!(!self.in_memory.contains(&build), "loaded twice");
                assert_eq!(self.spec(build).offer, Offer::Open, "a fenced model");
                let is_overdue =
                    |leaving: &BuildIx| self.slots.state(*leaving) == Some(SlotState::Reloading);
                assert!(
                    self.unloading.keys().all(is_overdue),
                    "a load beside an unload"
                );
                self.loading = Some(build);
                self.grants.insert(build, grant_bytes);
            }
            SlotsEffect::BeginUnload { build, leave } => self.leaves(build, leave),
            SlotsEffect::ClearBufferCache => {
                self.cache_bytes = 0;
                events.push_back(SlotsEvent::CacheCleared);
            }
            SlotsEffect::Measure => {
                let serving = self.in_memory.iter().filter(|build| {
                    !self.unloading.contains_key(build)
                        && self.slots.state(**build) != Some(SlotState::Reloading)
                });
                events.extend(serving.map(|build| SlotsEvent::Watched {
                    build: *build,
                    engine: if self.dead.contains(build) {
                        EngineSign::Dead
                    } else {
                        EngineSign::Alive
                    },
                    steps: self.steps.get(build).copied().unwrap_or(0),
                }));
                events.push_back(SlotsEvent::Measured(Measured {
                    memory: self.memory(),
                    reserved_bytes: self.reserved_bytes,
                    strain: self.strain,
                }));
            }
            SlotsEffect::Ready { job, build } => {
                assert!(self.in_memory.contains(&build), "ready without its model");
                assert!(!self.unloading.contains_key(&build), "ready on its way out");
                assert!(self.accepted.contains(&job), "ready before it was accepted");
                assert_eq!(self.open.remove(&job), Some(build), "ready once");
                self.running.insert(job, build);
            }
            SlotsEffect::Refuse { job, why } => {
                self.accepted.remove(&job);
                let was_running = self.running.remove(&job).is_some();
                assert!(
                    self.open.remove(&job).is_some() ^ was_running,
                    "refused once"
                );
                if was_running {
                    assert_eq!(why, Refusal::Stuck, "only a lost engine ends what runs");
                }
            }
            SlotsEffect::SetGrant { build, bytes } => {
                assert!(self.in_memory.contains(&build));
                self.grants.insert(build, bytes);
            }
            SlotsEffect::Loaded { .. } | SlotsEffect::LoadRefused { .. } | SlotsEffect::Report => {}
        }
    }

    fn leaves(&mut self, build: BuildIx, leave: Leave) {
        assert!(self.in_memory.contains(&build), "unloads what is not there");
        if leave == Leave::Idle {
            let is_busy = self.running.values().any(|at| *at == build);
            assert!(!is_busy, "evicts a model that serves");
            let was_served = self.states.get(&build).is_some_and(|state| state.is_warm());
            let is_pinned = self.spec(build).keep == Keep::Pinned;
            assert!(!(was_served && is_pinned), "evicts a pinned model");
        }
        self.grants.remove(&build);
        self.unloading.insert(build, leave);
    }

    /// The laws that hold after every step.
    fn look(&mut self) {
        let config = self.slots.config();
        let loading = self.loading.iter().copied();
        let held: BTreeSet<BuildIx> = self.in_memory.iter().copied().chain(loading).collect();
        assert!(held.len() <= usize::from(config.slots_max), "{held:?}");
        let weights: u64 = held
            .iter()
            .map(|build| self.spec(*build).weights_bytes)
            .sum();
        let grants: u64 = self.grants.values().sum();
        if !held.is_empty() {
            let reserved = weights + grants + config.cap.policy().activation_bytes;
            assert!(
                reserved <= config.cap.live_cap_bytes(),
                "{reserved} reserved"
            );
        }
        let views: BTreeMap<BuildIx, SlotState> = self
            .slots
            .views(self.now)
            .map(|view| (view.build, view.state))
            .collect();
        for (build, state) in &views {
            let runs = self.running.values().any(|at| at == build);
            let is_here = self.in_memory.contains(build) && !self.unloading.contains_key(build);
            match state {
                SlotState::Running => assert!(is_here && runs, "{build:?}"),
                SlotState::Idle => assert!(is_here && !runs, "{build:?}"),
                SlotState::Crashed => assert!(is_here, "{build:?}"),
                SlotState::IdleShutdown => assert!(self.loading != Some(*build), "{build:?}"),
                SlotState::Reloading => assert!(!runs, "{build:?}"),
            }
        }
        self.states = views;
    }

    fn ask(&mut self, job: u128, build: u16) {
        let (job, build) = (JobId(job), BuildIx(build));
        if !self.open.contains_key(&job) && !self.running.contains_key(&job) {
            self.open.insert(job, build);
        }
        self.step(SlotsEvent::Asked { job, build });
    }

    fn end(&mut self, job: u128) {
        let job = JobId(job);
        self.open.remove(&job);
        self.running.remove(&job);
        self.accepted.remove(&job);
        self.step(SlotsEvent::JobEnded { job });
    }

    fn load_ends(&mut self, fault: Option<LoadFault>) {
        if let Some(build) = self.loading.take() {
            if fault.is_none() {
                self.in_memory.insert(build);
                self.steps.insert(build, 0);
                self.dead.remove(&build);
            } else {
                self.grants.remove(&build);
            }
            self.step(SlotsEvent::LoadEnded { build, fault });
        }
    }

    fn unload_ends(&mut self) {
        if let Some((build, _)) = self.unloading.pop_first() {
            self.in_memory.remove(&build);
            self.step(SlotsEvent::Unloaded { build });
        }
    }

    fn after(&mut self, span: Span) {
        self.now = self.now + span;
        self.step(SlotsEvent::Woke);
    }

    /// Ends loads and unloads until none is under way.
    fn settle(&mut self) {
        while self.loading.is_some() || !self.unloading.is_empty() {
            self.unload_ends();
            self.load_ends(None);
        }
    }

    /// Loads a model and lets it be.
    fn loaded(&mut self, build: u16) {
        let build = BuildIx(build);
        let eviction = Eviction::Allowed;
        self.step(SlotsEvent::LoadAsked { build, eviction });
        self.settle();
        assert_eq!(self.slots.state(build), Some(SlotState::Idle));
        self.told.clear();
    }

    /// What was told, but for what a state's change always brings.
    fn heard(&mut self) -> Vec<SlotsEffect> {
        let told = core::mem::take(&mut self.told);
        let is_news = |effect: &SlotsEffect| {
            !matches!(
                effect,
                SlotsEffect::Accept { .. } | SlotsEffect::Report | SlotsEffect::Measure
            )
        };
        told.into_iter().filter(is_news).collect()
    }

    fn state(&self, build: u16) -> Option<&'static str> {
        self.slots.state(BuildIx(build)).map(SlotState::as_str)
    }
}
