//! Whose a connection is, as far as it has shown.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cereus_core::denial::Denial;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::door::Guest;

/// How long a caller waits for another to go before it is told to come back.
const ADMIT_WAIT: Duration = Duration::from_secs(10);
const RETRY_AFTER_S: u16 = 10;

/// Who is at the other end; in the extensions of every request. Whoever has sent no request that the
/// server answers under its key waits among the strangers and may be sent away; whoever has takes one
/// of the callers' places.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    callers: Arc<Semaphore>,
    standing: Arc<Mutex<Standing>>,
}

/// What a connection holds while it lives.
#[derive(Debug)]
enum Standing {
    Caller { _place: OwnedSemaphorePermit },
    Stranger { _place: Guest },
}

impl Peer {
    pub(crate) fn new(address: SocketAddr, callers: Arc<Semaphore>, place: Guest) -> Self {
        Self {
            address,
            callers,
            standing: Arc::new(Mutex::new(Standing::Stranger { _place: place })),
        }
    }

    /// It may ask: it is a caller from now on, once there is a place.
    ///
    /// # Errors
    /// There is none.
    pub async fn admit(&self) -> Result<(), Denial> {
        if matches!(*self.lock(), Standing::Caller { .. }) {
            return Ok(());
        }
        let place = Arc::clone(&self.callers).acquire_owned();
        let Ok(place) = timeout(ADMIT_WAIT, place).await else {
            return Err(Denial::Full {
                retry_after_s: RETRY_AFTER_S,
            });
        };
        let place = place.expect("never closed");
        *self.lock() = Standing::Caller { _place: place };
        Ok(())
    }

    /// A panic elsewhere leaves the standing whole: each change is one assignment.
    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
