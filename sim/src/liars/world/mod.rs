//! The world of one seed: the coordinator, and what is around it, one event after the other.

use std::collections::BTreeMap;

use cereus_core::coordinator::Coordinator;
use cereus_core::effect::{Effect, Effects};
use cereus_core::event::{Ask, AttemptFault, Delivery, Event, GoneCause};
use cereus_core::ids::{AccountId, AttemptKey, ConnId, MachineId, RequestId};
use cereus_core::money::MicroUsd;
use cereus_core::time::{Span, Tick};

use super::judge::{Choice, Judge};
use super::machine::{MODEL, Machine};
use super::plan::{CONSUMERS, Lie, PROMPT_BYTES, Plan};
use super::script::{self, Act, Answer, Truth};
use super::{Plant, Tally};
use crate::oracle::{Violation, require};
use crate::queue::EventQueue;
use crate::stream::Stream;
use crate::swarm::Failure;

/// The consumer whose text may be of another kind.
const UNUSUAL: AccountId = AccountId(1);
const BEAT: Span = Span::secs(5);
const BEAT_OFTEN: Span = Span::secs(1);
/// Challenges are passed each so many reports.
const BEATS_PER_CHALLENGE: u64 = 60;
const DISK: Span = Span::millis(4);
/// Until a recorded registration fails its challenge.
const UNPROVEN: Span = Span::secs(3);
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

    fn arrives(&mut self, number: u32) -> Checked {
        let stream = &mut self.chance;
        let prompt_bytes = PROMPT_BYTES[usize::try_from(stream.below(4)).expect("four")];
        let most = u64::from(self.plan.output_tokens_most);
        let output_tokens = u32::try_from(stream.between(1, most)).expect("few");
        let spare = u32::try_from(stream.between(0, most)).expect("few");
        let account = AccountId(1 + stream.below(CONSUMERS.into()));
        let unusual_milli = self.plan.unusual_milli.filter(|_| account == UNUSUAL);
        let text_milli = unusual_milli.unwrap_or(self.plan.text_milli);
        let truth = Truth {
            prompt_bytes,
            text_milli,
            prompt_tokens: prompt_bytes * 1_000 / text_milli + self.plan.template,
            output_tokens_max: output_tokens + spare,
            output_tokens,
        };
        let delivery = match stream.below(4) {
            0 => Delivery::Whole,
            _ => Delivery::Streamed,
        };
        let pause = Span(stream.exponential(self.plan.mean_between.0));
        self.asked.push(Asked {
            truth,
            asked_at: self.now,
            tried: 0,
            speaks: None,
            answered: None,
            is_over: false,
            was_cut_off: false,
        });
        self.open += 1;
        if number == self.plan.asks / 2 {
            self.judge.half_is_over(self.now, self.plan);
        }
        if number + 1 < self.plan.asks {
            self.queue.push(self.now + pause, What::Arrives(number + 1));
        }
        self.step(&Event::Arrived(Ask {
            prompt_tokens: prompt_bytes / Ask::BYTES_PER_TOKEN,
            prompt_tokens_bound: prompt_bytes + 64,
            output_tokens_max: truth.output_tokens_max,
            delivery,
            ..Ask::new(RequestId(u128::from(number)), account, MODEL)
        }))
    }

    fn joins(&mut self, number: usize) -> Checked {
        if self.machines[number].conn.is_some() {
            return Ok(());
        }
        self.conns += 1;
        let conn = ConnId(self.conns);
        let machine = &mut self.machines[number];
        machine.conn = Some(conn);
        self.by_conn.insert(conn, number);
        let joined = machine.joins(conn);
        let soon = self.now + self.plan.latency + self.plan.latency;
        self.queue.push(soon, What::Proves(number, conn));
        self.queue.push(soon, What::Beats(number, conn));
        self.step(&joined)
    }

    fn beats(&mut self, number: usize, conn: ConnId) -> Checked {
        if self.machines[number].conn != Some(conn) {
            return Ok(());
        }
        let is_busy = self.chance.chance(self.plan.foreign);
        let rows = u64::from(self.machines[number].plan.rows);
        let foreign = if is_busy {
            self.chance.between(1, rows)
        } else {
            0
        };
        // Rows of ours that the coordinator does not know to run: it takes them for others' work.
        let ours = self
            .tries
            .values()
            .filter(|attempt| attempt.machine == number);
        let known = ours.filter(|attempt| attempt.has_row && attempt.is_accepted);
        let known = u32::try_from(known.count()).expect("few");
        let machine = &mut self.machines[number];
        let taken_for_others = machine.running.saturating_sub(known);
        machine.seq += 1;
        machine.is_ready = true;
        machine.lingering = 0;
        let report = machine.reports(conn);
        machine.foreign_told = machine.foreign + taken_for_others;
        if machine.is_honest() {
            // It changes when it was told, so that what is believed is stale until the next report.
            machine.foreign = u32::try_from(foreign).expect("few rows");
        }
        let seq = machine.seq;
        let is_often = machine.plan.liar.is_some_and(|liar| liar.reports_often);
        let pause = if is_often { BEAT_OFTEN } else { BEAT };
        self.queue.push(self.now + pause, What::Beats(number, conn));
        if is_often || seq.is_multiple_of(BEATS_PER_CHALLENGE) {
            self.queue.push(self.now, What::Proves(number, conn));
        }
        self.step(&report)?;
        if self.machines[number].is_honest() {
            require(!self.core.is_barred(conn), "INV-28", || {
                format!("machine {number} is honest and barred")
            })?;
        }
        Ok(())
    }

    /// A connection ends with all that it carries; the machine comes back.
    fn leaves(&mut self, number: usize, cause: GoneCause, back_after: Span) -> Checked {
        let Some(conn) = self.machines[number].conn else {
            return Ok(());
        };
        self.cut_off(number);
        self.queue.push(self.now + back_after, What::Joins(number));
        self.step(&Event::ProviderLeft { conn, cause })
    }

    fn cut_off(&mut self, number: usize) {
        let Some(conn) = self.machines[number].conn else {
            return;
        };
        self.by_conn.remove(&conn);
        self.machines[number].disconnected();
        for attempt in self.tries.values().filter(|attempt| attempt.conn == conn) {
            self.asked[attempt.request as usize].was_cut_off = true;
        }
        self.tries.retain(|_, attempt| attempt.conn != conn);
    }

    /// Somebody shows what an honest machine said when it registered, and speaks of its attempts.
    fn replays(&mut self, number: usize) -> Checked {
        let honest: Vec<usize> = (0..self.machines.len())
            .filter(|&ix| self.machines[ix].is_honest())
            .collect();
        let victim = honest[usize::try_from(self.chance.below(honest.len() as u64)).expect("few")];
        self.conns += 1;
        let conn = ConnId(self.conns);
        let joined = self.machines[victim].joins(conn);
        self.step(&joined)?;
        let attempts = self.tries.iter();
        let attempts = attempts.filter(|(_, attempt)| attempt.machine == victim);
        let attempt = attempts.map(|(&key, _)| key).next();
        if let Some(attempt) = attempt {
            let truth = self.asked[self.tries[&attempt].request as usize].truth;
            let script = script::lying(
                Lie::OverClaim,
                &self.machines[victim],
                &truth,
                &mut self.chance,
            );
            if let Some(&(_, Act::Complete(answer))) = script.last() {
                self.step(&completed(conn, attempt, answer))?;
            }
        }
        self.queue.push(self.now + UNPROVEN, What::Ends(conn));
        let pause = Span(self.chance.between(300_000, 6_000_000));
        self.queue.push(self.now + pause, What::Replays(number));
        Ok(())
    }

    /// A request reaches a machine.
    fn came(&mut self, key: AttemptKey) -> Checked {
        let Some(&attempt) = self.tries.get(&key) else {
            return Ok(());
        };
        let truth = self.asked[attempt.request as usize].truth;
        let machine = &mut self.machines[attempt.machine];
        let script = match attempt.lie {
            Some(lie) => script::lying(lie, machine, &truth, &mut self.chance),
            None => script::honest(machine, &truth),
        };
        if machine.can_take() {
            machine.running += 1;
            self.tries.get_mut(&key).expect("just found").has_row = true;
        }
        for (after, act) in script {
            // Back over the same way.
            let at = self.now + after + self.plan.latency;
            self.queue.push(at, What::Act(key, act));
        }
        Ok(())
    }

    fn act(&mut self, key: AttemptKey, act: Act) -> Checked {
        let Some(&attempt) = self.tries.get(&key) else {
            return Ok(());
        };
        let conn = attempt.conn;
        let asked = &mut self.asked[attempt.request as usize];
        match act {
            Act::Accept => {
                self.tries.get_mut(&key).expect("just found").is_accepted = true;
                self.step(&Event::AttemptAccepted { conn, attempt: key })
            }
            Act::Start => {
                asked.speaks = Some(attempt.machine);
                self.step(&Event::AttemptStarted { conn, attempt: key })
            }
            Act::Complete(answer) => {
                let machine = self.machines[attempt.machine].id;
                asked.answered = Some((machine, answer));
                self.ended(key);
                self.step(&completed(conn, key, answer))?;
                self.maybe_reconnects(attempt.machine)
            }
            Act::Fail(fault) => {
                self.ended(key);
                if fault == AttemptFault::Busy {
                    self.machines[attempt.machine].refused_at = Some(self.now);
                }
                self.step(&Event::AttemptFailed {
                    conn,
                    attempt: key,
                    fault,
                })?;
                if fault == AttemptFault::Encryption {
                    // Nothing more comes on this connection.
                    let back_after = Span(self.chance.between(100_000, 3_000_000));
                    return self.leaves(attempt.machine, GoneCause::Closed, back_after);
                }
                self.maybe_reconnects(attempt.machine)
            }
            Act::Progress(shown) => self.step(&Event::AttemptProgressed {
                conn,
                attempt: key,
                shown,
            }),
            Act::HangUp => {
                let back_after = Span(self.chance.between(100_000, 3_000_000));
                self.leaves(attempt.machine, GoneCause::Closed, back_after)
            }
        }
    }

    /// The machine is done with an attempt.
    fn ended(&mut self, key: AttemptKey) {
        let attempt = self.tries.remove(&key).expect("it was there");
        let machine = &mut self.machines[attempt.machine];
        machine.pending -= 1;
        machine.running -= u32::from(attempt.has_row);
    }

    fn maybe_reconnects(&mut self, number: usize) -> Checked {
        let machine = &self.machines[number];
        let after = machine.plan.liar.and_then(|liar| liar.reconnects_after);
        if after.is_none_or(|after| machine.attempts_here < after) {
            return Ok(());
        }
        self.leaves(number, GoneCause::Closed, Span::millis(50))
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

    fn carry_out(&mut self, effect: Effect, effects: &Effects) -> Checked {
        match effect {
            Effect::Alarm { .. }
            | Effect::Drained
            | Effect::LoadModel { .. }
            | Effect::Release { .. }
            | Effect::TellContested { .. } => Ok(()),
            Effect::CancelAttempt { attempt, conn } => {
                self.cancelled(attempt, conn);
                Ok(())
            }
            Effect::Charge { .. } => unreachable!("no consumer leaves: {effect:?}"),
            Effect::Disconnect { conn, .. } => {
                if let Some(&number) = self.by_conn.get(&conn) {
                    require(!self.machines[number].is_honest(), "INV-26", || {
                        format!("the working connection of honest machine {number} is closed")
                    })?;
                    self.cut_off(number);
                    self.queue
                        .push(self.now + Span::secs(1), What::Joins(number));
                }
                Ok(())
            }
            Effect::Dispatch {
                request,
                attempt,
                conn,
                ..
            } => self.dispatched(number_of(request), attempt, conn),
            Effect::Fail { request, denial } => {
                let asked = self.over(request);
                let is_liars = asked
                    .speaks
                    .is_some_and(|machine| !self.machines[machine].is_honest());
                self.tally.broken += 1;
                self.judge.denied(request)?;
                require(is_liars || asked.was_cut_off, "INV-26", || {
                    format!("{request} broke off at an honest machine: {denial:?}")
                })
            }
            Effect::Finish { request, receipt } => {
                let receipt = effects.receipts[receipt as usize];
                self.judge.money.receipted(&receipt);
                let asked = self.over(request);
                self.tally.answered += 1;
                self.judge
                    .finished(&receipt, self.plan, &asked.truth, asked.answered)?;
                let is_empty = asked
                    .answered
                    .is_some_and(|(_, said)| said.shown.pieces == 0);
                if is_empty {
                    self.require_nobody(request, &asked, "got nothing")?;
                }
                Ok(())
            }
            Effect::Post { transfer } => {
                self.judge.posted(&effects.transfers[transfer as usize])?;
                if !self.is_persisting {
                    self.is_persisting = true;
                    self.queue.push(self.now + DISK, What::Persists);
                }
                Ok(())
            }
            Effect::Refuse { request, denial } => {
                let asked = self.over(request);
                self.tally.refused += 1;
                self.judge.denied(request)?;
                self.require_nobody(request, &asked, &format!("was refused with {denial:?}"))
            }
        }
    }

    fn over(&mut self, request: RequestId) -> Asked {
        let asked = &mut self.asked[number_of(request) as usize];
        assert!(!asked.is_over, "a request ends once");
        asked.is_over = true;
        self.open -= 1;
        *asked
    }

    /// INV-26: no honest machine with room was left unasked while there was time.
    fn require_nobody(&self, request: RequestId, asked: &Asked, what: &str) -> Checked {
        let has_time =
            self.now.since(asked.asked_at) < self.core.config().limits.first_content_wait_max;
        let left = self.honest(asked.tried, Machine::has_room);
        let left = left.filter(|_| has_time);
        require(left.is_none(), "INV-26", || {
            let tried: Vec<usize> = (0..self.machines.len())
                .filter(|ix| asked.tried & (1 << ix) != 0)
                .collect();
            format!("{request} {what} while machine {left:?} had room; {tried:?} were tried")
        })
    }

    /// An honest machine that a request has not tried.
    fn honest(&self, tried: u64, can: impl Fn(&Machine, Tick) -> bool) -> Option<usize> {
        let mut machines = self.machines.iter().enumerate();
        let found = machines.find(|(ix, machine)| tried & (1 << ix) == 0 && can(machine, self.now));
        found.map(|(ix, _)| ix)
    }

    fn dispatched(&mut self, request: u32, key: AttemptKey, conn: ConnId) -> Checked {
        let number = *self
            .by_conn
            .get(&conn)
            .expect("work goes to proven machines");
        let tried = self.asked[request as usize].tried;
        let others = tried | (1 << number);
        let machine = &mut self.machines[number];
        machine.pending += 1;
        machine.attempts += 1;
        machine.attempts_here += 1;
        let lie = machine.plan.liar.and_then(|liar| {
            let is_served = liar
                .serves_each
                .is_some_and(|each| machine.attempts.is_multiple_of(each));
            match liar.lie {
                _ if is_served => None,
                Lie::Mixed => {
                    let ix = self.chance.below(Lie::SINGLE.len() as u64);
                    Some(Lie::SINGLE[usize::try_from(ix).expect("few")])
                }
                lie => Some(lie),
            }
        });
        let is_free = match lie {
            None => true,
            Some(lie) if lie.is_slow() => self.honest(others, Machine::is_idle).is_some(),
            Some(_) => self.honest(others, Machine::has_room).is_some(),
        };
        let choice = if is_free {
            Choice::Free
        } else {
            Choice::Forced
        };
        self.judge.dispatched(number, choice, lie.is_some());
        self.tally.attempts += 1;
        self.asked[request as usize].tried = others;
        self.tries.insert(
            key,
            Try {
                request,
                machine: number,
                conn,
                lie,
                has_row: false,
                is_accepted: false,
            },
        );
        self.queue
            .push(self.now + self.plan.latency, What::Came(key));
        Ok(())
    }

    fn cancelled(&mut self, key: AttemptKey, conn: ConnId) {
        let Some(attempt) = self.tries.remove(&key) else {
            return;
        };
        let machine = &mut self.machines[attempt.machine];
        machine.pending -= 1;
        machine.lingering += 1;
        if attempt.has_row {
            let at = self.now + self.plan.latency;
            self.queue.push(at, What::Freed(attempt.machine, conn));
        }
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

fn completed(conn: ConnId, attempt: AttemptKey, answer: Answer) -> Event<'static> {
    Event::AttemptCompleted {
        conn,
        attempt,
        usage: answer.usage,
        shown: answer.shown,
        ending: answer.ending,
    }
}
