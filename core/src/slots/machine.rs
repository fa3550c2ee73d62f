//! The state machine of the loaded models: its events, one by one, to the part that each
//! concerns. Requests come and end, engines are watched, timers fire.

use std::collections::{BTreeMap, VecDeque};

use super::health::Health;
use super::parts::{Build, Departure, Job, Leaving, Past, Phase, Stage, Want, Work};
use super::pressure::{PressureGuard, Turn};
use super::state::{SlotState, may_follow};
use super::{
    BuildIx, BuildSpec, EngineSign, Eviction, JobId, Keep, MEASURE_EVERY, Measured, Offer, Refusal,
    SlotView, SlotsConfig, SlotsEffect, SlotsEvent, SlotsWake, WAIT_MAX,
};
use crate::digest::Mix;
use crate::time::{Span, Tick};

/// See the module.
#[derive(Clone, Debug, Hash)]
pub struct Slots {
    pub(super) config: SlotsConfig,
    pub(super) builds: Vec<Build>,
    pub(super) jobs: BTreeMap<JobId, Job>,
    pub(super) wanted: VecDeque<Want>,
    pub(super) work: Option<Work>,
    pub(super) leaving: Option<Leaving>,
    pub(super) pressure: PressureGuard,
    pub(super) measured: Option<Measured>,
    measure_at: Tick,
    jobs_seen: u64,
    is_resting: bool,
    pub(super) has_news: bool,
    pub(super) counts: SlotsCounts,
}

/// What happened so far, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SlotsCounts {
    pub loads: u64,
    pub evictions: u64,
    pub idle_unloads: u64,
    pub recoveries: u64,
    pub refusals: u64,
    pub stale_events: u64,
}

impl Slots {
    /// Nothing is loaded; the first wake measures.
    #[must_use]
    pub fn new(now: Tick, config: SlotsConfig) -> Self {
        let build = Build {
            phase: Phase::Cold(Past::NeverLoaded),
            shown: None,
            in_flight: 0,
            used_at: now,
            grant_bytes: 0,
            load_time: Span::ZERO,
            recovered_at: None,
        };
        Self {
            builds: vec![build; config.builds.len()],
            pressure: PressureGuard::new(config.pressure),
            config,
            jobs: BTreeMap::new(),
            wanted: VecDeque::new(),
            work: None,
            leaving: None,
            measured: None,
            measure_at: now,
            jobs_seen: 0,
            is_resting: false,
            has_news: false,
            counts: SlotsCounts::default(),
        }
    }

    /// One thing happened; here is all that follows. `out` is appended to, in causal order.
    pub fn step(&mut self, now: Tick, event: SlotsEvent, out: &mut Vec<SlotsEffect>) {
        match event {
            SlotsEvent::Asked { job, build } => self.on_asked(now, job, build, out),
            SlotsEvent::CacheCleared => self.on_cache_cleared(out),
            SlotsEvent::JobEnded { job } => self.on_job_ended(now, job),
            SlotsEvent::JobSpoke { job } => self.on_job_spoke(job),
            SlotsEvent::LoadAsked { build, eviction } => self.on_load_asked(build, eviction, out),
            SlotsEvent::LoadEnded { build, fault } => self.on_load_ended(now, build, fault, out),
            SlotsEvent::Measured(measured) => self.on_measured(now, measured, out),
            SlotsEvent::RestBegan => self.is_resting = true,
            SlotsEvent::RestEnded => self.is_resting = false,
            SlotsEvent::Unloaded { build } => self.on_unloaded(now, build, out),
            SlotsEvent::Watched {
                build,
                engine,
                steps,
            } => self.on_watched(now, build, engine, steps),
            SlotsEvent::Woke => self.on_woke(now, out),
        }
        self.advance(now, out);
        self.accept_waiting(out);
        if core::mem::take(&mut self.has_news) {
            out.push(SlotsEffect::Report);
        }
    }

    /// The next moment at which `Woke` should come, and why. An early or spurious wake is harmless.
    #[must_use]
    pub fn next_wake(&self) -> (Tick, SlotsWake) {
        let mut wake = (self.measure_at, SlotsWake::MeasureDue);
        if let Some(leaving) = &self.leaving {
            wake = wake.min((leaving.overdue_at, SlotsWake::UnloadOverdue));
        }
        for job in self.jobs.values() {
            if let Stage::Waiting { until } = job.stage {
                wake = wake.min((until, SlotsWake::WaitOverdue));
            }
        }
        // While a load or an unload is under way no idle model can be dropped, so no wake-up is due
        // for one.
        if self.work.is_none() && self.leaving.is_none() {
            for build in self.ixs() {
                if let Some(at) = self.idle_until(build) {
                    wake = wake.min((at, SlotsWake::IdleDue));
                }
            }
        }
        wake
    }

    /// Equal digests mean: the same state, as far as the future can tell.
    #[must_use]
    pub fn digest(&self) -> u128 {
        Mix::of(self)
    }

    #[must_use]
    pub const fn counts(&self) -> SlotsCounts {
        self.counts
    }

    #[must_use]
    pub const fn config(&self) -> &SlotsConfig {
        &self.config
    }

    /// Requests that wait or run.
    #[must_use]
    pub fn jobs_count(&self) -> usize {
        self.jobs.len()
    }

    /// Whether requests are turned away for want of memory.
    #[must_use]
    pub const fn is_pressed(&self) -> bool {
        self.pressure.is_pressed()
    }

    /// Whether a model is being loaded or dropped now.
    #[must_use]
    pub const fn is_in_transition(&self) -> bool {
        self.work.is_some() || self.leaving.is_some()
    }

    /// Models that are or were in memory, in the order of the list.
    pub fn views(&self, now: Tick) -> impl Iterator<Item = SlotView> + '_ {
        self.ixs().filter_map(move |build| {
            let own = self.build(build);
            let health = match &own.phase {
                Phase::Resident(health) => Some(health),
                Phase::Cold(_) | Phase::Loading | Phase::Recovering | Phase::Unloading(_) => None,
            };
            Some(SlotView {
                build,
                state: own.shown?,
                is_suspect: health.is_some_and(Health::is_suspect),
                grant_bytes: own.grant_bytes,
                load_time: own.load_time,
                since_step: health.map(|health| now.since(health.stepped_at)),
            })
        })
    }

    #[must_use]
    pub fn state(&self, build: BuildIx) -> Option<SlotState> {
        self.builds.get(usize::from(build.0))?.shown
    }

    fn on_asked(&mut self, now: Tick, job: JobId, build: BuildIx, out: &mut Vec<SlotsEffect>) {
        if self.jobs.contains_key(&job) {
            self.counts.stale_events += 1;
            return;
        }
        if let Some(why) = self.turned_away(build) {
            self.counts.refusals += 1;
            out.push(SlotsEffect::Refuse { job, why });
            return;
        }
        self.jobs_seen += 1;
        let is_resident = matches!(self.build(build).phase, Phase::Resident(_));
        let until = now + WAIT_MAX;
        let entry = Job {
            build,
            stage: Stage::Waiting { until },
            is_accepted: false,
            seq: self.jobs_seen,
        };
        self.jobs.insert(job, entry);
        if is_resident {
            self.run(now, job, out);
        } else {
            self.want(build, Eviction::Allowed);
        }
    }

    /// Why a request for that model cannot even wait.
    fn turned_away(&self, build: BuildIx) -> Option<Refusal> {
        let Some(own) = self.builds.get(usize::from(build.0)) else {
            return Some(Refusal::Unknown);
        };
        if self.spec(build).offer == Offer::Fenced {
            return Some(Refusal::Fenced);
        }
        if self.jobs.len() >= usize::from(self.config.jobs_max) {
            return Some(Refusal::QueueFull);
        }
        if self.pressure.is_pressed() {
            return Some(Refusal::Pressed);
        }
        let is_stuck = match &own.phase {
            Phase::Resident(health) => health.is_crashed(),
            Phase::Unloading(departure) => *departure == Departure::Overdue,
            Phase::Cold(_) | Phase::Loading | Phase::Recovering => false,
        };
        is_stuck.then_some(Refusal::Stuck)
    }

    /// A waiting request begins: its model is in memory.
    pub(super) fn run(&mut self, now: Tick, job: JobId, out: &mut Vec<SlotsEffect>) {
        let entry = self.jobs.get_mut(&job).expect("a job that runs was asked");
        entry.stage = Stage::Running {
            since: now,
            has_token: false,
        };
        let build = entry.build;
        if !core::mem::replace(&mut entry.is_accepted, true) {
            out.push(SlotsEffect::Accept { job });
        }
        let own = self.build_mut(build);
        own.in_flight += 1;
        own.used_at = now;
        self.show(build);
        out.push(SlotsEffect::Ready { job, build });
    }

    /// Tells those who wait for a model that they are accepted, once it is settled that the model has
    /// room. Not before: they may yet be refused, and a coordinator counts a refusal after `Accept` as a
    /// fault of the machine.
    fn accept_waiting(&mut self, out: &mut Vec<SlotsEffect>) {
        let undecided = self.undecided();
        for (id, job) in &mut self.jobs {
            if !job.is_accepted && undecided != Some(job.build) {
                job.is_accepted = true;
                out.push(SlotsEffect::Accept { job: *id });
            }
        }
    }

    fn on_job_ended(&mut self, now: Tick, job: JobId) {
        let Some(entry) = self.jobs.remove(&job) else {
            // The job was refused here while its end was on its way: the shell and this machine
            // crossed.
            self.counts.stale_events += 1;
            return;
        };
        match entry.stage {
            Stage::Running { .. } => {
                let own = self.build_mut(entry.build);
                own.in_flight -= 1;
                own.used_at = now;
                self.show(entry.build);
            }
            Stage::Waiting { .. } => self.want_less(entry.build),
        }
    }

    fn on_job_spoke(&mut self, job: JobId) {
        match self.jobs.get_mut(&job).map(|job| &mut job.stage) {
            Some(Stage::Running { has_token, .. }) => *has_token = true,
            Some(Stage::Waiting { .. }) | None => self.counts.stale_events += 1,
        }
    }

    fn on_load_asked(&mut self, build: BuildIx, eviction: Eviction, out: &mut Vec<SlotsEffect>) {
        let Some(own) = self.builds.get(usize::from(build.0)) else {
            let why = Refusal::Unknown;
            out.push(SlotsEffect::LoadRefused { build, why });
            return;
        };
        if self.spec(build).offer == Offer::Fenced {
            let why = Refusal::Fenced;
            out.push(SlotsEffect::LoadRefused { build, why });
            return;
        }
        match own.phase {
            Phase::Resident(_) => out.push(SlotsEffect::Loaded { build }),
            Phase::Unloading(Departure::Overdue) => {
                let why = Refusal::Stuck;
                out.push(SlotsEffect::LoadRefused { build, why });
            }
            Phase::Cold(_) | Phase::Loading | Phase::Recovering | Phase::Unloading(_) => {
                self.want(build, eviction);
                self.owe_answer(build);
            }
        }
    }

    fn on_watched(&mut self, now: Tick, build: BuildIx, engine: EngineSign, steps: u64) {
        let own = self.builds.get_mut(usize::from(build.0));
        let Some(Phase::Resident(health)) = own.map(|own| &mut own.phase) else {
            self.counts.stale_events += 1;
            return;
        };
        health.watch(now, engine, steps);
        self.show(build);
    }

    fn on_measured(&mut self, now: Tick, measured: Measured, out: &mut Vec<SlotsEffect>) {
        self.measured = Some(measured);
        for build in self.ixs() {
            self.suspect(now, build);
        }
        match self.pressure.look(now, measured.strain) {
            Turn::Calmed => {
                self.regrant(out);
                self.has_news = true;
            }
            Turn::Pressed => {
                self.regrant(out);
                out.push(SlotsEffect::ClearBufferCache);
                self.has_news = true;
            }
            Turn::Same => {}
        }
        self.on_measured_for_load(now, measured, out);
    }

    fn suspect(&mut self, now: Tick, build: BuildIx) {
        let silent = self.jobs.values().filter_map(|job| match job.stage {
            Stage::Running {
                since,
                has_token: false,
            } if job.build == build => Some(since),
            Stage::Running { .. } | Stage::Waiting { .. } => None,
        });
        if let Phase::Resident(health) = &mut self.builds[usize::from(build.0)].phase {
            health.suspect(now, silent);
            self.show(build);
        }
    }

    fn on_woke(&mut self, now: Tick, out: &mut Vec<SlotsEffect>) {
        let is_overdue = |job: &Job| match job.stage {
            Stage::Waiting { until } => until <= now,
            Stage::Running { .. } => false,
        };
        let overdue = self.jobs.iter().filter(|(_, job)| is_overdue(job));
        let overdue: Vec<JobId> = overdue.map(|(id, _)| *id).collect();
        for job in overdue {
            self.refuse(job, Refusal::TurnOverdue, out);
        }
        self.on_unload_overdue(now, out);
        if self.measure_at <= now {
            self.measure_at = now + MEASURE_EVERY;
            out.push(SlotsEffect::Measure);
        }
    }

    pub(super) fn refuse(&mut self, job: JobId, why: Refusal, out: &mut Vec<SlotsEffect>) {
        let entry = self
            .jobs
            .remove(&job)
            .expect("only what is known is refused");
        match entry.stage {
            Stage::Running { .. } => self.build_mut(entry.build).in_flight -= 1,
            Stage::Waiting { .. } => self.want_less(entry.build),
        }
        self.counts.refusals += 1;
        out.push(SlotsEffect::Refuse { job, why });
    }

    /// When a model that nobody uses is to go; `None` where it stays.
    pub(super) fn idle_until(&self, build: BuildIx) -> Option<Tick> {
        let used_at = self.build(build).used_at;
        let until = match self.config.idle_wait {
            _ if self.is_resting => used_at,
            Span::ZERO => return None,
            wait => used_at + wait,
        };
        self.is_evictable(build).then_some(until)
    }

    /// In memory with nothing in flight, and not pinned. A suspect engine is not idle.
    pub(super) fn is_evictable(&self, build: BuildIx) -> bool {
        let own = self.build(build);
        let is_idle = match &own.phase {
            Phase::Resident(health) => own.in_flight == 0 && !health.is_crashed(),
            Phase::Cold(_) | Phase::Loading | Phase::Recovering | Phase::Unloading(_) => false,
        };
        is_idle && self.spec(build).keep == Keep::WhileUsed
    }

    pub(super) fn set_phase(&mut self, build: BuildIx, phase: Phase) {
        self.build_mut(build).phase = phase;
        self.show(build);
    }

    /// Notes what is to be seen of a model now.
    pub(super) fn show(&mut self, build: BuildIx) {
        let own = &self.builds[usize::from(build.0)];
        let state = match &own.phase {
            Phase::Cold(Past::NeverLoaded) => None,
            Phase::Cold(Past::ShutDown) | Phase::Unloading(Departure::Dropped) => {
                Some(SlotState::IdleShutdown)
            }
            Phase::Loading
            | Phase::Recovering
            | Phase::Unloading(Departure::Discarded | Departure::Lost | Departure::Overdue) => {
                Some(SlotState::Reloading)
            }
            Phase::Resident(health) if health.is_crashed() => Some(SlotState::Crashed),
            Phase::Resident(_) if own.in_flight > 0 => Some(SlotState::Running),
            Phase::Resident(_) => Some(SlotState::Idle),
        };
        if state != own.shown {
            assert!(
                may_follow(own.shown, state),
                "a slot goes from {:?} to {state:?} by no line of the table",
                own.shown
            );
            // Whether a model works just now its coordinator knows from the jobs that it sent: a report
            // for each would cost more than a short job.
            let is_up = |state: Option<SlotState>| state.is_some_and(SlotState::is_warm);
            self.has_news |= !(is_up(own.shown) && is_up(state));
            self.builds[usize::from(build.0)].shown = state;
        }
    }

    pub(super) fn ixs(&self) -> impl Iterator<Item = BuildIx> + use<> {
        let count = u16::try_from(self.builds.len()).unwrap_or(u16::MAX);
        (0..count).map(BuildIx)
    }

    pub(super) fn build(&self, build: BuildIx) -> &Build {
        &self.builds[usize::from(build.0)]
    }

    pub(super) fn build_mut(&mut self, build: BuildIx) -> &mut Build {
        &mut self.builds[usize::from(build.0)]
    }

    pub(super) fn spec(&self, build: BuildIx) -> &BuildSpec {
        &self.config.builds[usize::from(build.0)]
    }
}
