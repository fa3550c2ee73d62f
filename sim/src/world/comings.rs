//! Machines come and go, and the coordinator hears of it as it would in production: by a socket that
//! closes, or by heartbeats that fail to come.

use std::borrow::Cow;

use cereus_core::event::{Event, GoneCause, Trust};
use cereus_core::ids::AccountId;
use cereus_core::time::{Span, Tick};

use super::churn::{AtFirst, Churn, Going, Habit};
use super::links::{Link, Swept};
use super::net::Way;
use super::{Happening, RunError, World, fleet};
use crate::stream::Stream;
use crate::workload::{Arrival, WorkloadError};

/// What can happen to a machine's connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Coming {
    /// The machine dials, unless something else happened to it since.
    Comes {
        machine: u32,
        turn: u32,
    },
    /// It wants to restart, and looks whether it may.
    Drains {
        machine: u32,
        turn: u32,
        looks: u32,
    },
    /// Its session is over, if it still has it.
    Goes {
        machine: u32,
        turn: u32,
    },
    /// The coordinator has closed the connection, and the machine sees that.
    HungUp {
        link: Link,
    },
    Joined {
        link: Link,
    },
    /// The coordinator sees that the socket is gone.
    Left {
        link: Link,
        cause: GoneCause,
    },
    /// The coordinator looks at a connection that may be silent.
    Swept {
        link: Link,
    },
}

/// One machine's habits, and which of its plans still counts.
#[derive(Clone, Debug)]
struct Resident {
    habit: Option<Habit>,
    turn: u32,
}

/// The machines of a world, as far as their coming and going is concerned.
#[derive(Clone, Debug)]
pub(super) struct Residents {
    all: Vec<Resident>,
}

impl Residents {
    pub(super) fn new(churn: Churn, seed: u64, machines: u32) -> Self {
        let resident = |machine| Resident {
            habit: match churn {
                Churn::None => None,
                Churn::Home { hurry } => Some(Habit::new(seed, machine, hurry)),
            },
            turn: 0,
        };
        Self {
            all: (0..machines).map(resident).collect(),
        }
    }

    fn habit(&mut self, machine: u32) -> Option<&mut Habit> {
        self.all[machine as usize].habit.as_mut()
    }

    fn turn(&self, machine: u32) -> u32 {
        self.all[machine as usize].turn
    }

    /// What was planned for the machine does not count any more.
    fn next_turn(&mut self, machine: u32) -> u32 {
        let resident = &mut self.all[machine as usize];
        resident.turn = resident.turn.wrapping_add(1);
        resident.turn
    }
}

/// Between two looks whether a machine that wants to restart has finished what it accepted.
const DRAIN_LOOK: Span = Span::secs(1);
/// What a provider waits for at most: its drain's grace.
const DRAIN_LOOKS_MAX: u32 = 600;
/// Before a machine that never leaves by itself dials again.
const REDIAL: Span = Span::secs(2);

impl<I: Iterator<Item = Result<Arrival, WorkloadError>>> World<I> {
    /// Who is here at first joins within one heartbeat; newcomers come when they are due.
    pub(super) fn settle_machines(&mut self) {
        let mut phases = Stream::new(self.config.seed, "phases");
        for machine in 0..self.config.machines {
            let phase = Tick(phases.below(self.config.heartbeat_every.0));
            let (came, until) = match self.residents.habit(machine).map(Habit::at_first) {
                None => (true, None),
                Some(AtFirst::Here(span)) => (true, Some(span)),
                Some(AtFirst::Away(span)) => (false, Some(span)),
            };
            let turn = self.residents.turn(machine);
            if came {
                let link = self.links.dial(machine);
                self.push(phase, Coming::Joined { link });
                self.living.comes();
            }
            if let Some(until) = until {
                let at = phase + until;
                self.push(
                    at,
                    match came {
                        true => Coming::Goes { machine, turn },
                        false => Coming::Comes { machine, turn },
                    },
                );
            }
        }
        for (machine, newcomer) in (self.config.machines..).zip(self.config.newcomers.clone()) {
            let turn = self.residents.turn(machine);
            let at = Tick::ZERO + super::WARM_UP + newcomer.after;
            self.push(at, Coming::Comes { machine, turn });
        }
    }

    pub(super) fn on_coming(&mut self, now: Tick, coming: Coming) -> Result<(), RunError> {
        match coming {
            Coming::Comes { machine, turn } => {
                if self.residents.turn(machine) == turn {
                    self.comes(now, machine);
                }
                Ok(())
            }
            Coming::Goes { machine, turn } => {
                if self.residents.turn(machine) == turn {
                    self.wants_to_go(now, machine);
                }
                Ok(())
            }
            Coming::Drains {
                machine,
                turn,
                looks,
            } => {
                if self.residents.turn(machine) == turn {
                    self.drains(now, machine, looks);
                }
                Ok(())
            }
            Coming::HungUp { link } => {
                self.hung_up(now, link);
                Ok(())
            }
            Coming::Joined { link } => self.joined(now, link),
            Coming::Left { link, cause } => self.left(now, link, cause),
            Coming::Swept { link } => match self.links.sweep(now, link) {
                Swept::Gone => Ok(()),
                Swept::Again(at) => {
                    self.push(at, Coming::Swept { link });
                    Ok(())
                }
                Swept::Silent => self.left(now, link, GoneCause::Silent),
            },
        }
    }

    fn push(&mut self, at: Tick, coming: Coming) {
        self.queue.push(at, Happening::Coming(coming));
    }

    fn comes(&mut self, now: Tick, machine: u32) {
        let link = self.links.dial(machine);
        let at = self.up(now, machine);
        self.push(at, Coming::Joined { link });
        self.living.comes();
        let turn = self.residents.next_turn(machine);
        if let Some(habit) = self.residents.habit(machine) {
            let until = now + habit.session();
            self.push(until, Coming::Goes { machine, turn });
        }
    }

    fn wants_to_go(&mut self, now: Tick, machine: u32) {
        let habit = self.residents.habit(machine);
        let going = habit.expect("only who has habits goes").going();
        match going {
            Going::SaysGoodbye => {
                self.fleet.drain(machine);
                self.drains(now, machine, 0);
            }
            Going::Crashes
            | Going::LosesConnection
            | Going::SleepsClosed
            | Going::SleepsSilently => self.goes(now, machine, going),
        }
    }

    /// A goodbye waits for what was accepted.
    fn drains(&mut self, now: Tick, machine: u32, looks: u32) {
        if self.fleet.is_idle(machine) || looks == DRAIN_LOOKS_MAX {
            return self.goes(now, machine, Going::SaysGoodbye);
        }
        let turn = self.residents.turn(machine);
        let looks = looks + 1;
        self.push(
            now + DRAIN_LOOK,
            Coming::Drains {
                machine,
                turn,
                looks,
            },
        );
    }

    fn goes(&mut self, now: Tick, machine: u32, going: Going) {
        let turn = self.residents.next_turn(machine);
        let Some(link) = self.hang_up(now, machine, going) else {
            return;
        };
        match going {
            Going::SleepsSilently => {
                self.links.heard(self.fleet.beat_at(machine), link);
                let at = self.links.next_sweep(now, link);
                self.push(at, Coming::Swept { link });
            }
            Going::Crashes | Going::LosesConnection | Going::SleepsClosed => {
                let cause = GoneCause::Lost;
                let at = self.up(now, machine);
                self.push(at, Coming::Left { link, cause });
            }
            Going::SaysGoodbye => {
                let cause = GoneCause::Closed;
                let at = self.up(now, machine);
                self.push(at, Coming::Left { link, cause });
            }
        }
        let habit = self.residents.habit(machine);
        match habit.expect("only who has habits goes").away(going) {
            Some(away) => self.push(now + away, Coming::Comes { machine, turn }),
            None => self.living.stays_away(),
        }
    }

    /// The machine's end is gone, and with it all that it was working on.
    fn hang_up(&mut self, now: Tick, machine: u32, going: Going) -> Option<Link> {
        let link = self.links.drop(machine)?;
        let rows = match going {
            Going::Crashes => self.fleet.restart(machine, now),
            Going::LosesConnection
            | Going::SaysGoodbye
            | Going::SleepsClosed
            | Going::SleepsSilently => self.fleet.drop_rows(machine, now),
        };
        self.end_housed(now, machine);
        self.living.goes(going, rows as u64);
        Some(link)
    }

    fn hung_up(&mut self, now: Tick, link: Link) {
        if !self.links.is_held(link) {
            return;
        }
        let machine = self.links.machine(link);
        self.hang_up(now, machine, Going::LosesConnection);
        let turn = self.residents.next_turn(machine);
        let redial = self.residents.habit(machine).map_or(REDIAL, Habit::redial);
        self.push(now + redial, Coming::Comes { machine, turn });
    }

    fn joined(&mut self, now: Tick, link: Link) -> Result<(), RunError> {
        self.links.open(now, link);
        let machine = self.links.machine(link);
        let joined = Event::ProviderJoined {
            conn: link.conn(),
            machine: fleet::machine_id(machine),
            owner: AccountId(u64::from(self.config.accounts) + 1 + u64::from(machine)),
            trust: Trust::Hardware,
            spec: self.fleet.spec(machine),
            models: Cow::Owned(self.fleet.models(machine)),
        };
        self.tell(now, &joined)?;
        // A report and a challenge follow the registration at once.
        self.queue.push(now, Happening::Beat { link });
        self.queue.push(now, Happening::Challenge { link });
        Ok(())
    }

    fn left(&mut self, now: Tick, link: Link, cause: GoneCause) -> Result<(), RunError> {
        if !self.links.close(link) {
            return Ok(());
        }
        self.living.is_missed(cause);
        let conn = link.conn();
        self.tell(now, &Event::ProviderLeft { conn, cause })
    }

    /// The core has closed a connection.
    pub(super) fn disconnect(&mut self, now: Tick, link: Link, cause: GoneCause) {
        if !self.links.close(link) {
            return;
        }
        self.living.is_missed(cause);
        let machine = self.links.machine(link);
        let at = self.net.arrival(now, machine as usize, Way::ToMachine);
        self.push(at, Coming::HungUp { link });
    }
}
