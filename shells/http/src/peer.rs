//! Whose a connection is: a stranger's, which waits at the door, or a caller's who has shown a
//! key and has one of the callers' places.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cereus_core::denial::Denial;
use cereus_core::door::Origin;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::body::{Bodies, Place, Whose};
use crate::door::Guest;

/// How long a caller waits for another to go before it is told to come back.
const ADMIT_WAIT: Duration = Duration::from_secs(10);
const RETRY_AFTER_S: u16 = 10;

/// The callers' places. One that rests between two requests makes room for another's request.
#[derive(Debug)]
pub(crate) struct Callers {
    places: Arc<Semaphore>,
    resting: Mutex<Resting>,
}

/// How those that rest hear that they have to go, the longest at rest first.
#[derive(Debug, Default)]
struct Resting {
    count: u64,
    calls: BTreeMap<u64, Arc<Notify>>,
}

impl Callers {
    pub(crate) fn new(places: usize) -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(places)),
            resting: Mutex::default(),
        })
    }

    fn send_one_away(&self) {
        if let Some((_, call)) = lock(&self.resting).calls.pop_first() {
            call.notify_one();
        }
    }
}

/// What the connections of a server share.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) callers: Arc<Callers>,
    pub(crate) bodies: Arc<Bodies>,
}

/// Who is at the other end; in the extensions of every request. Whoever has sent no request that the
/// server answers under its key waits among the strangers and may be sent away; whoever has takes one
/// of the callers' places.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// Whose it is, as far as its address tells.
    origin: Option<Origin>,
    places: Places,
    state: Arc<Mutex<State>>,
    call: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    standing: Standing,
    /// Its place among those that rest.
    rests: Option<u64>,
}

/// What a connection holds while it lives.
#[derive(Debug)]
enum Standing {
    Caller { _place: OwnedSemaphorePermit },
    Stranger { _place: Guest },
}

impl Peer {
    pub(crate) fn new(
        address: SocketAddr,
        origin: Option<Origin>,
        places: Places,
        place: Guest,
    ) -> Self {
        let state = State {
            standing: Standing::Stranger { _place: place },
            rests: None,
        };
        Self {
            address,
            origin,
            places,
            state: Arc::new(Mutex::new(state)),
            call: Arc::default(),
        }
    }

    /// It may ask: it is a caller from now on, once there is a place.
    ///
    /// # Errors
    /// All places are taken, and none of their holders rests.
    pub async fn admit(&self) -> Result<(), Denial> {
        if matches!(lock(&self.state).standing, Standing::Caller { .. }) {
            return Ok(());
        }
        let places = &self.places.callers.places;
        let place = match Arc::clone(places).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                self.places.callers.send_one_away();
                let place = timeout(ADMIT_WAIT, Arc::clone(places).acquire_owned()).await;
                let Ok(place) = place else {
                    return Err(Denial::Full {
                        retry_after_s: RETRY_AFTER_S,
                    });
                };
                place.expect("never closed")
            }
        };
        lock(&self.state).standing = Standing::Caller { _place: place };
        Ok(())
    }

    /// For the body of one request, which `payer` pays for if that is known.
    pub(crate) fn place_of_body(&self, payer: Option<u64>) -> Place {
        let account = payer.map(Whose::Account);
        let origin = self.origin.map(Whose::Origin);
        let whose: Vec<Whose> = account.into_iter().chain(origin).collect();
        self.places.bodies.place(&whose)
    }

    /// The connection has had its answer, so it rests and may be sent away.
    pub(crate) fn rests(&self) {
        let mut state = lock(&self.state);
        if matches!(state.standing, Standing::Caller { .. }) && state.rests.is_none() {
            let mut resting = lock(&self.places.callers.resting);
            resting.count += 1;
            let ticket = resting.count;
            resting.calls.insert(ticket, Arc::clone(&self.call));
            state.rests = Some(ticket);
        }
    }

    /// The connection asks again or is gone, so it rests no more.
    pub(crate) fn rests_no_more(&self) {
        if let Some(ticket) = lock(&self.state).rests.take() {
            lock(&self.places.callers.resting).calls.remove(&ticket);
        }
    }

    /// Returns when it has to go for others. Cancel safe.
    pub(crate) async fn called(&self) {
        loop {
            self.call.notified().await;
            // The connection may have begun a request in the same moment; one that asks is not sent
            // away.
            if lock(&self.state).rests.is_some() {
                return;
            }
        }
    }
}

/// A panic elsewhere leaves what is locked whole: each change is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
