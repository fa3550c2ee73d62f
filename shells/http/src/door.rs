//! The waiting rooms of a server: connections that have not shown yet whose they are.
//!
//! The core's [`Door`] says who has to go; here that is carried to the connection's task.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cereus_core::door::{Door, DoorLimits, Origin, Ticket};
use cereus_core::time::{Span, Tick};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Connections of one address that have sent no request under a key.
const STRANGERS_OF_ORIGIN_MAX: usize = 32;
/// The fewest of them in all, however few consumers are let in.
const STRANGERS_MAX_MIN: usize = 64;
/// And the most. Each may hold a request's head.
const STRANGERS_MAX_MAX: usize = 1_024;
/// How long a connection keeps its place however many of its origin wait: an honest peer sends its
/// request in less.
pub const GRACE: Span = Span::secs(1);

/// Of connections, where so many consumers are let in.
pub(crate) fn strangers(connections_max: usize) -> Arc<Room> {
    Room::new(DoorLimits {
        waiting_max: connections_max.clamp(STRANGERS_MAX_MIN, STRANGERS_MAX_MAX),
        of_origin_max: STRANGERS_OF_ORIGIN_MAX,
        grace: GRACE,
    })
}

/// See the module.
#[derive(Debug)]
pub struct Room {
    opened: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    door: Door,
    /// How each that waits hears that it has to go.
    calls: HashMap<Ticket, oneshot::Sender<()>>,
}

impl Room {
    #[must_use]
    pub fn new(limits: DoorLimits) -> Arc<Self> {
        let state = State {
            door: Door::new(limits),
            calls: HashMap::new(),
        };
        Arc::new(Self {
            opened: Instant::now(),
            state: Mutex::new(state),
        })
    }

    /// Lets a connection wait, in the place of another if need be.
    pub fn enter(self: &Arc<Self>, origin: Option<Origin>) -> (Guest, SentAway) {
        let (call, called) = oneshot::channel();
        let mut state = self.lock();
        let entered = state.door.enter(self.now(), origin);
        state.calls.insert(entered.ticket, call);
        let gone = entered.sent_away.and_then(|gone| state.calls.remove(&gone));
        drop(state);
        if let Some(gone) = gone {
            // The send fails when the task of that connection has ended by itself meanwhile, which
            // is as good.
            let _ = gone.send(());
        }
        let guest = Guest {
            room: Arc::clone(self),
            ticket: entered.ticket,
        };
        (guest, SentAway(Some(called)))
    }

    fn now(&self) -> Tick {
        Tick(u64::try_from(self.opened.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// A panic elsewhere leaves the state whole: each change is one call.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in a room. Dropped when the connection has shown whose it is, or has ended.
#[derive(Debug)]
pub struct Guest {
    room: Arc<Room>,
    ticket: Ticket,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut state = self.room.lock();
        state.door.leave(self.ticket);
        state.calls.remove(&self.ticket);
    }
}

/// The call that a guest has to go.
#[derive(Debug)]
pub struct SentAway(Option<oneshot::Receiver<()>>);

impl SentAway {
    /// Never, once the guest has shown whose it is. Cancel safe.
    pub async fn called(&mut self) {
        if let Some(call) = &mut self.0
            && call.await.is_ok()
        {
            self.0 = None;
            return;
        }
        self.0 = None;
        std::future::pending::<()>().await;
    }
}

/// Whose addresses are believed where they name another.
#[derive(Clone, Debug, Default)]
pub struct Proxies(Vec<IpAddr>);

impl Proxies {
    #[must_use]
    pub fn new(addresses: Vec<IpAddr>) -> Self {
        Self(addresses.iter().map(IpAddr::to_canonical).collect())
    }

    fn has(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Of a connection as such. What comes through a proxy of ours is of many.
    #[must_use]
    pub fn origin(&self, peer: IpAddr) -> Option<Origin> {
        (!self.has(peer)).then(|| Origin::of(peer))
    }

    /// Of a request: whom the nearest proxy that is not ours, or the peer itself, speaks for.
    /// `forwarded` are the values of `X-Forwarded-For`, in order.
    #[must_use]
    pub fn origin_of_request<'h>(
        &self,
        peer: IpAddr,
        forwarded: impl DoubleEndedIterator<Item = &'h str>,
    ) -> Option<Origin> {
        if !self.has(peer) {
            return Some(Origin::of(peer));
        }
        // Each proxy appends whom it heard; only what ours appended is to be believed.
        forwarded
            .rev()
            .flat_map(|value| value.rsplit(','))
            .map(|part| part.trim().parse::<IpAddr>())
            .take_while(Result::is_ok)
            .flatten()
            .find(|address| !self.has(*address))
            .map(Origin::of)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const WAIT: Duration = Duration::from_secs(30);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn room() -> Arc<Room> {
        let limits = DoorLimits {
            waiting_max: 2,
            of_origin_max: 2,
            grace: Span::ZERO,
        };
        Room::new(limits)
    }

    #[tokio::test]
    async fn whoever_waited_longest_is_called_and_whoever_has_shown_itself_is_not() {
        let room = room();
        let origin = Some(Origin::of(ip("192.0.2.1")));
        let (shown, mut call_of_shown) = room.enter(origin);
        drop(shown);
        let (_first, mut call_of_first) = room.enter(origin);
        let (_second, mut call_of_second) = room.enter(origin);
        let (_third, _) = room.enter(origin);
        timeout(WAIT, call_of_first.called()).await.unwrap();
        tokio::select! {
            biased;
            () = call_of_shown.called() => panic!("it waits no more"),
            () = call_of_second.called() => panic!("it waited less long"),
            () = tokio::task::yield_now() => {}
        }
    }

    #[test]
    fn only_what_our_own_proxies_appended_is_believed() {
        let proxies = Proxies::new(vec![ip("10.0.0.1"), ip("10.0.0.2")]);
        let origin = |peer: &str, forwarded: &[&str]| {
            proxies.origin_of_request(ip(peer), forwarded.iter().copied())
        };
        let of = |text: &str| Some(Origin::of(ip(text)));
        assert_eq!(origin("192.0.2.1", &["192.0.2.9"]), of("192.0.2.1"));
        assert_eq!(origin("10.0.0.1", &["192.0.2.9"]), of("192.0.2.9"));
        // What the client wrote itself stands before what the proxy appended.
        let forged = ["127.0.0.1, 192.0.2.9", "10.0.0.2"];
        assert_eq!(origin("10.0.0.1", &forged), of("192.0.2.9"));
        assert_eq!(origin("10.0.0.1", &["192.0.2.8, unknown"]), None);
        assert_eq!(origin("10.0.0.1", &[]), None);
        assert_eq!(proxies.origin(ip("::ffff:10.0.0.1")), None);
    }
}
