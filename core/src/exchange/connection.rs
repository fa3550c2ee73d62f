//! The connection half: one provider's link, and the attempts that travel on it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::sealing::Sealing;
use super::{ExchangeMischief, Host, Order, RequestKey};
use crate::event::{AttemptFault, Ending, Event, Shown, Usage};
use crate::ids::{AccountId, AttemptKey, ConnId, WireId};
use crate::link::{Chunk, LinkEffect, LinkEvent, LinkMisuse, LinkOut, LinkRules, ProviderLink};
use crate::relay::{AttemptNews, RelayEffect, RelayEvent};
use crate::time::Tick;

/// What happened to a connection.
#[derive(Debug)]
pub enum ConnectionEvent<'f, R> {
    /// The rules of this step, and of those that follow, have another catalogue.
    CatalogChanged,
    FrameReceived(&'f [u8]),
    /// The socket refused to read a frame of this size.
    FrameTooLarge,
    /// The control half has let go of this connection: no more orders come.
    LetGo,
    Ordered(Order<R>),
    /// The socket is gone, with the peer's close code when it sent one.
    SocketClosed {
        code: Option<u16>,
    },
    /// The time that `next_wake` named has come, or not: a spurious wake is harmless.
    Woke,
    /// The last `Write` is on the wire.
    WriteFinished,
}

/// What the shell does for a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionEffect {
    /// Close the socket and forget the connection; nothing follows.
    Close { code: u16, reason: &'static str },
    /// Tell the control half.
    Tell(Event<'static>),
    /// We asked of the link what cannot be. Somebody should be told of our mistake.
    WasMisused(LinkMisuse),
    /// Write this frame, alone, as one text message; then say `WriteFinished`. Past `deadline` the
    /// connection is given up.
    Write { frame: Vec<u8>, deadline: Tick },
}

/// An attempt between its dispatch and its terminal or its cancel, whichever is first.
#[derive(Debug)]
struct Carried<R> {
    request: R,
    /// When its relay wants to be woken.
    wake_at: Option<Tick>,
}

/// See the module.
#[derive(Debug)]
pub struct Connection<R> {
    link: ProviderLink,
    carried: BTreeMap<AttemptKey, Carried<R>>,
    sealing: Sealing,
    /// The relays' wakes, soonest first.
    wakes: BTreeSet<(Tick, AttemptKey)>,
    /// What effects gave rise to; handled in turn before the step returns.
    echoes: VecDeque<LinkEvent<'static>>,
    link_out: LinkOut,
    relay_out: Vec<RelayEffect>,
    mischief: ExchangeMischief,
}

impl<R: Clone> Connection<R> {
    /// A socket that was just accepted. `owner` earns unless a provider token says otherwise.
    #[must_use]
    pub fn new(now: Tick, conn: ConnId, owner: AccountId, rules: &LinkRules) -> Self {
        Self {
            link: ProviderLink::new(now, conn, owner, &rules.config),
            carried: BTreeMap::new(),
            sealing: Sealing::default(),
            wakes: BTreeSet::new(),
            echoes: VecDeque::new(),
            link_out: LinkOut::default(),
            relay_out: Vec::new(),
            mischief: ExchangeMischief::None,
        }
    }

    #[must_use]
    pub const fn link(&self) -> &ProviderLink {
        &self.link
    }

    /// For the proof that oracles notice a bug.
    pub const fn dangerous_plant(&mut self, mischief: ExchangeMischief) {
        self.mischief = mischief;
    }

    /// Attempts whose request this half still names.
    #[must_use]
    pub fn carried_count(&self) -> usize {
        self.carried.len()
    }

    /// The next moment at which `Woke` should come. `None`: the connection has ended.
    #[must_use]
    pub fn next_wake(&self) -> Option<Tick> {
        let (link, _) = self.link.next_wake()?;
        let relay = self.wakes.first().map_or(Tick::NEVER, |(at, _)| *at);
        Some(link.min(relay))
    }

    /// One thing happened; here is all that follows. `out` is appended to, in causal order.
    pub fn step<H: Host<Request = R>>(
        &mut self,
        now: Tick,
        event: ConnectionEvent<'_, R>,
        rules: &LinkRules,
        host: &mut H,
        out: &mut Vec<ConnectionEffect>,
    ) {
        match event {
            ConnectionEvent::CatalogChanged => self.echoes.push_back(LinkEvent::CatalogChanged),
            ConnectionEvent::FrameReceived(frame) => {
                let event = LinkEvent::FrameReceived(frame);
                if let Some(chunk) = self.step_link(now, event, rules, host, out) {
                    self.relay(now, &chunk, host, out);
                }
            }
            ConnectionEvent::FrameTooLarge => self.close(1009, "frame too large"),
            ConnectionEvent::LetGo => self.close(1001, "let go"),
            ConnectionEvent::Ordered(order) => self.on_ordered(now, order, host, out),
            ConnectionEvent::SocketClosed { code } => {
                self.echoes.push_back(LinkEvent::SocketClosed { code });
            }
            ConnectionEvent::Woke => {
                self.echoes.push_back(LinkEvent::Woke);
                self.wake_relays(now, host, out);
            }
            ConnectionEvent::WriteFinished => self.echoes.push_back(LinkEvent::WriteFinished),
        }
        while let Some(echo) = self.echoes.pop_front() {
            let chunk = self.step_link(now, echo, rules, host, out);
            assert!(chunk.is_none(), "only a frame holds a chunk");
        }
    }

    fn close(&mut self, code: u16, reason: &'static str) {
        self.echoes
            .push_back(LinkEvent::CloseRequested { code, reason });
    }

    fn step_link<'f, H: Host<Request = R>>(
        &mut self,
        now: Tick,
        event: LinkEvent<'f>,
        rules: &LinkRules,
        host: &mut H,
        out: &mut Vec<ConnectionEffect>,
    ) -> Option<Chunk<'f>> {
        let dispatched = match &event {
            LinkEvent::DispatchRequested { attempt, .. } => Some(*attempt),
            LinkEvent::CancelRequested { .. }
            | LinkEvent::CatalogChanged
            | LinkEvent::ChunkRefused { .. }
            | LinkEvent::CloseRequested { .. }
            | LinkEvent::DisconnectRequested { .. }
            | LinkEvent::FrameReceived(_)
            | LinkEvent::IdentityContested
            | LinkEvent::LoadRequested { .. }
            | LinkEvent::LossesSeen
            | LinkEvent::SocketClosed { .. }
            | LinkEvent::Woke
            | LinkEvent::WriteFinished => None,
        };
        let mut link_out = core::mem::take(&mut self.link_out);
        let stepped = self.link.step(now, event, rules, &mut link_out);
        for effect in link_out.list.drain(..) {
            self.follow_link(now, effect, host, out);
        }
        self.link_out = link_out;
        stepped.unwrap_or_else(|misuse| {
            out.push(ConnectionEffect::WasMisused(misuse));
            // Nobody else would say that this attempt went nowhere.
            if let Some(attempt) = dispatched {
                self.fail(now, attempt, AttemptFault::Unsent, host, out);
            }
            None
        })
    }

    fn follow_link<H: Host<Request = R>>(
        &mut self,
        now: Tick,
        effect: LinkEffect,
        host: &mut H,
        out: &mut Vec<ConnectionEffect>,
    ) {
        match effect {
            LinkEffect::Close { code, reason } => {
                out.push(ConnectionEffect::Close { code, reason });
            }
            LinkEffect::Completed {
                attempt,
                wire: _,
                usage,
                parts,
                shown_when_cancelled,
            } => {
                if shown_when_cancelled.is_some()
                    && self.mischief == ExchangeMischief::UnheardTerminal
                {
                    return;
                }
                let completed = RelayEvent::Completed { attempt, parts };
                let news = self.end(now, attempt, completed, host);
                self.follow_relay(now, host, out);
                // Whoever has left: the coordinator hears of each terminal, as it comes.
                let shown = shown_when_cancelled
                    .or(news.map(|news| news.shown))
                    .unwrap_or_default();
                out.push(ConnectionEffect::Tell(Event::AttemptCompleted {
                    conn: self.link.conn(),
                    attempt,
                    usage,
                    shown,
                    ending: Ending::Said,
                }));
            }
            LinkEffect::Tell(event) => self.follow_event(now, event, host, out),
            LinkEffect::Write { frame, deadline } => {
                out.push(ConnectionEffect::Write { frame, deadline });
            }
        }
    }

    /// The link has an event for the coordinator: attempts that it ends are over here too.
    fn follow_event<H: Host<Request = R>>(
        &mut self,
        now: Tick,
        event: Event<'static>,
        host: &mut H,
        out: &mut Vec<ConnectionEffect>,
    ) {
        match &event {
            Event::AttemptFailed { attempt, .. } => {
                let attempt = *attempt;
                self.end(now, attempt, RelayEvent::AttemptEnded { attempt }, host);
            }
            Event::ProviderLeft { .. } => {
                while let Some((&attempt, _)) = self.carried.first_key_value() {
                    self.end(now, attempt, RelayEvent::AttemptEnded { attempt }, host);
                }
            }
            Event::AccountCredited { .. }
            | Event::AccountOpened { .. }
            | Event::Arrived(_)
            | Event::AttemptAccepted { .. }
            | Event::AttemptCompleted { .. }
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
            | Event::ProviderJoined { .. }
            | Event::ProviderReported { .. }
            | Event::ProviderRestocked { .. }
            | Event::ProviderUnverified { .. }
            | Event::ProviderVerified { .. }
            | Event::WarmMinChanged { .. }
            | Event::Woke => {}
        }
        out.push(ConnectionEffect::Tell(event));
    }

    fn on_ordered<H: Host<Request = R>>(
        &mut self,
        now: Tick,
        order: Order<R>,
        host: &mut H,
        out: &mut Vec<ConnectionEffect>,
    ) {
        match order {
            Order::Cancel { attempt } => self.cancel(now, attempt, host),
            Order::Close { cause } => self
                .echoes
                .push_back(LinkEvent::DisconnectRequested { cause }),
            Order::Dispatch {
                attempt,
                wire,
                request,
            } => self.dispatch(now, attempt, wire, request, host, out),
            Order::Drain => self.close(1001, "drain:deploy"),
            Order::LoadModel { model } => {
                self.echoes.push_back(LinkEvent::LoadRequested { model });
            }
            Order::TellContested => self.echoes.push_back(LinkEvent::IdentityContested),
            Order::TellLossy => self.echoes.push_back(LinkEvent::LossesSeen),
        }
    }

    fn dispatch<H: Host<Request = R>>(
        &mut self,
        now: Tick,
        attempt: AttemptKey,
        wire: WireId,
        request: R,
        host: &mut H,
        out: &mut Vec<ConnectionEffect>,
    ) {
        let sealed = self.sealed(now, wire, &request, host);
        let carried = Carried {
            request,
            wake_at: None,
        };
        self.carried.insert(attempt, carried);
        let Some((with, frame)) = sealed else {
            self.fail(now, attempt, AttemptFault::Unsent, host, out);
            return;
        };
        let began = RelayEvent::AttemptBegan {
            attempt,
            key: with.key,
            sealer: with.to.text(),
        };
        self.step_attempt(now, attempt, began, host);
        self.echoes.push_back(LinkEvent::DispatchRequested {
            attempt,
            wire,
            frame,
        });
    }

    fn sealed<H: Host<Request = R>>(
        &mut self,
        now: Tick,
        wire: WireId,
        request: &R,
        host: &mut H,
    ) -> Option<(RequestKey, Vec<u8>)> {
        let to = self.link.sealing_key()?;
        let takes_sessions = self.link.takes_sessions();
        let with = self
            .sealing
            .next(now, to, takes_sessions, || host.secret())?;
        let frame = host.seal(request, wire, &with)?;
        Some((with, frame))
    }

    /// The request is not needed any more: its terminal may settle money, which takes a count only.
    fn cancel<H: Host<Request = R>>(&mut self, now: Tick, attempt: AttemptKey, host: &mut H) {
        let cancelled = RelayEvent::AttemptCancelled { attempt };
        let news = self.step_attempt(now, attempt, cancelled, host);
        let shown = news.map(|news| news.shown).unwrap_or_default();
        self.forget(attempt);
        self.echoes
            .push_back(LinkEvent::CancelRequested { attempt, shown });
    }

    fn relay<H: Host<Request = R>>(
        &mut self,
        now: Tick,
        chunk: &Chunk<'_>,
        host: &mut H,
        out: &mut Vec<ConnectionEffect>,
    ) {
        let attempt = chunk.attempt;
        let came = RelayEvent::SealedCame {
            attempt,
            ciphertext: &chunk.ciphertext,
        };
        self.step_attempt(now, attempt, came, host);
        self.follow_relay(now, host, out);
    }

    fn wake_relays<H: Host<Request = R>>(
        &mut self,
        now: Tick,
        host: &mut H,
        out: &mut Vec<ConnectionEffect>,
    ) {
        while let Some(&(at, attempt)) = self.wakes.first()
            && at <= now
        {
            self.wakes.pop_first();
            self.step_attempt(now, attempt, RelayEvent::Woke, host);
            self.follow_relay(now, host, out);
        }
    }

    /// What a relay had to say about its attempt.
    fn follow_relay<H: Host<Request = R>>(
        &mut self,
        now: Tick,
        host: &mut H,
        out: &mut Vec<ConnectionEffect>,
    ) {
        let conn = self.link.conn();
        let mut relay_out = core::mem::take(&mut self.relay_out);
        for effect in relay_out.drain(..) {
            match effect {
                RelayEffect::AttemptStarted { attempt } => {
                    out.push(ConnectionEffect::Tell(Event::AttemptStarted {
                        conn,
                        attempt,
                    }));
                }
                RelayEffect::AttemptProgressed { attempt, shown } => {
                    out.push(ConnectionEffect::Tell(Event::AttemptProgressed {
                        conn,
                        attempt,
                        shown,
                    }));
                }
                RelayEffect::AttemptCut { attempt, shown } => {
                    self.forget(attempt);
                    out.push(ConnectionEffect::Tell(Event::AttemptCompleted {
                        conn,
                        attempt,
                        usage: Usage::default(),
                        shown,
                        ending: Ending::Cut,
                    }));
                    self.echoes
                        .push_back(LinkEvent::CancelRequested { attempt, shown });
                }
                RelayEffect::AttemptFailed { attempt, fault } => {
                    self.on_broken_off(now, attempt, fault, host, out);
                }
                RelayEffect::Close
                | RelayEffect::Open
                | RelayEffect::Readable
                | RelayEffect::Refuse { .. } => {
                    unreachable!("the host does what concerns the consumer")
                }
            }
        }
        self.relay_out = relay_out;
    }

    /// A chunk that does not open is the provider's breach: the link ends the attempt, says so, and
    /// trusts it no more. Any other end is told here, and the provider told to stop.
    fn on_broken_off<H: Host<Request = R>>(
        &mut self,
        now: Tick,
        attempt: AttemptKey,
        fault: AttemptFault,
        host: &mut H,
        out: &mut Vec<ConnectionEffect>,
    ) {
        if fault == AttemptFault::Encryption
            && let Some(wire) = self.link.wire_of(attempt)
        {
            self.echoes.push_back(LinkEvent::ChunkRefused { wire });
            return;
        }
        self.fail(now, attempt, fault, host, out);
        self.echoes.push_back(LinkEvent::CancelRequested {
            attempt,
            shown: Shown::default(),
        });
    }

    /// Ends an attempt that the link does not end, and tells the coordinator.
    fn fail<H: Host<Request = R>>(
        &mut self,
        now: Tick,
        attempt: AttemptKey,
        fault: AttemptFault,
        host: &mut H,
        out: &mut Vec<ConnectionEffect>,
    ) {
        self.end(now, attempt, RelayEvent::AttemptEnded { attempt }, host);
        out.push(ConnectionEffect::Tell(Event::AttemptFailed {
            conn: self.link.conn(),
            attempt,
            fault,
        }));
    }

    /// The attempt is over: its relay hears why, and its request is let go.
    fn end<H: Host<Request = R>>(
        &mut self,
        now: Tick,
        attempt: AttemptKey,
        event: RelayEvent<'_>,
        host: &mut H,
    ) -> Option<AttemptNews> {
        let news = self.step_attempt(now, attempt, event, host);
        self.forget(attempt);
        news
    }

    fn step_attempt<H: Host<Request = R>>(
        &mut self,
        now: Tick,
        attempt: AttemptKey,
        event: RelayEvent<'_>,
        host: &mut H,
    ) -> Option<AttemptNews> {
        let carried = self.carried.get_mut(&attempt)?;
        let out = &mut self.relay_out;
        let news = host.step_relay(now, &carried.request, attempt, event, out);
        if carried.wake_at != news.wake_at {
            if let Some(at) = carried.wake_at {
                self.wakes.remove(&(at, attempt));
            }
            carried.wake_at = news.wake_at;
            self.wakes.extend(news.wake_at.map(|at| (at, attempt)));
        }
        Some(news)
    }

    fn forget(&mut self, attempt: AttemptKey) {
        if let Some(carried) = self.carried.remove(&attempt)
            && let Some(at) = carried.wake_at
        {
            self.wakes.remove(&(at, attempt));
        }
    }
}
