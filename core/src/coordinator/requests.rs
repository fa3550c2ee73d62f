//! The requests that are alive: what each asked, how far it has come, and what it has been promised.
//! Nothing here decides; each function says what it found.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::books::{Account, Hold, Settled};
use super::fleet::{MachineTag, Want};
use super::terms::Terms;
use super::verdict::Opinion;
use crate::effect::Receipt;
use crate::event::{Ask, Delivery, Usage};
use crate::ids::{MachineId, RequestId};
use crate::lookup::Lookup;
use crate::money::MicroUsd;
use crate::slab::{Key, Slab};
use crate::time::Tick;

/// Most attempts of one request that can be remembered.
pub(super) const TRIED_MAX: usize = 8;
/// Attempts of one request that may be out at a time.
pub(super) const RACERS_MAX: usize = 2;

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Phase {
    Queued,
    /// Its attempts are out: one, or more until the first content.
    Running,
    /// The consumer left after content; the attempt's terminal settles what was streamed.
    Parked,
    /// Settled; the last bytes wait for the settlement to be durable.
    Settling,
    // Digests and snapshots hold the position: what is newer stands below.
    /// Its consumer was told of an end before it was settled; the receipt waits for the settlement to
    /// be durable.
    Billed,
}

/// The attempts of one request that are out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Racing([Option<Key>; RACERS_MAX]);

impl Racing {
    pub(super) fn iter(&self) -> impl Iterator<Item = Key> + use<> {
        self.0.into_iter().flatten()
    }

    pub(super) fn count(&self) -> usize {
        self.iter().count()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// The other attempts.
    pub(super) fn rivals_of(&self, attempt: Key) -> impl Iterator<Item = Key> + use<> {
        self.iter().filter(move |other| *other != attempt)
    }

    fn add(&mut self, attempt: Key) {
        let place = self.0.iter_mut().find(|place| place.is_none());
        *place.expect("the caller looked for room") = Some(attempt);
    }

    fn remove(&mut self, attempt: Key) {
        for place in &mut self.0 {
            place.take_if(|held| *held == attempt);
        }
    }
}

/// Who gave the answer, and when it was where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Served {
    pub(super) machine: MachineId,
    pub(super) dispatched_at: Tick,
    pub(super) accepted_at: Tick,
    pub(super) started_at: Tick,
}

/// What an answer came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Bill {
    served: Served,
    usage: Usage,
    charged: MicroUsd,
    payout: MicroUsd,
    /// The transfer that settled it.
    transfer: u64,
    completed_at: Tick,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Request {
    ask: Ask,
    phase: Phase,
    racing: Racing,
    terms: Terms,
    /// Taken when it is settled or voided.
    hold: Option<Hold>,
    held: MicroUsd,
    is_hold_durable: bool,
    is_released: bool,
    /// Content must have begun by then, whatever fails or waits until then.
    deadline: Tick,
    /// What its answer will have, more or less.
    output_tokens: u32,
    attempts: u8,
    capacity_refusals: u8,
    tried: [MachineTag; TRIED_MAX],
    /// What machines said against the request itself.
    opinions: SmallVec<[Opinion; 1]>,
    bill: Option<Bill>,
    arrived_at: Tick,
}

impl Request {
    pub(super) const fn ask(&self) -> &Ask {
        &self.ask
    }

    pub(super) const fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) const fn racing(&self) -> Racing {
        self.racing
    }

    pub(super) const fn terms(&self) -> &Terms {
        &self.terms
    }

    pub(super) const fn hold(&self) -> Option<&Hold> {
        self.hold.as_ref()
    }

    pub(super) const fn deadline(&self) -> Tick {
        self.deadline
    }

    pub(super) const fn arrived_at(&self) -> Tick {
        self.arrived_at
    }

    pub(super) const fn attempts(&self) -> u8 {
        self.attempts
    }

    pub(super) fn opinions(&self) -> &[Opinion] {
        &self.opinions
    }

    /// What it looks for in a machine.
    pub(super) fn want(&self) -> Want<'_> {
        Want {
            nth: self.attempts,
            tried: self.tried(),
            ..Want::of(&self.ask, self.output_tokens)
        }
    }

    /// The one attempt that is out, if it is one.
    pub(super) fn only_attempt(&self) -> Option<Key> {
        let mut racing = self.racing.iter();
        racing.next().filter(|_| racing.next().is_none())
    }

    pub(super) fn has_tried(&self, machine: MachineTag) -> bool {
        self.tried().contains(&machine)
    }

    pub(super) fn tried(&self) -> &[MachineTag] {
        &self.tried[..usize::from(self.attempts).min(TRIED_MAX)]
    }

    /// Whether the consumer may have seen something of an attempt that has started. What nobody has
    /// seen can be done again.
    pub(super) const fn is_shown(&self) -> bool {
        match self.ask.delivery {
            Delivery::Streamed => self.is_released,
            Delivery::Whole => false,
        }
    }

    pub(super) const fn is_settled_by(&self, transfer: u64) -> bool {
        match &self.bill {
            Some(bill) => bill.transfer == transfer,
            None => false,
        }
    }

    /// See [`Requests::send`].
    fn send(&mut self, attempt: Key, machine: MachineTag) -> u8 {
        assert!(
            !self.has_tried(machine),
            "a retry never goes to a machine that failed it"
        );
        self.phase = Phase::Running;
        self.racing.add(attempt);
        self.tried[usize::from(self.attempts)] = machine;
        self.attempts += 1;
        self.attempts
    }

    pub(super) const fn requeue(&mut self) {
        self.phase = Phase::Queued;
    }

    pub(super) const fn park(&mut self) {
        self.phase = Phase::Parked;
    }

    /// A machine that has served before had no room after all.
    pub(super) const fn count_refusal(&mut self) {
        self.capacity_refusals = self.capacity_refusals.saturating_add(1);
    }

    pub(super) const fn capacity_refusals(&self) -> u8 {
        self.capacity_refusals
    }

    pub(super) fn hear(&mut self, opinion: Opinion) {
        self.opinions.push(opinion);
    }

    pub(super) fn take_opinions(&mut self) -> SmallVec<[Opinion; 1]> {
        core::mem::take(&mut self.opinions)
    }

    pub(super) const fn hold_is_durable(&mut self) {
        self.is_hold_durable = true;
    }

    /// Content has begun: whether the consumer may see it from this moment on, once, when the hold is
    /// durable (INV-05).
    pub(super) const fn release(&mut self) -> bool {
        let is_due = self.is_hold_durable && !self.is_released;
        self.is_released |= is_due;
        is_due
    }

    /// The money that was set aside for it, once.
    pub(super) const fn take_hold(&mut self) -> Option<Hold> {
        self.hold.take()
    }

    /// What it came to; the last bytes, or the receipt alone, wait until `transfer` is durable.
    pub(super) const fn settle(
        &mut self,
        now: Tick,
        transfer: u64,
        served: Served,
        usage: Usage,
        settled: Settled,
    ) {
        self.phase = match self.phase {
            Phase::Parked => Phase::Billed,
            Phase::Billed | Phase::Queued | Phase::Running | Phase::Settling => Phase::Settling,
        };
        self.bill = Some(Bill {
            served,
            usage,
            charged: settled.charged,
            payout: settled.payout,
            transfer,
            completed_at: now,
        });
    }

    /// The receipt of what was settled, for an account that looks like this now.
    pub(super) const fn is_settled(&self) -> bool {
        self.bill.is_some()
    }

    pub(super) fn receipt(&self, account: &Account) -> Receipt {
        let bill = self.bill.as_ref().expect("it was settled");
        Receipt {
            request: self.ask.request,
            account: self.ask.account,
            machine: bill.served.machine,
            model: self.ask.model,
            attempts: self.attempts,
            usage: bill.usage,
            price: self.terms.price,
            held: self.held,
            charged: bill.charged,
            lines: self.terms.lines(bill.usage, bill.charged),
            payout: bill.payout,
            balance_before: account.available + bill.charged,
            balance_after: account.available,
            arrived_at: self.arrived_at,
            dispatched_at: bill.served.dispatched_at,
            accepted_at: bill.served.accepted_at,
            started_at: bill.served.started_at,
            completed_at: bill.completed_at,
        }
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Requests {
    alive: Slab<Request>,
    by_id: Lookup<RequestId>,
    /// Those that have more than one attempt out.
    racing_count: u32,
}

impl Requests {
    pub(super) fn new(count_max: u32) -> Self {
        Self {
            alive: Slab::with_limit(count_max),
            by_id: Lookup::default(),
            racing_count: 0,
        }
    }

    pub(super) const fn set_limit(&mut self, count_max: u32) {
        self.alive.set_limit(count_max);
    }

    pub(super) fn has_room(&self) -> bool {
        self.alive.has_room()
    }

    pub(super) fn count(&self) -> usize {
        self.alive.count()
    }

    pub(super) fn find(&self, id: RequestId) -> Option<Key> {
        self.by_id.get(id).map(|slot| self.alive.key_at(slot))
    }

    /// A request was admitted: it waits, on these terms, and must have begun by `deadline`. The caller
    /// saw that there is room and that its id is new.
    pub(super) fn admit(
        &mut self,
        now: Tick,
        ask: Ask,
        terms: Terms,
        hold: Hold,
        deadline: Tick,
        output_tokens: u32,
    ) -> Key {
        let request = Request {
            ask,
            phase: Phase::Queued,
            racing: Racing::default(),
            terms,
            held: hold.amount,
            hold: Some(hold),
            is_hold_durable: false,
            is_released: false,
            deadline,
            output_tokens,
            attempts: 0,
            capacity_refusals: 0,
            tried: [MachineTag::NOBODY; TRIED_MAX],
            opinions: SmallVec::new(),
            bill: None,
            arrived_at: now,
        };
        let key = self.alive.insert(request).expect("there is room");
        self.by_id.insert(ask.request, key.slot);
        key
    }

    pub(super) fn get(&self, key: Key) -> Option<&Request> {
        self.alive.get(key)
    }

    pub(super) fn at(&self, key: Key) -> &Request {
        self.get(key).expect("a live request")
    }

    pub(super) fn at_mut(&mut self, key: Key) -> &mut Request {
        self.alive.get_mut(key).expect("a live request")
    }

    /// It goes to a machine. Returns which attempt this is, from 1.
    pub(super) fn send(&mut self, key: Key, attempt: Key, machine: MachineTag) -> u8 {
        let request = self.at_mut(key);
        let nth = request.send(attempt, machine);
        let is_second = request.racing.count() > 1;
        self.racing_count += u32::from(is_second);
        nth
    }

    /// An attempt of it is over.
    pub(super) fn unsend(&mut self, key: Key, attempt: Key) {
        let request = self.at_mut(key);
        let had_rivals = request.racing.count() > 1;
        request.racing.remove(attempt);
        self.racing_count -= u32::from(had_rivals);
    }

    /// How many have more than one attempt out.
    pub(super) const fn racing_count(&self) -> u32 {
        self.racing_count
    }

    /// The last act of a request. Its attempts are over and its place in the queue is free.
    pub(super) fn end(&mut self, key: Key) -> Request {
        let request = self.alive.remove(key).expect("a live request");
        assert!(
            request.racing.is_empty(),
            "a request never ends before its attempts"
        );
        self.by_id.remove(request.ask.request);
        request
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &Request)> {
        self.alive.iter()
    }
}
