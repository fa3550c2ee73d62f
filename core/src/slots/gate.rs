//! The gate: one load and one unload at a time, since two at once could each take the room that the other
//! was promised. A load waits for the unload, evicts idle models if that can make room at all, has the
//! engine drop its free buffers, reserves, loads, and is undone if too little is left for keys and values.

use super::grants::{slice, too_small};
use super::health::Health;
use super::machine::Slots;
use super::parts::{Departure, Leaving, LoadStage, Past, Phase, Stage, Want, Work};
use super::refusal::Others;
use super::{
    BuildIx, Eviction, JobId, Leave, LoadFault, Measured, RECOVERY_EVERY, Refusal, SlotsEffect,
    UNLOAD_WAIT_MAX,
};
use crate::memory::{Load, MemoryFacts, Occupancy, loaded_bytes};
use crate::time::Tick;

impl Slots {
    /// The largest weights, as charged when loaded, that could come into memory now: what a
    /// heartbeat calls `free_for_load_gb`.
    #[must_use]
    pub fn max_loadable_bytes(&self) -> u64 {
        let Some(measured) = self.measured else {
            return 0;
        };
        if self.pressure.is_pressed() || self.lasting_count(Eviction::Allowed) >= self.slots_max() {
            return 0;
        }
        let held = self.occupancy(measured, Eviction::Allowed);
        self.config.cap.max_loadable_bytes(held)
    }

    /// Who holds the memory now.
    #[must_use]
    pub fn occupancy(&self, measured: Measured, eviction: Eviction) -> Occupancy {
        let evictable_bytes =
            self.weights(|slots, build| eviction == Eviction::Allowed && slots.is_evictable(build));
        let held_bytes = self.weights(Self::holds_memory);
        let incoming = self.incoming().map(|build| self.spec(build).weights_bytes);
        let engine_used = measured.memory.engine_used_bytes;
        let is_all_idle = evictable_bytes == held_bytes && incoming.is_none();
        let reclaimable_bytes = if is_all_idle && self.is_quiet() {
            // No request runs, so all that the engine holds can go: idle models, and buffers that
            // the library keeps of models that are gone.
            engine_used
        } else {
            evictable_bytes.min(engine_used)
        };
        Occupancy {
            facts: measured.memory,
            resident_bytes: held_bytes.saturating_add(incoming.unwrap_or(0)),
            evictable_bytes,
            reclaimable_bytes,
            outstanding_bytes: measured
                .reserved_bytes
                .saturating_add(incoming.map_or(0, loaded_bytes)),
        }
    }

    /// Puts a model into the queue, unless it is there or on its way in.
    pub(super) fn want(&mut self, build: BuildIx, eviction: Eviction) {
        let known = match &mut self.work {
            Some(work) if work.want.build == build => Some(&mut work.want),
            Some(_) | None => self.wanted.iter_mut().find(|want| want.build == build),
        };
        let fresh = Want {
            build,
            eviction,
            owes_answer: false,
        };
        match known {
            Some(want) if eviction == Eviction::Allowed => want.eviction = eviction,
            Some(_) => {}
            None => self.wanted.push_back(fresh),
        }
    }

    /// The model of which it is open whether there is room for it.
    pub(super) fn undecided(&self) -> Option<BuildIx> {
        let work = self.work.as_ref()?;
        let is_open = match work.stage {
            LoadStage::Asking
            | LoadStage::Clearing
            | LoadStage::Discarding(_)
            | LoadStage::Guarding => true,
            LoadStage::Evicting | LoadStage::Filling { .. } => false,
        };
        is_open.then_some(work.want.build)
    }

    pub(super) fn owe_answer(&mut self, build: BuildIx) {
        let at_work = self.work.as_mut().map(|work| &mut work.want);
        let mut wants = at_work.into_iter().chain(self.wanted.iter_mut());
        if let Some(want) = wants.find(|want| want.build == build) {
            want.owes_answer = true;
        }
    }

    /// One request less waits for a model. A load that nobody waits for does not begin.
    pub(super) fn want_less(&mut self, build: BuildIx) {
        let is_waited_for = self.waiting(build).next().is_some();
        let is_recovering = self.build(build).phase == Phase::Recovering;
        if !is_waited_for && !is_recovering {
            self.wanted
                .retain(|want| want.build != build || want.owes_answer);
        }
    }

    /// Gives the gate to whoever is next, until something has to be waited for.
    pub(super) fn advance(&mut self, now: Tick, out: &mut Vec<SlotsEffect>) {
        while self.leaving.is_none() {
            match self.work.map(|work| work.stage) {
                Some(LoadStage::Evicting) => return self.ask(out),
                Some(LoadStage::Discarding(why)) => self.give_up_load(why, out),
                Some(
                    LoadStage::Asking
                    | LoadStage::Clearing
                    | LoadStage::Filling { .. }
                    | LoadStage::Guarding,
                ) => return,
                None => {
                    if !self.begin_next(now, out) {
                        return;
                    }
                }
            }
        }
    }

    /// False when there is nothing to do.
    fn begin_next(&mut self, now: Tick, out: &mut Vec<SlotsEffect>) -> bool {
        if let Some(build) = self.ixs().find(|&build| self.is_lost(now, build)) {
            self.begin_recovery(now, build, out);
            return true;
        }
        if let Some(want) = self.wanted.pop_front() {
            self.work = Some(Work {
                want,
                stage: LoadStage::Asking,
                is_cache_cleared: false,
            });
            self.ask(out);
            return true;
        }
        let due = |build: &BuildIx| self.idle_until(*build).is_some_and(|at| at <= now);
        if let Some(build) = self.ixs().find(due) {
            self.counts.idle_unloads += 1;
            self.begin_unload(now, build, Departure::Dropped, out);
            return true;
        }
        false
    }

    fn ask(&mut self, out: &mut Vec<SlotsEffect>) {
        if let Some(work) = &mut self.work {
            work.stage = LoadStage::Asking;
            out.push(SlotsEffect::Measure);
        }
    }

    fn is_lost(&self, now: Tick, build: BuildIx) -> bool {
        match &self.build(build).phase {
            Phase::Resident(health) => health.is_lost(now),
            Phase::Cold(_) | Phase::Loading | Phase::Recovering | Phase::Unloading(_) => false,
        }
    }

    /// Ends what still runs on an engine that does not answer, and lets go of it.
    fn begin_recovery(&mut self, now: Tick, build: BuildIx, out: &mut Vec<SlotsEffect>) {
        self.counts.recoveries += 1;
        self.begin_unload(now, build, Departure::Lost, out);
        let running = self.jobs.iter().filter(|(_, job)| job.build == build);
        let running: Vec<JobId> = running.map(|(id, _)| *id).collect();
        for job in running {
            self.refuse(job, Refusal::Stuck, out);
        }
    }

    fn begin_unload(
        &mut self,
        now: Tick,
        build: BuildIx,
        departure: Departure,
        out: &mut Vec<SlotsEffect>,
    ) {
        let leave = match departure {
            Departure::Lost => Leave::Abandoned,
            Departure::Discarded | Departure::Dropped | Departure::Overdue => Leave::Idle,
        };
        self.set_phase(build, Phase::Unloading(departure));
        self.build_mut(build).grant_bytes = 0;
        self.leaving = Some(Leaving {
            build,
            overdue_at: now + UNLOAD_WAIT_MAX,
        });
        out.push(SlotsEffect::BeginUnload { build, leave });
    }

    pub(super) fn on_unloaded(&mut self, now: Tick, build: BuildIx, out: &mut Vec<SlotsEffect>) {
        let phase = self.builds.get(usize::from(build.0)).map(|own| own.phase);
        let Some(Phase::Unloading(departure)) = phase else {
            self.counts.stale_events += 1;
            return;
        };
        self.leaving.take_if(|leaving| leaving.build == build);
        let next = match departure {
            Departure::Dropped => Phase::Cold(Past::ShutDown),
            Departure::Discarded | Departure::Overdue => Phase::Cold(Past::NeverLoaded),
            Departure::Lost if self.is_worth_recovering(now, build) => Phase::Recovering,
            Departure::Lost => Phase::Cold(Past::NeverLoaded),
        };
        if next == Phase::Recovering {
            self.build_mut(build).recovered_at = Some(now);
            self.want(build, Eviction::Allowed);
        }
        self.set_phase(build, next);
        self.regrant(out);
    }

    /// A model whose engine dies over and over comes back only when it is asked for.
    fn is_worth_recovering(&self, now: Tick, build: BuildIx) -> bool {
        let last = self.build(build).recovered_at;
        let is_waited_for = self.waiting(build).next().is_some();
        is_waited_for || last.is_none_or(|at| now.since(at) >= RECOVERY_EVERY)
    }

    pub(super) fn on_unload_overdue(&mut self, now: Tick, out: &mut Vec<SlotsEffect>) {
        let Some(leaving) = self.leaving.take_if(|leaving| leaving.overdue_at <= now) else {
            return;
        };
        self.set_phase(leaving.build, Phase::Unloading(Departure::Overdue));
        let waiting: Vec<JobId> = self.waiting(leaving.build).collect();
        for job in waiting {
            self.refuse(job, Refusal::Stuck, out);
        }
        let at = self.wanted.iter().position(|it| it.build == leaving.build);
        if let Some(want) = at.and_then(|at| self.wanted.remove(at)) {
            answer(want, Refusal::Stuck, out);
        }
    }

    pub(super) fn on_cache_cleared(&mut self, out: &mut Vec<SlotsEffect>) {
        // Only a load that waits for this goes on. The cache is also cleared under pressure, and
        // nothing waits for that.
        if self
            .work
            .is_some_and(|work| work.stage == LoadStage::Clearing)
        {
            self.ask(out);
        }
    }

    pub(super) fn on_measured_for_load(
        &mut self,
        now: Tick,
        measured: Measured,
        out: &mut Vec<SlotsEffect>,
    ) {
        let Some(work) = self.work else { return };
        match work.stage {
            LoadStage::Asking => self.decide(now, work, measured, out),
            LoadStage::Guarding => self.guard(now, work, measured, out),
            LoadStage::Clearing
            | LoadStage::Discarding(_)
            | LoadStage::Evicting
            | LoadStage::Filling { .. } => {}
        }
    }

    /// Loads, evicts the next idle model, or gives up; evicts nothing that would not help.
    fn decide(&mut self, now: Tick, work: Work, measured: Measured, out: &mut Vec<SlotsEffect>) {
        let Want {
            build, eviction, ..
        } = work.want;
        if self.pressure.is_pressed() {
            return self.give_up_load(Refusal::Pressed, out);
        }
        if self.lasting_count(eviction) >= self.slots_max() {
            let slots = self.config.slots_max;
            return self.give_up_load(Refusal::SlotsBusy { slots }, out);
        }
        let weights_bytes = self.spec(build).weights_bytes;
        let held = self.occupancy(measured, eviction);
        let load = self.config.cap.load(held, weights_bytes);
        if let Load::Refused(shortage) = load {
            let others = self.others(eviction);
            return self.clear_or_give_up(Refusal::NoMemory { shortage, others }, out);
        }
        let lasting = |slots: &Self, other| {
            slots.is_resident(other)
                && !(eviction == Eviction::Allowed && slots.is_evictable(other))
        };
        let (_, at_best) = self.slices(build, lasting);
        if let Some(grant_bytes) = too_small(&at_best) {
            return self.give_up_load(Refusal::GrantTooSmall { grant_bytes }, out);
        }
        let (_, beside_all) = self.slices(build, Self::is_resident);
        let is_free = self.held_count() < self.slots_max();
        if is_free && load == Load::Fits && too_small(&beside_all).is_none() {
            return self.begin_load(now, build, out);
        }
        if eviction == Eviction::Allowed
            && let Some(victim) = self.least_recently_used()
        {
            self.counts.evictions += 1;
            self.set_stage(LoadStage::Evicting);
            return self.begin_unload(now, victim, Departure::Dropped, out);
        }
        let Load::Refused(shortage) = self.config.cap.load(held.as_it_is(), weights_bytes) else {
            panic!("what fits as it is was loaded");
        };
        // No model is in the way that could be evicted, so what is missing may be the buffers that
        // the library keeps for reuse.
        let others = self.others(eviction);
        self.clear_or_give_up(Refusal::NoMemory { shortage, others }, out);
    }

    fn others(&self, eviction: Eviction) -> Others {
        match eviction {
            _ if self.held_count() == 0 => Others::Absent,
            Eviction::Allowed => Others::Serving,
            Eviction::Forbidden => Others::Kept,
        }
    }

    /// Before a refusal for want of memory the library gives back what it keeps, once.
    fn clear_or_give_up(&mut self, why: Refusal, out: &mut Vec<SlotsEffect>) {
        let Some(work) = self.work.as_mut().filter(|work| !work.is_cache_cleared) else {
            return self.give_up_load(why, out);
        };
        work.is_cache_cleared = true;
        work.stage = LoadStage::Clearing;
        out.push(SlotsEffect::ClearBufferCache);
    }

    /// From here on nobody else can take the memory: the others' grants shrink first.
    fn begin_load(&mut self, now: Tick, build: BuildIx, out: &mut Vec<SlotsEffect>) {
        self.counts.loads += 1;
        self.set_stage(LoadStage::Filling { since: now });
        self.set_phase(build, Phase::Loading);
        self.regrant(out);
        let grant_bytes = self.build(build).grant_bytes;
        out.push(SlotsEffect::BeginLoad { build, grant_bytes });
    }

    pub(super) fn on_load_ended(
        &mut self,
        now: Tick,
        build: BuildIx,
        fault: Option<LoadFault>,
        out: &mut Vec<SlotsEffect>,
    ) {
        let since = match self.work {
            Some(Work {
                want,
                stage: LoadStage::Filling { since },
                ..
            }) if want.build == build => since,
            Some(_) | None => {
                self.counts.stale_events += 1;
                return;
            }
        };
        if let Some(fault) = fault {
            self.give_up_load(Refusal::Fault(fault), out);
            return;
        }
        self.build_mut(build).load_time = now.since(since);
        self.set_stage(LoadStage::Guarding);
        out.push(SlotsEffect::ClearBufferCache);
        out.push(SlotsEffect::Measure);
    }

    /// Measured after the load: a model that leaves too little to serve with goes again.
    fn guard(&mut self, now: Tick, work: Work, measured: Measured, out: &mut Vec<SlotsEffect>) {
        let build = work.want.build;
        let cap = &self.config.cap;
        if !cap.is_serveable(measured.memory, measured.reserved_bytes) {
            let headroom_bytes = cap.kv_available_bytes(measured.memory, measured.reserved_bytes);
            self.set_stage(LoadStage::Discarding(Refusal::NoHeadroom {
                headroom_bytes,
            }));
            self.begin_unload(now, build, Departure::Discarded, out);
            return;
        }
        self.work = None;
        self.build_mut(build).used_at = now;
        self.set_phase(build, Phase::Resident(Health::new(now)));
        out.push(SlotsEffect::Loaded { build });
        let mut waiting: Vec<JobId> = self.waiting(build).collect();
        waiting.sort_unstable_by_key(|job| self.jobs[job].seq);
        for job in waiting {
            self.run(now, job, out);
        }
    }

    /// The load came to nothing: whoever waits for it hears why.
    fn give_up_load(&mut self, why: Refusal, out: &mut Vec<SlotsEffect>) {
        let Some(work) = self.work.take() else { return };
        let build = work.want.build;
        let waiting: Vec<JobId> = self.waiting(build).collect();
        for job in waiting {
            self.refuse(job, why, out);
        }
        if matches!(self.build(build).phase, Phase::Loading | Phase::Recovering) {
            self.set_phase(build, Phase::Cold(Past::NeverLoaded));
            self.regrant(out);
        }
        answer(work.want, why, out);
    }

    /// Shares the KV memory out anew, and says so where a share changed.
    pub(super) fn regrant(&mut self, out: &mut Vec<SlotsEffect>) {
        let loading = self.incoming();
        let (builds, grants) = match loading {
            Some(build) => self.slices(build, Self::is_resident),
            None => self.slices_of_residents(),
        };
        for (build, grant) in builds.into_iter().zip(grants) {
            let bytes = self.pressure.granted(grant);
            let own = self.build_mut(build);
            if own.grant_bytes != bytes {
                own.grant_bytes = bytes;
                // A model that is being loaded is not told here: the order to load carries its
                // grant.
                if Some(build) != loading {
                    out.push(SlotsEffect::SetGrant { build, bytes });
                }
            }
        }
    }

    /// The models that `is_counted` names and one more, each with its share.
    fn slices(
        &self,
        newcomer: BuildIx,
        is_counted: impl Fn(&Self, BuildIx) -> bool,
    ) -> (Vec<BuildIx>, Vec<u64>) {
        let is_counted = |build: &BuildIx| *build == newcomer || is_counted(self, *build);
        self.sliced(self.ixs().filter(is_counted).collect())
    }

    fn slices_of_residents(&self) -> (Vec<BuildIx>, Vec<u64>) {
        let residents = self.ixs().filter(|&build| self.is_resident(build));
        self.sliced(residents.collect())
    }

    fn sliced(&self, builds: Vec<BuildIx>) -> (Vec<BuildIx>, Vec<u64>) {
        let weights = |build: &BuildIx| self.spec(*build).weights_bytes;
        // A model whose unload has not ended still takes its memory, although it serves nobody.
        let stuck =
            self.weights(|slots, build| matches!(slots.build(build).phase, Phase::Unloading(_)));
        let weights_bytes = builds.iter().map(weights).fold(stuck, u64::saturating_add);
        let total = self.config.cap.kv_budget_bytes(weights_bytes);
        let rates: Vec<_> = builds.iter().map(|build| self.spec(*build).kv).collect();
        let grants = slice(total, &rates);
        (builds, grants)
    }

    fn least_recently_used(&self) -> Option<BuildIx> {
        self.ixs()
            .filter(|&build| self.is_evictable(build))
            .min_by_key(|&build| (self.build(build).used_at, build))
    }

    fn is_resident(&self, build: BuildIx) -> bool {
        matches!(self.build(build).phase, Phase::Resident(_))
    }

    /// In memory, or not yet out of it.
    fn holds_memory(&self, build: BuildIx) -> bool {
        match self.build(build).phase {
            Phase::Resident(_) | Phase::Unloading(_) => true,
            Phase::Cold(_) | Phase::Loading | Phase::Recovering => false,
        }
    }

    fn held_count(&self) -> usize {
        self.ixs().filter(|&build| self.holds_memory(build)).count()
    }

    /// Slots that stay taken, whatever is evicted.
    fn lasting_count(&self, eviction: Eviction) -> usize {
        let lasts = |build: &BuildIx| {
            self.holds_memory(*build)
                && !(eviction == Eviction::Allowed && self.is_evictable(*build))
        };
        let incoming = usize::from(self.incoming().is_some());
        self.ixs().filter(lasts).count() + incoming
    }

    fn slots_max(&self) -> usize {
        usize::from(self.config.slots_max)
    }

    fn is_quiet(&self) -> bool {
        self.builds.iter().all(|build| build.in_flight == 0)
    }

    fn incoming(&self) -> Option<BuildIx> {
        self.ixs()
            .find(|&build| self.build(build).phase == Phase::Loading)
    }

    fn weights(&self, is_counted: impl Fn(&Self, BuildIx) -> bool) -> u64 {
        self.ixs()
            .filter(|&build| is_counted(self, build))
            .map(|build| self.spec(build).weights_bytes)
            .fold(0, u64::saturating_add)
    }

    fn waiting(&self, build: BuildIx) -> impl Iterator<Item = JobId> + '_ {
        self.jobs
            .iter()
            .filter_map(move |(id, job)| match job.stage {
                Stage::Waiting { .. } if job.build == build => Some(*id),
                Stage::Running { .. } | Stage::Waiting { .. } => None,
            })
    }

    fn set_stage(&mut self, stage: LoadStage) {
        if let Some(work) = &mut self.work {
            work.stage = stage;
        }
    }
}

fn answer(want: Want, why: Refusal, out: &mut Vec<SlotsEffect>) {
    let build = want.build;
    if want.owes_answer {
        out.push(SlotsEffect::LoadRefused { build, why });
    }
}

/// The facts of a machine on which nothing was measured yet.
impl Measured {
    #[must_use]
    pub const fn of(memory: MemoryFacts) -> Self {
        Self {
            memory,
            reserved_bytes: 0,
            strain: super::Strain {
                swap_used_bytes: 0,
                stalled_ppm: None,
            },
        }
    }
}
