//! The world of one seed: the coordinator, and what is around it, one event after the other.

mod attempts;
mod effects;
mod machines;

use std::collections::BTreeMap;

use cereus_core::coordinator::Coordinator;
use cereus_core::effect::Effects;
use cereus_core::event::{Event, GoneCause};
use cereus_core::ids::{AccountId, AttemptKey, ConnId, MachineId, RequestId};
use cereus_core::money::MicroUsd;
use cereus_core::time::{Span, Tick};

use super::judge::Judge;
use super::machine::Machine;
use super::plan::{CONSUMERS, Lie, Plan};
use super::script::{Act, Answer, Truth};
use super::{Plant, Tally};
use crate::oracle::{Violation, require};
use crate::queue::EventQueue;
use crate::stream::Stream;
use crate::swarm::Failure;

const DISK: Span = Span::millis(4);
/// Steps between two recounts of the core's own invariants.
const STEPS_PER_CHECK: u64 = 1_021;
/// What is asked ends within this after the last arrival, or a request is stuck.
const END: Span = Span::secs(2_000);

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum What {
    Act(AttemptKey, Act),
    /// A connection that shows a recorded registration ends.
    Ends(ConnId),
    Arrives(u32),
    Beats(usize, ConnId),
    Came(AttemptKey),
    /// An honest engine has heard of a cancel.
    Freed(usize, ConnId),
    Flaps(usize),
    Joins(usize),
    Persists,
    Proves(usize, ConnId),
    Replays(usize),
    Wakes,
}

/// One attempt, as it really is.
#[derive(Clone, Copy, Debug)]
struct Try {
    request: u32,
    machine: usize,
    conn: ConnId,
    lie: Option<Lie>,
    /// It takes a row of its engine.
    has_row: bool,
    /// And the coordinator knows.
    is_accepted: bool,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    truth: Truth,
    asked_at: Tick,
    /// Machines that it was sent to, as bits.
    tried: u64,
    /// Whose words its consumer hears.
    speaks: Option<usize>,
    answered: Option<(MachineId, Answer)>,
    is_over: bool,
    was_cut_off: bool,
}

/// See the module.
pub(super) struct World<'p> {
    plan: &'p Plan,
    core: Coordinator,
    now: Tick,
    queue: EventQueue<What>,
    machines: Vec<Machine>,
    by_conn: BTreeMap<ConnId, usize>,
    tries: BTreeMap<AttemptKey, Try>,
    asked: Vec<Asked>,
    open: u32,
    conns: u64,
    is_persisting: bool,
    /// The next wake that is in the queue.
    wakes_at: Tick,
    chance: Stream,
    judge: Judge,
    tally: Tally,
    out: Effects,
}

type Checked = Result<(), Violation>;

impl<'p> World<'p> {
    pub(super) fn new(plan: &'p Plan, plant: Option<Plant>) -> Self {
        let mut core = Coordinator::new(plan.core());
        if let Some(plant) = plant {
            core.dangerous_plant(plant.in_core());
        }
        let machines = plan.machines.iter().enumerate();
        let machines: Vec<_> = machines
            .map(|(number, &planned)| Machine::new(planned, number))
            .collect();
        Self {
            plan,
            core,
            now: Tick::ZERO,
            queue: EventQueue::new(),
            by_conn: BTreeMap::new(),
            tries: BTreeMap::new(),
            asked: Vec::new(),
            open: 0,
            conns: 0,
            is_persisting: false,
            wakes_at: Tick::NEVER,
            chance: Stream::new(plan.seed, "liars at work"),
            judge: Judge::new(machines.len()),
            tally: Tally::default(),
            out: Effects::default(),
            machines,
        }
    }

    pub(super) fn run(mut self) -> Result<Tally, Failure> {
        let ran = self.live().and_then(|()| self.end());
        match ran {
            Ok(()) => Ok(self.tally),
            Err(violation) => Err(Failure {
                seed: self.plan.seed,
                at: self.now,
                violation,
            }),
        }
    }

    fn live(&mut self) -> Checked {
        self.prepare()?;
        let mut last_arrival = None;
        while let Some((at, what)) = self.queue.pop() {
            self.now = at;
            self.happen(what)?;
            if self.asked.len() == self.plan.asks as usize {
                let last = *last_arrival.get_or_insert(at);
                if self.open == 0 {
                    return Ok(());
                }
                require(at.since(last) < END, "INV-15", || {
                    format!("{} requests never ended", self.open)
                })?;
            }
        }
        Ok(())
    }

    fn prepare(&mut self) -> Checked {
        let owners = self.plan.machines.iter().map(|machine| machine.owner);
        let mut accounts: Vec<u64> = owners.chain(1..=CONSUMERS.into()).collect();
        accounts.sort_unstable();
        accounts.dedup();
        for account in accounts {
            let account = AccountId(account);
            let balance = MicroUsd(0);
            self.step(&Event::AccountOpened { account, balance })?;
            if account.0 <= CONSUMERS.into() {
                let amount = MicroUsd(100_000_000);
                let credited = Event::AccountCredited {
                    account,
                    amount,
                    reference: None,
                };
                self.step(&credited)?;
            }
        }
        for (number, machine) in self.plan.machines.iter().enumerate() {
            let replays = machine.liar.is_some_and(|liar| liar.lie == Lie::Replays);
            let what = if replays {
                What::Replays(number)
            } else {
                What::Joins(number)
            };
            self.queue.push(machine.joins_at, what);
        }
        for &(at, machine) in &self.plan.flaps {
            self.queue.push(at, What::Flaps(machine));
        }
        self.queue.push(Tick(10_000_000), What::Arrives(0));
        Ok(())
    }

    fn happen(&mut self, what: What) -> Checked {
        match what {
            What::Act(attempt, act) => self.act(attempt, act),
            What::Arrives(number) => self.arrives(number),
            What::Beats(machine, conn) => self.beats(machine, conn),
            What::Came(attempt) => self.came(attempt),
            What::Ends(conn) => {
                let cause = GoneCause::Violation;
                self.step(&Event::ProviderLeft { conn, cause })
            }
            What::Flaps(machine) => self.leaves(machine, GoneCause::Lost, Span::secs(2)),
            What::Freed(machine, conn) => {
                let machine = &mut self.machines[machine];
                if machine.conn == Some(conn) {
                    machine.running -= 1;
                }
                Ok(())
            }
            What::Joins(machine) => self.joins(machine),
            What::Persists => {
                self.is_persisting = false;
                let up_to = self.core.books().last_seq();
                self.judge.money.persist(up_to)?;
                self.step(&Event::Persisted { up_to })
            }
            What::Proves(machine, conn) if self.machines[machine].conn == Some(conn) => {
                self.step(&Event::ProviderVerified { conn })
            }
            What::Proves(..) => Ok(()),
            What::Replays(machine) => self.replays(machine),
            What::Wakes => {
                self.wakes_at = Tick::NEVER;
                self.step(&Event::Woke)
            }
        }
    }

    /// One step of the core, with all that follows.
    fn step(&mut self, event: &Event<'_>) -> Checked {
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        let stepped = self.core.step(self.now, event, &mut out);
        require(stepped.is_ok(), "a contract", || format!("{stepped:?}"))?;
        self.tally.steps += 1;
        if self.tally.steps.is_multiple_of(STEPS_PER_CHECK) {
            self.core.check();
        }
        for effect in &out.list {
            self.carry_out(*effect, &out)?;
        }
        self.judge.money.require_receipts()?;
        self.out = out;
        if let Some((at, _)) = self.core.next_wake()
            && at < self.wakes_at
        {
            self.wakes_at = at.max(self.now);
            self.queue.push(self.wakes_at, What::Wakes);
        }
        Ok(())
    }

    fn end(&mut self) -> Checked {
        self.core.check();
        self.tally.requests = u64::from(self.plan.asks);
        for (number, machine) in self.plan.machines.iter().enumerate() {
            if machine.liar.is_none() {
                continue;
            }
            let (share, late) = (self.judge.shares[number], self.judge.late_attempts(number));
            self.tally.liars += 1;
            self.tally.lies += share.lies;
            self.tally.late_lies += share.late_lies;
            self.tally.late_attempts += late;
            let permille = share.late_lies * 1_000 / late.max(1);
            self.tally.worst_permille = self.tally.worst_permille.max(permille);
            self.judge.require_rare(number, self.plan)?;
        }
        self.tally.digest = self.core.running_digest();
        Ok(())
    }
}

fn number_of(request: RequestId) -> u32 {
    u32::try_from(request.0).expect("requests are numbered")
}
