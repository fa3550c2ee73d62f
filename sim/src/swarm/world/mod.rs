//! One swarm world: its loop, its faults, its end.

mod consumers;
mod ending;
mod machines;
mod process;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cereus_core::agent::{AgentEvent, SessionId};
use cereus_core::digest::Mix;
use cereus_core::ids::{AccountId, ConnId};
use cereus_core::time::{Span, Tick};

use super::clock::Clock;
use super::coordinator::recording::Torn;
use super::coordinator::{CoordinatorProcess, Heard, ProcessEffect, Surroundings, Task};
use super::disk::Disk;
use super::marks::Mark;
use super::net::Net;
use super::people::{Fidelity, Person};
use super::plan::Plan;
use super::provider::{Act, Provider};
use super::turns::Turns;
use super::{Failure, Plant, Tally, Trial};
use crate::oracle::{MoneyModel, Violation, require};
use crate::queue::EventQueue;
use crate::stream::Stream;

/// After healing: a fresh request for each model must be answered, and by then everything has ended.
const PROBE_AFTER: Span = Span::secs(100);
const END_AFTER: Span = Span::secs(400);
/// The operators' account, and the one that probes, beyond the consumers'.
const OWNER: AccountId = AccountId(1_000);
const PROBER: u32 = 900;

enum Happening {
    AskArrived {
        number: u32,
    },
    Asked {
        number: u32,
    },
    DialFailed {
        machine: u32,
        life: u32,
        session: SessionId,
    },
    Dialled {
        machine: u32,
        life: u32,
        session: SessionId,
    },
    DiskHeard {
        life: u64,
        up_to: u64,
    },
    DiskWritten {
        life: u64,
    },
    Down {
        conn: ConnId,
        frame: Vec<u8>,
    },
    DownClosed {
        conn: ConnId,
    },
    /// The coordinator's process ends as it was asked to.
    Drained {
        life: u64,
    },
    Faulted {
        ix: usize,
    },
    Healed,
    Left {
        number: u32,
    },
    CoordinatorBack,
    Pong {
        conn: ConnId,
    },
    Probe,
    /// The turn of a task of the coordinator's process.
    Ran {
        task: Task,
        life: u64,
    },
    Read {
        number: u32,
        is_last: bool,
    },
    Repeated {
        number: u32,
    },
    StepDone {
        machine: u32,
        epoch: u32,
    },
    Up {
        conn: ConnId,
        frame: Vec<u8>,
    },
    UpClosed {
        conn: ConnId,
    },
    Woke {
        who: Sleeper,
        life: u64,
    },
    WriteDone {
        conn: ConnId,
    },
}

/// Who wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sleeper {
    Agent(u32),
    Task(Task),
}

struct Post {
    provider: Provider,
    life: u32,
    socket: Option<(SessionId, ConnId)>,
}

/// See the module.
pub(super) struct World {
    plan: Plan,
    trial: Trial,
    queue: EventQueue<Happening>,
    coordinator: Option<CoordinatorProcess>,
    /// How many processes the coordinator had.
    life: u64,
    money: MoneyModel,
    disk: Disk,
    /// The newest number that any process of the coordinator knew to be on the disk.
    heard: u64,
    clock: Clock,
    /// What the last process left of its journal.
    torn: Torn,
    tears: Stream,
    net: Net,
    turns: Turns,
    posts: Vec<Post>,
    people: Vec<Person>,
    wakes: BTreeMap<Sleeper, Tick>,
    stale_beats: Stream,
    effects: Vec<ProcessEffect>,
    acts: Vec<Act>,
    tally: Tally,
    digest: Mix,
    is_probed: bool,
}

impl World {
    pub(super) fn new(plan: Plan, trial: &Trial) -> Self {
        let posts = (0u32..).zip(&plan.machines).map(|(ix, planned)| Post {
            provider: Provider::new(&plan, ix, planned),
            life: 0,
            socket: None,
        });
        let people = (0u32..).zip(&plan.asks);
        let fidelity = match plan.garbles() {
            true => Fidelity::Garbled,
            false => Fidelity::Exact,
        };
        Self {
            posts: posts.collect(),
            people: people
                .map(|(number, ask)| Person::new(number, *ask, fidelity))
                .collect(),
            queue: EventQueue::new(),
            coordinator: None,
            life: 0,
            money: MoneyModel::new(),
            disk: Disk::new(&plan),
            heard: 0,
            clock: match trial.plant {
                Some(Plant::ClockGoesBack) => Clock::going_back(),
                Some(_) | None => Clock::default(),
            },
            net: Net::new(&plan),
            turns: Turns::new(&plan),
            wakes: BTreeMap::new(),
            stale_beats: Stream::new(plan.seed, "stale beats"),
            effects: Vec::new(),
            acts: Vec::new(),
            tally: Tally::default(),
            digest: Mix::default(),
            is_probed: false,
            torn: Torn::default(),
            tears: Stream::new(plan.seed, "tears"),
            trial: trial.clone(),
            plan,
        }
    }

    /// A panic is a broken law like any other, and is told with its seed.
    pub(super) fn run(mut self) -> Result<Tally, Failure> {
        let ran = catch_unwind(AssertUnwindSafe(|| self.live()));
        let result = ran.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(Violation {
                law: "an assertion",
                what: text.unwrap_or_default(),
            })
        });
        match result {
            Ok(()) => Ok(self.tally),
            Err(violation) => Err(Failure {
                seed: self.plan.seed,
                at: self.queue.now(),
                violation,
            }),
        }
    }

    /// INV-15: everything that was asked ends in time.
    fn live(&mut self) -> Result<(), Violation> {
        self.schedule();
        self.start_coordinator(Tick::ZERO)?;
        while let Some((now, happening)) = self.queue.pop() {
            self.tally.events += 1;
            self.handle(now, happening)?;
            if self.is_probed && self.is_over() {
                return self.conclude();
            }
            require(now < self.plan.heals_at + END_AFTER, "INV-15", || {
                self.stuck()
            })?;
        }
        Err(Violation {
            law: "INV-15",
            what: "the world ran out of events".to_owned(),
        })
    }

    fn schedule(&mut self) {
        for (machine, planned) in (0u32..).zip(&self.plan.machines.clone()) {
            if planned.joins_at != Tick::NEVER {
                self.arm(Tick::ZERO, planned.joins_at, Sleeper::Agent(machine));
            }
        }
        for person in self.people.iter().filter(|person| person.is_coming()) {
            let number = person.number;
            self.queue.push(person.ask.at, Happening::Asked { number });
        }
        for (ix, timed) in self.plan.faults.iter().enumerate() {
            self.queue.push(timed.at, Happening::Faulted { ix });
        }
        self.queue.push(self.plan.heals_at, Happening::Healed);
        let coming = self.people.iter().filter(|person| person.is_coming());
        let probe_at = coming.map(|person| person.ask.at).max();
        let probe_at = probe_at.unwrap_or_default().max(self.plan.heals_at) + PROBE_AFTER;
        self.queue.push(probe_at, Happening::Probe);
    }

    fn handle(&mut self, now: Tick, happening: Happening) -> Result<(), Violation> {
        match happening {
            Happening::AskArrived { number } => self.ask_arrived(now, number),
            Happening::Asked { number } => {
                self.asked(now, number);
                Ok(())
            }
            Happening::Repeated { number } => self.repeated(now, number),
            Happening::Left { number } => self.left(now, number),
            Happening::Ran { task, life } if life == self.life => {
                self.with_coordinator(now, |coordinator, by| coordinator.run(by.now, task, by))
            }
            Happening::Ran { .. } => Ok(()),
            Happening::Read { number, is_last } => self.read(number, is_last),
            Happening::Dialled {
                machine,
                life,
                session,
            } => {
                self.dialled(now, machine, life, session);
                Ok(())
            }
            Happening::DialFailed {
                machine,
                life,
                session,
            } => {
                self.dial_failed(now, machine, life, session);
                Ok(())
            }
            Happening::Pong { conn } => {
                self.pong(now, conn);
                Ok(())
            }
            Happening::StepDone { machine, epoch } => {
                self.with_provider(now, machine, |provider, acts| {
                    provider.step_done(now, epoch, acts);
                });
                Ok(())
            }
            Happening::Up { conn, frame } => {
                self.tally.frames += 1;
                self.with_coordinator(now, |coordinator, by| {
                    coordinator.hear(conn, Heard::Frame(frame), by);
                    Ok(())
                })
            }
            Happening::UpClosed { conn } => {
                self.net.socket(conn).is_coordinator_open = false;
                self.with_coordinator(now, |coordinator, by| {
                    coordinator.hear(conn, Heard::Closed, by);
                    Ok(())
                })
            }
            Happening::WriteDone { conn } => {
                if !self.net.socket(conn).is_coordinator_open {
                    return Ok(());
                }
                self.with_coordinator(now, |coordinator, by| {
                    coordinator.hear(conn, Heard::Written, by);
                    Ok(())
                })
            }
            Happening::Down { conn, frame } => {
                self.down(now, conn, &frame);
                Ok(())
            }
            Happening::DownClosed { conn } => {
                self.down_closed(now, conn);
                Ok(())
            }
            Happening::DiskHeard { life, up_to } if self.is_living(life) => {
                self.disk_heard(now, up_to)
            }
            Happening::DiskWritten { life } if self.is_living(life) => self.disk_written(now),
            Happening::DiskHeard { .. } | Happening::DiskWritten { .. } => Ok(()),
            Happening::Woke { who, life } => self.woke(now, who, life),
            Happening::Drained { life } if self.is_living(life) => {
                self.crash_coordinator(now, Span::secs(1))
            }
            Happening::Drained { .. } => Ok(()),
            Happening::Faulted { ix } => self.fault(now, ix),
            Happening::CoordinatorBack => self.start_coordinator(now),
            Happening::Healed => self.heal(now),
            Happening::Probe => self.probe(now),
        }
    }

    fn mark(&mut self, name: &'static str) {
        self.tally.marks.hit(Mark::World(name));
    }

    /// Whether the coordinator's process of that number is up.
    fn is_living(&self, life: u64) -> bool {
        life == self.life && self.coordinator.is_some()
    }

    /// Steps the coordinator, if it is up, and does what it asks for.
    fn with_coordinator(
        &mut self,
        now: Tick,
        step: impl FnOnce(&mut CoordinatorProcess, &mut Surroundings<'_>) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        let Some(mut coordinator) = self.coordinator.take() else {
            return Ok(());
        };
        let mut effects = core::mem::take(&mut self.effects);
        let mut surroundings = Surroundings {
            now: self.clock.read(now),
            money: &mut self.money,
            effects: &mut effects,
            order: self.turns.order(),
            steps: 0,
        };
        let stepped = step(&mut coordinator, &mut surroundings);
        self.tally.core_steps += surroundings.steps;
        self.coordinator = Some(coordinator);
        stepped?;
        for effect in effects.drain(..) {
            self.carry_out(now, effect)?;
        }
        self.effects = effects;
        if let Some(at) = self.disk.begin(now) {
            self.queue
                .push(at, Happening::DiskWritten { life: self.life });
        }
        Ok(())
    }

    fn carry_out(&mut self, now: Tick, effect: ProcessEffect) -> Result<(), Violation> {
        match effect {
            ProcessEffect::Hangup { conn } => {
                self.net.socket(conn).is_coordinator_open = false;
                if let Some(at) = self.net.down(now, conn) {
                    self.queue.push(at, Happening::DownClosed { conn });
                }
            }
            ProcessEffect::Post { transfer } => self.disk.post(transfer),
            ProcessEffect::Run { task } => {
                let (at, rank) = self.turns.draw(now);
                let life = self.life;
                self.queue
                    .push_ranked(at, rank, Happening::Ran { task, life });
            }
            ProcessEffect::Wake { at, task } => {
                self.arm(now, self.clock.world(at), Sleeper::Task(task));
            }
            ProcessEffect::Reply { request, reply } => {
                let number = u32::try_from(request.0 - 1).expect("requests are numbered");
                self.heard(now, number, reply)?;
            }
            ProcessEffect::Write { conn, frame } => {
                if let Some(at) = self.net.write(now, conn) {
                    self.queue.push(at, Happening::WriteDone { conn });
                    if let Some(at) = self.net.down(at, conn) {
                        self.queue.push(at, Happening::Down { conn, frame });
                    }
                }
            }
        }
        Ok(())
    }

    /// Wakes `who` at `at`, unless it wakes earlier anyway.
    fn arm(&mut self, now: Tick, at: Tick, who: Sleeper) {
        let armed = self.wakes.get(&who).copied().unwrap_or(Tick::NEVER);
        if at < armed {
            let at = at.max(now);
            self.wakes.insert(who, at);
            let life = self.life;
            self.queue.push(at, Happening::Woke { who, life });
        }
    }

    fn woke(&mut self, now: Tick, who: Sleeper, life: u64) -> Result<(), Violation> {
        if self.wakes.get(&who) != Some(&now) {
            return Ok(());
        }
        match who {
            Sleeper::Agent(machine) => {
                self.wakes.remove(&who);
                self.with_provider(now, machine, |provider, acts| {
                    provider.step(now, AgentEvent::Woke, acts);
                });
                Ok(())
            }
            Sleeper::Task(task) if life == self.life => {
                self.wakes.remove(&who);
                self.with_coordinator(now, |coordinator, by| {
                    coordinator.wake(task, by);
                    Ok(())
                })
            }
            Sleeper::Task(_) => Ok(()),
        }
    }
}
