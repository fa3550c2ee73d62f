//! The world of `sim run`: the real coordinator and the real scheduler, between a modelled network,
//! store, fleet and crowd. One thread, virtual time, typed messages.
//!
//! Truth that core must not see (output lengths, chip speeds) stays in [`crowd`] and in the machines;
//! core is told what the wire would tell it, when the wire would.

mod asking;
pub mod churn;
mod comings;
mod conditions;
pub mod config;
pub mod crowd;
pub mod defects;
mod fleet;
pub mod heat;
mod host;
pub mod knowledge;
pub mod ledger;
mod links;
pub mod living;
pub mod net;
pub mod people;
pub mod profile;
mod pump;
mod residency;
pub mod shares;
pub mod store;
#[cfg(test)]
mod tests;
mod wares;

use cereus_core::coordinator::explain::Explanation;
use cereus_core::coordinator::{Coordinator, Misuse};
use cereus_core::draw::Seed;
use cereus_core::effect::Effects;
use cereus_core::event::{AttemptFault, Event};
use cereus_core::ids::{AccountId, AttemptKey, ModelIx};
use cereus_core::time::{Span, Tick};
use cereus_engine::kv::BlockHash;
use thiserror::Error;

use self::asking::{Person, Retries};
use self::comings::{Coming, Residents};
use self::config::{RunConfig, RunConfigError};
use self::crowd::{Crowd, Number};
use self::fleet::Fleet;
use self::heat::Heat;
use self::knowledge::Teller;
use self::ledger::Ledger;
use self::links::{Link, Links};
use self::living::Living;
use self::net::{Net, Way};
use self::people::{Manners, Purses};
use self::profile::{Clock, Profile};
use self::residency::Housed;
use self::store::Store;
use self::wares::Wares;
use crate::machine::{Note, Prompts, StepDue};
use crate::queue::EventQueue;
use crate::record::{Keep, Record, Recorder, Row, Watch};
use crate::report::{Report, Tally};
use crate::workload::{Arrival, WorkloadError, sped_up};

/// The fleet joins and is challenged before the first request.
const WARM_UP: Span = Span::secs(10);
const BYTES_PER_TOKEN: u32 = 4;
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
    /// A heartbeat is due.
    Beat {
        link: Link,
    },
    CancelArrived {
        link: Link,
        attempt: AttemptKey,
    },
    /// The coordinator challenges the machine.
    Challenge {
        link: Link,
    },
    Coming(Coming),
    /// A machine loses speed, for good.
    Degrades {
        machine: u32,
        percent: u32,
    },
    Dispatched {
        link: Link,
        attempt: AttemptKey,
        number: Number,
    },
    Housed(Housed),
    Person(Person),
    RequestArrived {
        number: Number,
    },
    /// The consumer sends the trace's next request.
    Sent,
    StepDone {
        engine: u32,
        epoch: u32,
    },
    /// The coordinator hears something from a machine.
    Up {
        link: Link,
        news: News,
    },
    Wake,
    Written,
}

const _: () = assert!(size_of::<Happening>() <= 28, "events are moved often");

/// What a machine says.
#[derive(Clone, Copy, Debug)]
enum News {
    Accepted {
        attempt: AttemptKey,
    },
    /// It has answered its challenge.
    Answered,
    Failed {
        attempt: AttemptKey,
        fault: AttemptFault,
    },
    LoadFailed {
        model: ModelIx,
    },
    Loaded {
        model: ModelIx,
    },
    Noted(Note),
    Reported,
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
    /// None unless a clock was given.
    pub profile: Option<Profile>,
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
    wares: Wares,
    fleet: Fleet,
    links: Links,
    residents: Residents,
    living: Living,
    crowd: Crowd,
    manners: Manners,
    purses: Purses,
    retries: Retries,
    teller: Teller,
    net: Net,
    store: Store,
    ledger: Ledger,
    tally: Tally,
    recorder: Recorder,
    watch: Watch,
    profile: Option<(Clock, Profile)>,
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
        let wares = Wares::new(&config);
        let mut core = Coordinator::new(config.core());
        core.set_policy(config.policy);
        let mut world = Self {
            core,
            queue: EventQueue::new(),
            fleet: Fleet::new(&config, &wares),
            wares,
            links: Links::new(config.machines_in_all()),
            residents: Residents::new(config.churn, config.seed, config.machines_in_all()),
            living: Living::new(&config),
            crowd: Crowd::default(),
            manners: Manners::new(config.people, config.seed),
            purses: Purses::new(
                Seed::from_number(config.seed),
                config.people.tenants,
                config.accounts,
            ),
            retries: Retries::default(),
            teller: Teller::new(config.knowledge, config.seed),
            net: Net::new(config.net, config.seed, config.machines_in_all() as usize),
            store: Store::new(config.store, config.seed),
            ledger: Ledger::default(),
            tally: Tally::new(config.slo),
            recorder: Recorder::new(Tick::ZERO + WARM_UP, config.kind_names()),
            watch: Watch::Nothing,
            profile: None,
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

    /// Says that the core's steps are to be timed, by this clock.
    #[must_use]
    pub fn timed_by(mut self, clock: Clock) -> Self {
        self.profile = Some((clock, Profile::default()));
        self
    }

    /// Runs to the end, and tells why a request went where it went at the moment when the coordinator
    /// heard of it. `None`: the trace has no request of this number.
    pub fn explain(mut self, number: u64) -> Result<Option<Explained>, RunError> {
        self.recorder.keep(Keep::Rows);
        let wanted = |happening: &Happening| matches!(happening, Happening::RequestArrived { number: it } if it.long() == number);
        let mut heard = None;
        while let Some((now, happening)) = self.queue.pop() {
            let is_wanted = wanted(&happening);
            if is_wanted {
                heard = Some((now, self.core.explain(self.ask_of(number))));
            }
            self.handle(now, happening)?;
            let is_over = self.is_over();
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
            if self.is_over() {
                break;
            }
        }
        Ok(self.conclude())
    }

    /// Every request has ended, and what a consumer owed who left amid an answer is settled.
    fn is_over(&self) -> bool {
        let is_answered = self.crowd.open() == 0 && self.retries.is_empty();
        self.is_exhausted && is_answered && self.store.is_quiet() && self.ledger.is_settled()
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
        self.preload();
        self.set_warm_min()?;
        self.settle_machines();
        self.plan_defects();
        self.settle_consumers()
    }

    fn set_warm_min(&mut self) -> Result<(), RunError> {
        let machines = self.config.warm_min;
        if machines == 0 {
            return Ok(());
        }
        for model in self.wares.all() {
            self.tell(Tick::ZERO, &Event::WarmMinChanged { model, machines })?;
        }
        Ok(())
    }

    fn handle(&mut self, now: Tick, happening: Happening) -> Result<(), RunError> {
        match happening {
            Happening::Beat { link } => {
                self.beat(now, link);
                Ok(())
            }
            Happening::StepDone { engine, epoch } => {
                self.step_done(now, engine, epoch);
                Ok(())
            }
            Happening::Up { link, news } => self.hear(now, link, news),
            Happening::Dispatched {
                link,
                attempt,
                number,
            } => {
                self.take_job(now, link, attempt, number.long());
                Ok(())
            }
            Happening::CancelArrived { link, attempt } => {
                if self.links.is_held(link) {
                    self.stop_job(now, self.links.machine(link), attempt);
                }
                Ok(())
            }
            Happening::Housed(housed) => {
                self.on_housed(now, housed);
                Ok(())
            }
            Happening::Coming(coming) => self.on_coming(now, coming),
            Happening::Degrades { machine, percent } => {
                self.degrade(now, machine, percent);
                Ok(())
            }
            Happening::Person(person) => self.on_person(now, person),
            Happening::Sent => self.send(now),
            Happening::RequestArrived { number } => self.admit(now, number.long()),
            Happening::Challenge { link } => {
                self.challenge(now, link);
                Ok(())
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

    fn beat(&mut self, now: Tick, link: Link) {
        if !self.links.is_held(link) {
            return;
        }
        let machine = self.links.machine(link);
        if self.config.heat != Heat::None {
            self.warm(now, machine);
        }
        self.fleet.beat(now, machine);
        self.say(now, link, News::Reported);
        let next = now + self.config.heartbeat_every;
        self.queue.push(next, Happening::Beat { link });
    }

    fn step_done(&mut self, now: Tick, engine: u32, epoch: u32) {
        let due = self.fleet.step_done(engine, epoch);
        self.schedule(engine, due);
        if self.fleet.notes.is_empty() {
            return;
        }
        let machine = self.fleet.owner(engine);
        let link = self.links.current(machine);
        let link = link.expect("a machine that works has a connection");
        for ix in 0..self.fleet.notes.len() {
            let note = self.fleet.notes[ix];
            self.say(now, link, News::Noted(note));
            if self.wares.is_choice() {
                self.note_housed(now, machine, note);
            }
        }
    }

    fn stop_job(&mut self, now: Tick, machine: u32, attempt: AttemptKey) {
        if self.wares.is_choice() {
            return self.unhouse_job(now, machine, attempt);
        }
        let engine = self.fleet.only_engine(machine);
        let due = self.fleet.engine_mut(engine).cancel(now, attempt);
        self.schedule(engine, due);
    }

    fn challenge(&mut self, now: Tick, link: Link) {
        if !self.links.is_known(link) {
            return;
        }
        let machine = self.links.machine(link) as usize;
        let there = self.net.arrival(now, machine, Way::ToMachine);
        if self.links.is_held(link) {
            let at = self.net.arrival(there, machine, Way::ToCoordinator);
            let news = News::Answered;
            self.queue.push(at, Happening::Up { link, news });
        }
        let next = now + self.config.challenge_every;
        self.queue.push(next, Happening::Challenge { link });
    }

    fn send(&mut self, now: Tick) -> Result<(), RunError> {
        let arrival = self.upcoming.take().expect("one is sent at a time");
        self.ask(now, arrival, None);
        self.send_next(now)
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

    fn schedule(&mut self, engine: u32, due: Option<StepDue>) {
        if let Some(StepDue { at, epoch }) = due {
            // Ranked by engine, so that leaping and stepping break ties alike.
            self.queue
                .push_ranked(at, engine, Happening::StepDone { engine, epoch });
        }
    }

    /// Steps that end sooner, or take another time, since the speed of their machine has changed.
    fn schedule_dues(&mut self) {
        let mut dues = core::mem::take(&mut self.fleet.dues);
        for (engine, due) in dues.drain(..) {
            self.schedule(engine, Some(due));
        }
        self.fleet.dues = dues;
    }

    /// A machine says something on its connection.
    fn say(&mut self, now: Tick, link: Link, news: News) {
        let at = self.up(now, self.links.machine(link));
        self.queue.push(at, Happening::Up { link, news });
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
            .engines()
            .map(|machine| u128::from(machine.busy_ns()))
            .sum();
        let steps: u64 = self.fleet.engines().map(|machine| machine.steps).sum();
        let prompts = self.fleet.engines().map(|machine| machine.prompts);
        let prompts = prompts.fold(Prompts::default(), |sum, one| Prompts {
            tokens: sum.tokens + one.tokens,
            cached_tokens: sum.cached_tokens + one.cached_tokens,
        });
        let busy_of_each = (0..self.config.machines_in_all()).map(|ix| self.fleet.busy_ns(ix));
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
            living: self.living.closed(&self.config, &self.fleet),
        });
        let watch = self.watch;
        Ran {
            report,
            record,
            watch,
            profile: self.profile.map(|(_, profile)| profile),
        }
    }
}
