//! The control half: the coordinator, the requests that are open, the connections that are registered.

use std::collections::{BTreeMap, VecDeque};

use super::Order;
use crate::config::Config;
use crate::coordinator::{Coordinator, Misuse};
use crate::denial::Denial;
use crate::effect::{Alarm, Effect, Effects, Receipt, Transfer};
use crate::event::{Ask, AttemptFault, Event};
use crate::ids::{AccountId, AttemptKey, ConnId, RequestId, WireId};
use crate::money::MicroUsd;
use crate::relay::{RACING_MAX, RelayEvent};
use crate::time::Tick;

/// What happened, as far as the control half must know more of it than the coordinator does.
#[derive(Debug)]
pub enum ControlEvent<R> {
    /// A request came, with the name of its relay.
    Arrived { ask: Ask, request: R },
    /// Money came in from outside; `deposit` is the number of its row in the store.
    Credited {
        deposit: u64,
        account: AccountId,
        amount: MicroUsd,
    },
    /// Anything else: what connections tell, what became durable, a wake.
    Happened(Event<'static>),
    /// An order of ours found no room on its way to the connection.
    OrderRefused { conn: ConnId, order: Order<R> },
}

/// What the shell does for the control half.
#[derive(Debug)]
pub enum ControlEffect<R> {
    Alarm {
        alarm: Alarm,
        count: u64,
    },
    /// The coordinator took no notice of this deposit: it counts for nobody.
    CreditRefused {
        deposit: u64,
        misuse: Misuse,
    },
    /// A request that was denied after content is charged for what was shown. It was counted when it
    /// ended, and nobody listens any more.
    Charged {
        request: R,
        receipt: Receipt,
    },
    /// The request ends without an answer, or with half of one. Its relay hears next, and its body is
    /// sent nowhere any more.
    Denied {
        request: R,
        denial: Denial,
    },
    /// The last request has ended, and no more come: end the process.
    Drained,
    /// The request ends well. Its relay hears next.
    Finished {
        request: R,
        receipt: Receipt,
    },
    /// Pass an order to the connection's task, or answer [`ControlEvent::OrderRefused`].
    Order {
        conn: ConnId,
        order: Order<R>,
    },
    /// No order goes to this connection any more: end the way to it, and its task will end, if it has
    /// not.
    LetGo {
        conn: ConnId,
    },
    /// Write this to the ledger.
    Post {
        transfer: Transfer,
    },
    /// Tell the request's relay. It concerns the consumer only, so nothing follows from it here.
    Relay {
        request: R,
        event: RelayEvent<'static>,
    },
    /// The consumer may see its answer from now on. Its relay hears next.
    Released {
        request: R,
    },
    /// We told the coordinator what cannot be. Somebody should be told of our mistake.
    WasMisused(Misuse),
}

/// Sees each step of the coordinator: the journal, and the simulator's oracles.
pub trait Witness {
    /// Before the step, so that an event on which the coordinator stops for good is known too.
    fn before(&mut self, now: Tick, event: &Event<'_>);
    fn after(
        &mut self,
        now: Tick,
        event: &Event<'_>,
        stepped: Result<(), Misuse>,
        effects: &Effects,
        core: &Coordinator,
    );
}

/// See the module.
#[derive(Debug)]
pub struct Control<R> {
    core: Coordinator,
    requests: BTreeMap<RequestId, Open<R>>,
    /// Whose attempt each is, of those that are not known to be over.
    attempts: BTreeMap<AttemptKey, RequestId>,
    connections: BTreeMap<ConnId, Verified>,
    verified_count: usize,
    /// What effects gave rise to; handled in turn before the step returns.
    echoes: VecDeque<Event<'static>>,
    effects: Effects,
}

#[derive(Debug)]
struct Open<R> {
    request: R,
    /// Older before newer, as the relay keeps them.
    racing: [Option<AttemptKey>; RACING_MAX],
}

/// Whether the last challenge was passed. For the display: the core keeps its own account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verified {
    No,
    Yes,
}

impl<R: Clone> Control<R> {
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            core: Coordinator::new(config),
            requests: BTreeMap::new(),
            attempts: BTreeMap::new(),
            connections: BTreeMap::new(),
            verified_count: 0,
            echoes: VecDeque::new(),
            effects: Effects::default(),
        }
    }

    #[must_use]
    pub const fn core(&self) -> &Coordinator {
        &self.core
    }

    /// For the proof that oracles notice a bug.
    pub const fn core_mut(&mut self) -> &mut Coordinator {
        &mut self.core
    }

    /// The name of an open request's relay.
    #[must_use]
    pub fn request(&self, id: RequestId) -> Option<&R> {
        self.requests.get(&id).map(|open| &open.request)
    }

    /// Connections that have registered.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// Those of them that passed their last challenge.
    #[must_use]
    pub const fn verified_count(&self) -> usize {
        self.verified_count
    }

    /// One thing happened; here is all that follows. `out` is appended to, in causal order.
    pub fn step(
        &mut self,
        now: Tick,
        event: ControlEvent<R>,
        witness: &mut impl Witness,
        out: &mut Vec<ControlEffect<R>>,
    ) {
        match event {
            ControlEvent::Arrived { ask, request } => {
                let open = Open {
                    request,
                    racing: [None; RACING_MAX],
                };
                // A repeat keeps the first one's place (INV-16).
                self.requests.entry(ask.request).or_insert(open);
                self.tell(now, &Event::Arrived(ask), witness, out);
            }
            ControlEvent::Credited {
                deposit,
                account,
                amount,
            } => {
                let credited = Event::AccountCredited {
                    account,
                    amount,
                    reference: Some(deposit),
                };
                self.tell(now, &credited, witness, out);
            }
            ControlEvent::Happened(event) => self.tell(now, &event, witness, out),
            ControlEvent::OrderRefused { conn, order } => self.on_refused(conn, order, out),
        }
        while let Some(echo) = self.echoes.pop_front() {
            self.tell(now, &echo, witness, out);
        }
    }

    fn tell(
        &mut self,
        now: Tick,
        event: &Event<'_>,
        witness: &mut impl Witness,
        out: &mut Vec<ControlEffect<R>>,
    ) {
        self.note_connection(event, out);
        witness.before(now, event);
        let mut effects = core::mem::take(&mut self.effects);
        effects.clear();
        let stepped = self.core.step(now, event, &mut effects);
        witness.after(now, event, stepped, &effects, &self.core);
        if let Err(misuse) = stepped {
            out.push(match event.credit() {
                Some(deposit) => ControlEffect::CreditRefused { deposit, misuse },
                None => ControlEffect::WasMisused(misuse),
            });
            self.on_misused(event, misuse, out);
        }
        for effect in &effects.list {
            self.carry_out(*effect, &effects, out);
        }
        self.effects = effects;
    }

    fn carry_out(&mut self, effect: Effect, effects: &Effects, out: &mut Vec<ControlEffect<R>>) {
        match effect {
            Effect::Alarm { alarm, count } => out.push(ControlEffect::Alarm { alarm, count }),
            Effect::CancelAttempt { attempt, conn } => {
                self.cancel(attempt, out);
                self.order(conn, Order::Cancel { attempt }, out);
            }
            Effect::Charge { request, receipt } => {
                let receipt = effects.receipts[usize::try_from(receipt).expect("an index of u32")];
                if let Some(Open { request, .. }) = self.close(request) {
                    out.push(ControlEffect::Charged { request, receipt });
                }
            }
            Effect::Disconnect { conn, cause } => self.order(conn, Order::Close { cause }, out),
            Effect::Dispatch {
                request,
                attempt,
                conn,
                wire,
                is_second,
            } => self.dispatch(request, attempt, is_second, (conn, wire), out),
            Effect::Drained => {
                let conns = self.connections.keys();
                out.extend(conns.map(|&conn| ControlEffect::Order {
                    conn,
                    order: Order::Drain,
                }));
                out.push(ControlEffect::Drained);
            }
            Effect::Fail { request, denial } if self.core.keeps(request) => {
                self.deny_and_keep(request, denial, out);
            }
            Effect::Fail { request, denial } | Effect::Refuse { request, denial } => {
                self.deny(request, denial, out);
            }
            Effect::Finish { request, receipt } => {
                let receipt = effects.receipts[usize::try_from(receipt).expect("an index of u32")];
                if let Some(Open { request, .. }) = self.close(request) {
                    let event = RelayEvent::Finished {
                        usage: receipt.usage,
                    };
                    // Who has read the end may ask for the receipt, so that is there first.
                    out.push(ControlEffect::Finished {
                        request: request.clone(),
                        receipt,
                    });
                    out.push(ControlEffect::Relay { request, event });
                }
            }
            Effect::LoadModel { conn, model } => {
                self.order(conn, Order::LoadModel { model }, out);
            }
            Effect::TellContested { conn } => self.order(conn, Order::TellContested, out),
            Effect::TellLossy { conn } => self.order(conn, Order::TellLossy, out),
            Effect::Post { transfer } => {
                let ix = usize::try_from(transfer).expect("an index of u32");
                let transfer = effects.transfers[ix];
                out.push(ControlEffect::Post { transfer });
            }
            Effect::Release { request, .. } => {
                if let Some(open) = self.requests.get(&request) {
                    let request = open.request.clone();
                    out.push(ControlEffect::Released {
                        request: request.clone(),
                    });
                    let event = RelayEvent::Released;
                    out.push(ControlEffect::Relay { request, event });
                }
            }
        }
    }

    /// The relay hears of the attempt before its connection does, and so in the order of decisions.
    fn dispatch(
        &mut self,
        id: RequestId,
        attempt: AttemptKey,
        is_second: bool,
        (conn, wire): (ConnId, WireId),
        out: &mut Vec<ControlEffect<R>>,
    ) {
        let Some(open) = self.requests.get_mut(&id) else {
            self.unsent(conn, attempt);
            return;
        };
        out.push(ControlEffect::Relay {
            request: open.request.clone(),
            event: RelayEvent::AttemptDispatched { attempt, is_second },
        });
        if open.racing.iter().all(Option::is_some)
            && let Some(over) = open.racing[0].take()
        {
            self.attempts.remove(&over);
        }
        open.racing.sort_by_key(Option::is_none);
        let free = open.racing.iter_mut().find(|place| place.is_none());
        *free.expect("a place was made free") = Some(attempt);
        self.attempts.insert(attempt, id);
        let request = open.request.clone();
        let order = Order::Dispatch {
            attempt,
            wire,
            request,
        };
        if self.connections.contains_key(&conn) {
            out.push(ControlEffect::Order { conn, order });
        } else {
            self.unsent(conn, attempt);
        }
    }

    /// At once, and not when the connection's task comes to it: nothing more of it is relayed.
    fn cancel(&self, attempt: AttemptKey, out: &mut Vec<ControlEffect<R>>) {
        let id = self.attempts.get(&attempt);
        if let Some(open) = id.and_then(|id| self.requests.get(id)) {
            out.push(ControlEffect::Relay {
                request: open.request.clone(),
                event: RelayEvent::AttemptCancelled { attempt },
            });
        }
    }

    fn deny(&mut self, id: RequestId, denial: Denial, out: &mut Vec<ControlEffect<R>>) {
        if let Some(Open { request, .. }) = self.close(id) {
            tell_denied(request, denial, out);
        }
    }

    /// The request has ended for its consumer, and its name goes with its receipt.
    fn deny_and_keep(&mut self, id: RequestId, denial: Denial, out: &mut Vec<ControlEffect<R>>) {
        let Some(open) = self.requests.get_mut(&id) else {
            return;
        };
        let racing = core::mem::take(&mut open.racing);
        tell_denied(open.request.clone(), denial, out);
        for attempt in racing.iter().flatten() {
            self.attempts.remove(attempt);
        }
    }

    /// The request has ended: its name goes, and with it the plaintext.
    fn close(&mut self, id: RequestId) -> Option<Open<R>> {
        let open = self.requests.remove(&id)?;
        for attempt in open.racing.iter().flatten() {
            self.attempts.remove(attempt);
        }
        Some(open)
    }

    fn order(&self, conn: ConnId, order: Order<R>, out: &mut Vec<ControlEffect<R>>) {
        if self.connections.contains_key(&conn) {
            out.push(ControlEffect::Order { conn, order });
        }
    }

    fn unsent(&mut self, conn: ConnId, attempt: AttemptKey) {
        self.echoes.push_back(Event::AttemptFailed {
            conn,
            attempt,
            fault: AttemptFault::Unsent,
        });
    }

    /// A request can go elsewhere; a connection that hears nothing else is of no use.
    fn on_refused(&mut self, conn: ConnId, order: Order<R>, out: &mut Vec<ControlEffect<R>>) {
        match order {
            Order::Dispatch { attempt, .. } => self.unsent(conn, attempt),
            Order::Cancel { .. }
            | Order::Close { .. }
            | Order::Drain
            | Order::LoadModel { .. }
            | Order::TellContested
            | Order::TellLossy => self.let_go(conn, out),
        }
    }

    /// The coordinator took no notice: whoever waits for the outcome must not wait for ever.
    fn on_misused(&mut self, event: &Event<'_>, misuse: Misuse, out: &mut Vec<ControlEffect<R>>) {
        match event {
            // A repeat says nothing of the request that is there.
            Event::Arrived(ask) if self.core.keeps(ask.request) => {}
            Event::Arrived(ask) => self.deny(ask.request, denial_of(misuse), out),
            Event::ProviderJoined { conn, .. } => self.let_go(*conn, out),
            Event::AccountCredited { .. }
            | Event::AccountOpened { .. }
            | Event::AttemptAccepted { .. }
            | Event::AttemptCompleted { .. }
            | Event::AttemptFailed { .. }
            | Event::AttemptProgressed { .. }
            | Event::AttemptStarted { .. }
            | Event::ConsumerLeft { .. }
            | Event::DrainBegan
            | Event::HoldRecovered { .. }
            | Event::LimitsChanged { .. }
            | Event::ModelListed { .. }
            | Event::ModelLoadFailed { .. }
            | Event::ModelLoaded { .. }
            | Event::ModelPriced { .. }
            | Event::ModelRetired { .. }
            | Event::Persisted { .. }
            | Event::ProviderAttested { .. }
            | Event::ProviderDistrusted { .. }
            | Event::ProviderLeft { .. }
            | Event::ProviderReported { .. }
            | Event::ProviderRestocked { .. }
            | Event::ProviderUnverified { .. }
            | Event::ProviderVerified { .. }
            | Event::WarmMinChanged { .. }
            | Event::Woke => {}
        }
    }

    fn note_connection(&mut self, event: &Event<'_>, out: &mut Vec<ControlEffect<R>>) {
        match event {
            Event::ProviderJoined { conn, .. } => {
                self.connections.insert(*conn, Verified::No);
            }
            Event::ProviderLeft { conn, .. } => self.let_go(*conn, out),
            Event::ProviderVerified { conn } => self.verify(*conn, Verified::Yes),
            Event::ProviderDistrusted { conn } | Event::ProviderUnverified { conn } => {
                self.verify(*conn, Verified::No);
            }
            Event::AccountCredited { .. }
            | Event::AccountOpened { .. }
            | Event::Arrived(_)
            | Event::AttemptAccepted { .. }
            | Event::AttemptCompleted { .. }
            | Event::AttemptFailed { .. }
            | Event::AttemptProgressed { .. }
            | Event::AttemptStarted { .. }
            | Event::ConsumerLeft { .. }
            | Event::DrainBegan
            | Event::HoldRecovered { .. }
            | Event::LimitsChanged { .. }
            | Event::ModelListed { .. }
            | Event::ModelLoadFailed { .. }
            | Event::ModelLoaded { .. }
            | Event::ModelPriced { .. }
            | Event::ModelRetired { .. }
            | Event::Persisted { .. }
            | Event::ProviderAttested { .. }
            | Event::ProviderReported { .. }
            | Event::ProviderRestocked { .. }
            | Event::WarmMinChanged { .. }
            | Event::Woke => {}
        }
    }

    fn verify(&mut self, conn: ConnId, verified: Verified) {
        let Some(known) = self.connections.get_mut(&conn) else {
            return;
        };
        match (core::mem::replace(known, verified), verified) {
            (Verified::No, Verified::Yes) => self.verified_count += 1,
            (Verified::Yes, Verified::No) => self.verified_count -= 1,
            (Verified::No, Verified::No) | (Verified::Yes, Verified::Yes) => {}
        }
    }

    fn let_go(&mut self, conn: ConnId, out: &mut Vec<ControlEffect<R>>) {
        self.verify(conn, Verified::No);
        if self.connections.remove(&conn).is_some() {
            out.push(ControlEffect::LetGo { conn });
        }
    }
}

fn tell_denied<R: Clone>(request: R, denial: Denial, out: &mut Vec<ControlEffect<R>>) {
    out.push(ControlEffect::Denied {
        request: request.clone(),
        denial,
    });
    let event = RelayEvent::Denied { denial };
    out.push(ControlEffect::Relay { request, event });
}

/// What a consumer is told of a mistake of ours.
const fn denial_of(misuse: Misuse) -> Denial {
    match misuse {
        Misuse::UnknownModel => Denial::UnknownModel,
        Misuse::AccountReopened
        | Misuse::CatalogFull
        | Misuse::ConnReused
        | Misuse::LimitBelowUse
        | Misuse::ModelReused
        | Misuse::MoneyOutOfBounds
        | Misuse::PersistedUnposted
        | Misuse::TimeWentBack
        | Misuse::UnknownAccount => Denial::Internal,
    }
}
