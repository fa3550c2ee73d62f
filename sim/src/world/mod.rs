//! The world of `sim run`: the real coordinator and the real scheduler, between a modelled network,
//! store, fleet and crowd. One thread, virtual time, typed messages.
//!
//! Truth that core must not see (output lengths, chip speeds) stays in [`crowd`] and in the machines;
//! core is told what the wire would tell it, when the wire would.

pub mod config;
pub mod crowd;
mod fleet;
pub mod knowledge;
pub mod ledger;
pub mod net;
mod pump;
pub mod store;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use cereus_core::coordinator::explain::Explanation;
use cereus_core::coordinator::{Coordinator, Misuse};
use cereus_core::draw::{Purpose, Seed};
use cereus_core::effect::Effects;
use cereus_core::event::{AttemptFault, Event, Trust};
use cereus_core::ids::{AccountId, AttemptKey, ModelIx};
use cereus_core::time::{Span, Tick};
use cereus_engine::kv::BlockHash;
use thiserror::Error;

use self::config::{RunConfig, RunConfigError};
use self::crowd::Crowd;
use self::fleet::Fleet;
use self::knowledge::Teller;
use self::ledger::Ledger;
use self::net::{Net, Way};
use self::store::Store;
use crate::machine::{Note, Prompts, StepDue};
use crate::queue::EventQueue;
use crate::record::{Keep, Record, Recorder, Row, Watch};
use crate::report::{Report, Tally};
use crate::stream::Stream;
use crate::workload::{Arrival, WorkloadError, sped_up};

/// The fleet joins and is challenged before the first request.
const WARM_UP: Span = Span::secs(10);
const BYTES_PER_TOKEN: u32 = 4;
const MODEL: ModelIx = ModelIx(0);
/// Events between two calls of the progress callback.
const PROGRESS_EVENTS: u64 = 1 << 16;

/// Why a run stopped before its end.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RunError {
    #[error(transparent)]
    Config(#[from] RunConfigError),
    /// A bug here.
    #[error("the simulator misused the core: {0:?}")]
    Misuse(Misuse),
    #[error(transparent)]
    Workload(#[from] WorkloadError),
}

/// What happens in the world. Small and by value: hundreds of thousands a second.
#[derive(Clone, Copy, Debug)]
enum Happening {
    /// A heartbeat is due on the machine.
    Beat {
        machine: u32,
    },
    CancelArrived {
        machine: u32,
        attempt: AttemptKey,
    },
    /// The coordinator challenges the machine.
    Challenge {
        machine: u32,
    },
    Dispatched {
        machine: u32,
        attempt: AttemptKey,
        number: u64,
    },
    FailureArrived {
        machine: u32,
        attempt: AttemptKey,
        fault: AttemptFault,
    },
    Joined {
        machine: u32,
    },
    NoteArrived {
        machine: u32,
        note: Note,
    },
    AcceptArrived {
        machine: u32,
        attempt: AttemptKey,
    },
    ReportArrived {
        machine: u32,
    },
    RequestArrived {
        number: u64,
    },
    /// The consumer sends the trace's next request.
    Sent,
    StepDone {
        machine: u32,
        epoch: u32,
    },
    Verified {
        machine: u32,
    },
    Wake,
    Written,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub now: Tick,
    pub asked: u64,
}

/// A run that has come to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Ran {
    pub report: Report,
    pub record: Record,
    pub watch: Watch,
}

/// What became of one request, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// When the coordinator heard of it.
    pub at: Tick,
    pub explanation: Explanation,
    pub row: Row,
    /// Of the machine that answered, or had the last attempt.
    pub kind: Option<String>,
}

/// See the module.
pub struct World<I> {
    config: RunConfig,
    core: Coordinator,
    queue: EventQueue<Happening>,
    fleet: Fleet,
    crowd: Crowd,
    teller: Teller,
    net: Net,
    store: Store,
    ledger: Ledger,
    tally: Tally,
    recorder: Recorder,
    watch: Watch,
    arrivals: I,
    /// What [`Happening::Sent`] is of.
    upcoming: Option<Arrival>,
    /// Of the prompt that a machine takes.
    names: Vec<BlockHash>,
    seed: Seed,
    wake_at: Tick,
    is_exhausted: bool,
    out: Effects,
}

impl<I: Iterator<Item = Result<Arrival, WorkloadError>>> World<I> {
    pub fn new(config: RunConfig, arrivals: I) -> Result<Self, RunError> {
        config.check()?;
        let mut core = Coordinator::new(config.core());
        core.set_policy(config.policy);
        let mut world = Self {
            core,
            queue: EventQueue::new(),
            fleet: Fleet::new(&config),
            crowd: Crowd::default(),
            teller: Teller::new(config.knowledge, config.seed),
            net: Net::new(config.net, config.seed, config.machines as usize),
            store: Store::new(config.store, config.seed),
            ledger: Ledger::default(),
            tally: Tally::new(config.slo),
            recorder: Recorder::new(Tick::ZERO + WARM_UP, config.kind_names()),
            watch: Watch::Nothing,
            arrivals,
            upcoming: None,
            names: Vec::new(),
            seed: Seed::from_number(config.seed),
            wake_at: Tick::NEVER,
            is_exhausted: false,
            out: Effects::with_capacity(64),
            config,
        };
        world.settle_in()?;
        Ok(world)
    }

    /// Says what the record of the run keeps.
    #[must_use]
    pub const fn keeping(mut self, keep: Keep) -> Self {
        self.recorder.keep(keep);
        self
    }

    /// Says what is kept of the core's steps.
    #[must_use]
    pub fn watching(mut self, watch: Watch) -> Self {
        self.watch = watch;
        self
    }

    /// Runs to the end, and tells why a request went where it went at the moment when the coordinator
    /// heard of it. `None`: the trace has no request of this number.
    pub fn explain(mut self, number: u64) -> Result<Option<Explained>, RunError> {
        self.recorder.keep(Keep::Rows);
        let wanted = |happening: &Happening| matches!(happening, Happening::RequestArrived { number: it } if *it == number);
        let mut heard = None;
        while let Some((now, happening)) = self.queue.pop() {
            let is_wanted = wanted(&happening);
            if is_wanted {
                heard = Some((now, self.core.explain(self.ask_of(number))));
            }
            self.handle(now, happening)?;
            let is_over = self.is_exhausted && self.crowd.open() == 0 && self.store.is_quiet();
            if is_wanted || is_over {
                break;
            }
        }
        let Some((at, explanation)) = heard else {
            return Ok(None);
        };
        let Ran { mut record, .. } = self.run_recorded(|_| {})?;
        let row = record.rows.iter().position(|row| row.number == number);
        let row = record.rows.swap_remove(row.expect("every request ends"));
        let kind = row
            .machine
            .map(|ix| record.machines[ix as usize].kind.clone());
        Ok(Some(Explained {
            at,
            explanation,
            row,
            kind,
        }))
    }

    /// Runs to the end: every request has ended and everything is durable.
    pub fn run(self, progress: impl FnMut(Progress)) -> Result<Report, RunError> {
        self.run_recorded(progress).map(|ran| ran.report)
    }

    /// The same, with the record.
    pub fn run_recorded(mut self, mut progress: impl FnMut(Progress)) -> Result<Ran, RunError> {
        while let Some((now, happening)) = self.queue.pop() {
            match happening {
                Happening::StepDone { .. } => self.tally.step_events += 1,
                _ => self.tally.events += 1,
            }
            let popped = self.tally.events + self.tally.step_events;
            if popped.is_multiple_of(PROGRESS_EVENTS) {
                progress(Progress {
                    now,
                    asked: self.tally.asked,
                });
            }
            self.handle(now, happening)?;
            if self.is_exhausted && self.crowd.open() == 0 && self.store.is_quiet() {
                break;
            }
        }
        Ok(self.conclude())
    }

    /// Accounts are opened and the machines' joins scheduled.
    fn settle_in(&mut self) -> Result<(), RunError> {
        for number in 0..self.config.accounts {
            let account = AccountId(u64::from(number) + 1);
            let balance = cereus_core::money::MicroUsd::ZERO;
            self.tell(Tick::ZERO, &Event::AccountOpened { account, balance })?;
            let amount = self.config.balance;
            self.tell(
                Tick::ZERO,
                &Event::AccountCredited {
                    account,
                    amount,
                    reference: None,
                },
            )?;
        }
        let mut phases = Stream::new(self.config.seed, "phases");
        for machine in 0..self.config.machines {
            let phase = phases.below(self.config.heartbeat_every.0);
            self.queue.push(Tick(phase), Happening::Joined { machine });
        }
        self.send_next(Tick::ZERO)
    }

    fn handle(&mut self, now: Tick, happening: Happening) -> Result<(), RunError> {
        match happening {
            Happening::Beat { machine } => {
                self.fleet.beat(machine);
                let at = self.up(now, machine);
                self.queue.push(at, Happening::ReportArrived { machine });
                let next = now + self.config.heartbeat_every;
                self.queue.push(next, Happening::Beat { machine });
                Ok(())
            }
            Happening::ReportArrived { machine } => {
                let beat = self.fleet.take_beat(machine);
                self.tally.sample(&beat.slot);
                self.recorder.sampled(now, &beat.slot);
                let conn = fleet::conn(machine);
                let slots = [beat.slot];
                let slots = Cow::Borrowed(slots.as_slice());
                self.tell(
                    now,
                    &Event::ProviderReported {
                        conn,
                        report: beat.report,
                        slots,
                    },
                )
            }
            Happening::StepDone { machine, epoch } => {
                let due = self.fleet.step_done(machine, epoch);
                self.schedule(machine, due);
                for ix in 0..self.fleet.notes.len() {
                    let note = self.fleet.notes[ix];
                    let at = self.up(now, machine);
                    self.queue
                        .push(at, Happening::NoteArrived { machine, note });
                }
                Ok(())
            }
            Happening::NoteArrived { machine, note } => self.hear(now, machine, note),
            Happening::AcceptArrived { machine, attempt } => {
                let conn = fleet::conn(machine);
                self.tell(now, &Event::AttemptAccepted { conn, attempt })
            }
            Happening::FailureArrived {
                machine,
                attempt,
                fault,
            } => {
                let conn = fleet::conn(machine);
                self.tell(
                    now,
                    &Event::AttemptFailed {
                        conn,
                        attempt,
                        fault,
                    },
                )
            }
            Happening::Dispatched {
                machine,
                attempt,
                number,
            } => {
                self.take_job(now, machine, attempt, number);
                Ok(())
            }
            Happening::CancelArrived { machine, attempt } => {
                let due = self.fleet.machine_mut(machine).cancel(now, attempt);
                self.schedule(machine, due);
                Ok(())
            }
            Happening::Sent => {
                let arrival = self.upcoming.take().expect("one is sent at a time");
                let drawn =
                    self.seed
                        .draw_wide(Purpose::Simulation, u128::from(self.tally.asked), 0);
                let prompt_tokens = arrival.prompt_tokens;
                let room = self.config.context_tokens.saturating_sub(prompt_tokens);
                let told = self
                    .teller
                    .tell(prompt_tokens, arrival.output_tokens, room.max(1));
                let number = self.crowd.ask(now, drawn >> 64, arrival, told);
                let asked = self.crowd.asked(number).expect("it was just asked");
                self.recorder.asked(now, number, asked);
                self.tally.asked += 1;
                let at = now + self.net.latency();
                self.queue.push(at, Happening::RequestArrived { number });
                self.send_next(now)
            }
            Happening::RequestArrived { number } => self.admit(now, number),
            Happening::Joined { machine } => self.join(now, machine),
            Happening::Challenge { machine } => {
                let there = self.net.arrival(now, machine as usize, Way::ToMachine);
                let back = self
                    .net
                    .arrival(there, machine as usize, Way::ToCoordinator);
                self.queue.push(back, Happening::Verified { machine });
                let next = now + self.config.challenge_every;
                self.queue.push(next, Happening::Challenge { machine });
                Ok(())
            }
            Happening::Verified { machine } => {
                let conn = fleet::conn(machine);
                self.tell(now, &Event::ProviderVerified { conn })
            }
            // Another wake-up was armed since this one was queued: that one counts.
            Happening::Wake if now != self.wake_at => Ok(()),
            Happening::Wake => {
                self.wake_at = Tick::NEVER;
                self.tally.wakes += 1;
                self.tell(now, &Event::Woke)
            }
            Happening::Written => {
                let up_to = self.store.written();
                self.tell(now, &Event::Persisted { up_to })
            }
        }
    }

    fn join(&mut self, now: Tick, machine: u32) -> Result<(), RunError> {
        let joined = Event::ProviderJoined {
            conn: fleet::conn(machine),
            machine: fleet::machine_id(machine),
            owner: AccountId(u64::from(self.config.accounts) + 1 + u64::from(machine)),
            trust: Trust::Hardware,
            spec: self.fleet.spec(machine),
            models: Cow::Borrowed(&[MODEL]),
        };
        self.tell(now, &joined)?;
        // A report and a challenge follow the registration at once.
        self.queue.push(now, Happening::Beat { machine });
        self.queue.push(now, Happening::Challenge { machine });
        Ok(())
    }

    fn send_next(&mut self, now: Tick) -> Result<(), RunError> {
        let Some(arrival) = self.arrivals.next() else {
            self.is_exhausted = true;
            return Ok(());
        };
        let arrival = arrival?;
        let at = sped_up(Tick::ZERO + WARM_UP, arrival.after, self.config.speedup_ppm);
        self.upcoming = Some(arrival);
        self.queue.push(at.max(now), Happening::Sent);
        Ok(())
    }

    fn schedule(&mut self, machine: u32, due: Option<StepDue>) {
        if let Some(StepDue { at, epoch }) = due {
            // Ranked by machine, so that leaping and stepping break ties alike.
            self.queue
                .push_ranked(at, machine, Happening::StepDone { machine, epoch });
        }
    }

    fn up(&mut self, now: Tick, machine: u32) -> Tick {
        self.net.arrival(now, machine as usize, Way::ToCoordinator)
    }

    fn conclude(self) -> Ran {
        let now = self.queue.now();
        let totals = self.ledger.totals();
        assert_eq!(totals.sum(), 0, "money is neither made nor lost (INV-03)");
        assert_eq!(totals.held, 0, "nothing is held after quiescence (INV-04)");
        let ended = self.tally.finished + self.tally.refused() + self.tally.failed();
        assert_eq!(
            ended, self.tally.asked,
            "requests in equal requests out (INV-01)"
        );
        assert_eq!(self.ledger.holds, self.ledger.settles + self.ledger.voids);
        let busy_ns: u128 = self
            .fleet
            .machines()
            .map(|machine| u128::from(machine.busy_ns()))
            .sum();
        let steps: u64 = self.fleet.machines().map(|machine| machine.steps).sum();
        let prompts = self.fleet.machines().map(|machine| machine.prompts);
        let prompts = prompts.fold(Prompts::default(), |sum, one| Prompts {
            tokens: sum.tokens + one.tokens,
            cached_tokens: sum.cached_tokens + one.cached_tokens,
        });
        let busy_of_each = self.fleet.machines().map(crate::machine::Machine::busy_ns);
        let record = self.recorder.close(now, busy_of_each);
        let report = self.tally.report(crate::report::Closing {
            began: Tick::ZERO + WARM_UP,
            ended: now,
            machines: self.fleet.len() as u64,
            fleet: self.config.census(),
            seed: self.config.seed,
            busy_ns,
            engine_steps: steps,
            prompts,
            messages: self.net.messages,
            resends: self.net.resends,
            store_writes: self.store.writes,
            money: totals,
            core_digest: self.core.running_digest(),
        });
        let watch = self.watch;
        Ran {
            report,
            record,
            watch,
        }
    }
}
