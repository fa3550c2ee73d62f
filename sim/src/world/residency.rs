//! Which models machines have in memory: each machine's own [`Slots`] decides, and this carries out
//! what it orders. Weights come from the disk, one model at a time; an unload takes a moment.
//!
//! [`Slots`]: cereus_core::slots::Slots

use std::collections::VecDeque;

use cereus_core::event::AttemptFault;
use cereus_core::ids::{AttemptKey, ModelIx};
use cereus_core::slots::{
    BuildIx, EngineSign, Eviction, JobId, Measured, Refusal, SlotState, SlotsEffect, SlotsEvent,
    Strain,
};
use cereus_core::time::{Span, Tick};

use super::host::{Held, job_of};
use super::links::Link;
use super::wares::memory_of;
use super::{Happening, News, World};
use crate::machine::Note;
use crate::workload::{Arrival, WorkloadError};

/// What an unload takes.
const UNLOAD: Span = Span::millis(500);

/// What can happen to a machine that has several models.
#[derive(Clone, Copy, Debug)]
pub(super) enum Housed {
    /// The coordinator wants a model in memory.
    Ordered {
        link: Link,
        model: ModelIx,
    },
    /// Weights have come in.
    Loaded {
        machine: u32,
        life: u32,
        build: BuildIx,
    },
    Unloaded {
        machine: u32,
        life: u32,
        build: BuildIx,
    },
    Woke {
        machine: u32,
    },
}

impl<I: Iterator<Item = Result<Arrival, WorkloadError>>> World<I> {
    /// Every machine has one of its models in memory from the start.
    pub(super) fn preload(&mut self) {
        for machine in 0..self.config.machines_in_all() {
            let Some(host) = self.fleet.host(machine) else {
                return;
            };
            let life = host.life;
            let build = u16::try_from(self.fleet.first_build(machine)).expect("few models");
            let build = BuildIx(build);
            let asked = SlotsEvent::LoadAsked {
                build,
                eviction: Eviction::Forbidden,
            };
            self.step_slots(Tick::ZERO, machine, SlotsEvent::Woke);
            self.step_slots(Tick::ZERO, machine, asked);
            self.on_housed(
                Tick::ZERO,
                Housed::Loaded {
                    machine,
                    life,
                    build,
                },
            );
        }
    }

    pub(super) fn on_housed(&mut self, now: Tick, housed: Housed) {
        match housed {
            Housed::Ordered { link, model } => {
                let machine = self.links.machine(link);
                let host = self.fleet.host(machine);
                let build = host.and_then(|host| host.build_of(model));
                if let Some(build) = build.filter(|_| self.links.is_held(link)) {
                    let eviction = Eviction::Allowed;
                    self.step_slots(now, machine, SlotsEvent::LoadAsked { build, eviction });
                }
            }
            Housed::Loaded {
                machine,
                life,
                build,
            } => {
                if self.lives(machine, life) {
                    let fault = None;
                    self.step_slots(now, machine, SlotsEvent::LoadEnded { build, fault });
                }
            }
            Housed::Unloaded {
                machine,
                life,
                build,
            } => {
                if self.lives(machine, life) {
                    let host = self.fleet.host_mut(machine).expect("it lives");
                    host.in_memory.retain(|other| *other != build);
                    self.step_slots(now, machine, SlotsEvent::Unloaded { build });
                }
            }
            Housed::Woke { machine } => {
                let host = self.fleet.host_mut(machine).expect("only hosts wake");
                if host.wake_at == now {
                    host.wake_at = Tick::NEVER;
                    self.step_slots(now, machine, SlotsEvent::Woke);
                }
            }
        }
    }

    fn lives(&self, machine: u32, life: u32) -> bool {
        let host = self.fleet.host(machine);
        host.is_some_and(|host| host.life == life)
    }

    /// A job came to a machine that has several models.
    pub(super) fn house_job(&mut self, now: Tick, link: Link, attempt: AttemptKey, number: u64) {
        let machine = self.links.machine(link);
        let Some(model) = self.crowd.asked(number).map(|asked| asked.model) else {
            // The request ended while its dispatch was under way; the cancel is behind it.
            return;
        };
        let host = self.fleet.host_mut(machine).expect("there are several");
        let Some(build) = host.build_of(model) else {
            return self.refuse_job(now, link, attempt, AttemptFault::ModelUnavailable);
        };
        let job = job_of(attempt);
        let held = Held {
            attempt,
            number,
            is_ready: false,
        };
        host.jobs.insert(job, held);
        self.step_slots(now, machine, SlotsEvent::Asked { job, build });
    }

    /// Stops a job, wherever it is.
    pub(super) fn unhouse_job(&mut self, now: Tick, machine: u32, attempt: AttemptKey) {
        let host = self.fleet.host_mut(machine).expect("there are several");
        let job = job_of(attempt);
        let Some(held) = host.jobs.get(&job) else {
            return;
        };
        if held.is_ready {
            for engine in self.fleet.engines_of(machine) {
                let due = self.fleet.engine_mut(engine).cancel(now, attempt);
                self.schedule(engine, due);
            }
            return;
        }
        host.jobs.remove(&job);
        self.step_slots(now, machine, SlotsEvent::JobEnded { job });
        self.say_if_linked(now, machine, News::Noted(Note::Cancelled { attempt }));
    }

    /// A row of an engine told something: the slots hear of it.
    pub(super) fn note_housed(&mut self, now: Tick, machine: u32, note: Note) {
        let event = match note {
            Note::Started { attempt } => SlotsEvent::JobSpoke {
                job: job_of(attempt),
            },
            Note::Cancelled { attempt }
            | Note::Completed { attempt, .. }
            | Note::Evicted { attempt } => {
                let job = job_of(attempt);
                let host = self.fleet.host_mut(machine).expect("there are several");
                host.jobs.remove(&job);
                SlotsEvent::JobEnded { job }
            }
            Note::Progressed { .. } => return,
        };
        self.step_slots(now, machine, event);
    }

    /// The connection is gone, and every job with it.
    pub(super) fn end_housed(&mut self, now: Tick, machine: u32) {
        let Some(host) = self.fleet.host_mut(machine) else {
            return;
        };
        let jobs = core::mem::take(&mut host.jobs);
        for job in jobs.into_keys() {
            self.step_slots(now, machine, SlotsEvent::JobEnded { job });
        }
    }

    /// One event, and all that follows from it at once.
    pub(super) fn step_slots(&mut self, now: Tick, machine: u32, event: SlotsEvent) {
        let mut events = VecDeque::from([event]);
        let mut out = Vec::new();
        while let Some(event) = events.pop_front() {
            let host = self.fleet.host_mut(machine).expect("there are several");
            host.slots.step(now, event, &mut out);
            for effect in out.drain(..) {
                self.follow(now, machine, effect, &mut events);
            }
        }
        self.fleet.share_chip(now, machine);
        self.schedule_dues();
        let host = self.fleet.host_mut(machine).expect("there are several");
        let (at, _) = host.slots.next_wake();
        if at < host.wake_at {
            host.wake_at = at.max(now);
            let wake = Housed::Woke { machine };
            self.queue.push(at.max(now), Happening::Housed(wake));
        }
    }

    fn follow(
        &mut self,
        now: Tick,
        machine: u32,
        effect: SlotsEffect,
        events: &mut VecDeque<SlotsEvent>,
    ) {
        match effect {
            SlotsEffect::Accept { job } => {
                let host = self.fleet.host(machine).expect("it steps");
                if let Some(attempt) = host.jobs.get(&job).map(|held| held.attempt) {
                    self.say_if_linked(now, machine, News::Accepted { attempt });
                }
            }
            SlotsEffect::BeginLoad { build, grant_bytes } => {
                self.begin_load(now, machine, build, grant_bytes);
            }
            SlotsEffect::BeginUnload { build, .. } => {
                let life = self.fleet.host(machine).expect("it steps").life;
                let unloaded = Housed::Unloaded {
                    machine,
                    life,
                    build,
                };
                self.queue.push(now + UNLOAD, Happening::Housed(unloaded));
            }
            SlotsEffect::ClearBufferCache => events.push_back(SlotsEvent::CacheCleared),
            SlotsEffect::Loaded { build } => {
                let model = self.model_of(machine, build);
                self.say_if_linked(now, machine, News::Loaded { model });
            }
            SlotsEffect::LoadRefused { build, .. } => {
                let model = self.model_of(machine, build);
                self.say_if_linked(now, machine, News::LoadFailed { model });
            }
            SlotsEffect::Measure => self.measure(now, machine, events),
            SlotsEffect::Ready { job, build } => self.is_ready(now, machine, job, build, events),
            SlotsEffect::Refuse { job, why } => self.is_refused(now, machine, job, why),
            SlotsEffect::Report => {
                if let Some(link) = self.links.current(machine) {
                    self.fleet.beat(now, machine);
                    self.say(now, link, News::Reported);
                }
            }
            SlotsEffect::SetGrant { build, bytes } => {
                let engine = self.engine_of(machine, build);
                let due = self.fleet.engine_mut(engine).set_grant(now, bytes);
                self.schedule(engine, due);
            }
        }
    }

    fn begin_load(&mut self, now: Tick, machine: u32, build: BuildIx, grant_bytes: u64) {
        let engine = self.engine_of(machine, build);
        self.fleet.engine_mut(engine).load(now, grant_bytes);
        let model = self.model_of(machine, build);
        let weights_bytes = self.wares.facts(model).weights_bytes;
        let host = self.fleet.host_mut(machine).expect("it steps");
        host.in_memory.push(build);
        let loaded = Housed::Loaded {
            machine,
            life: host.life,
            build,
        };
        // Bytes divided by millions of bytes a second are microseconds.
        let took = Span(weights_bytes / u64::from(self.config.disk_mbs));
        if now > Tick::ZERO {
            self.queue.push(now + took, Happening::Housed(loaded));
        }
    }

    fn measure(&mut self, now: Tick, machine: u32, events: &mut VecDeque<SlotsEvent>) {
        let engines = self.fleet.engines_of(machine);
        let host = self.fleet.host(machine).expect("it steps");
        for &build in &host.in_memory {
            if host.slots.state(build).is_some_and(SlotState::is_warm) {
                let engine = engines.start + u32::from(build.0);
                // A simulated engine that has work makes steps.
                let steps = match self.fleet.is_engine_idle(engine) {
                    true => 0,
                    false => now.0,
                };
                events.push_back(SlotsEvent::Watched {
                    build,
                    engine: EngineSign::Alive,
                    steps,
                });
            }
        }
        events.push_back(SlotsEvent::Measured(Measured {
            memory: memory_of(host.memory_gb, host.weights_bytes()),
            reserved_bytes: self.fleet.reserved_bytes(machine),
            strain: Strain::default(),
        }));
    }

    fn is_ready(
        &mut self,
        now: Tick,
        machine: u32,
        job: JobId,
        build: BuildIx,
        events: &mut VecDeque<SlotsEvent>,
    ) {
        let host = self.fleet.host_mut(machine).expect("it steps");
        let held = host.jobs.get_mut(&job).expect("a job that was asked");
        held.is_ready = true;
        let held = *held;
        let engine = self.engine_of(machine, build);
        if let Err(fault) = self.submit(now, engine, held.attempt, held.number) {
            let host = self.fleet.host_mut(machine).expect("it steps");
            host.jobs.remove(&job);
            events.push_back(SlotsEvent::JobEnded { job });
            let attempt = held.attempt;
            self.say_if_linked(now, machine, News::Failed { attempt, fault });
        }
    }

    fn is_refused(&mut self, now: Tick, machine: u32, job: JobId, why: Refusal) {
        let host = self.fleet.host_mut(machine).expect("it steps");
        let Some(held) = host.jobs.remove(&job) else {
            return;
        };
        self.tally.machine_refusals += 1;
        let fault = match why {
            Refusal::Fenced | Refusal::Unknown => AttemptFault::ModelUnavailable,
            Refusal::Fault(_)
            | Refusal::GrantTooSmall { .. }
            | Refusal::NoHeadroom { .. }
            | Refusal::NoMemory { .. }
            | Refusal::Pressed
            | Refusal::QueueFull
            | Refusal::SlotsBusy { .. }
            | Refusal::Stuck
            | Refusal::TurnOverdue => AttemptFault::Busy,
        };
        let attempt = held.attempt;
        self.say_if_linked(now, machine, News::Failed { attempt, fault });
    }

    /// Says something, if there is a connection.
    fn say_if_linked(&mut self, now: Tick, machine: u32, news: News) {
        if let Some(link) = self.links.current(machine) {
            self.say(now, link, news);
        }
    }

    fn engine_of(&self, machine: u32, build: BuildIx) -> u32 {
        self.fleet.engines_of(machine).start + u32::from(build.0)
    }

    fn model_of(&self, machine: u32, build: BuildIx) -> ModelIx {
        let host = self.fleet.host(machine).expect("it steps");
        host.models[usize::from(build.0)]
    }
}
