//! The memory that a server has for bodies while they come, and each caller's share of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cereus_core::api::Envelope;
use cereus_core::door::Origin;
use hyper::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::reply::complaint;

/// KiB that all bodies of a server have together, but for those that are small or came at once.
const ROOM_KIB: u32 = 256 << 10;
/// A caller's share is one of so many.
const SHARES: u32 = 4;
/// How long one waits for room.
const ROOM_WAIT: Duration = Duration::from_secs(5);

/// For whom a body comes. One that comes for two counts in the shares of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Whose {
    Account(u64),
    Origin(Origin),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Bodies {
    room: Arc<Semaphore>,
    share_kib: u32,
    /// Of those who have a body on its way.
    shares: Mutex<BTreeMap<Whose, Arc<Semaphore>>>,
}

impl Bodies {
    pub(crate) fn new() -> Arc<Self> {
        Self::with_room(ROOM_KIB)
    }

    pub(super) fn with_room(room_kib: u32) -> Arc<Self> {
        Arc::new(Self {
            room: Arc::new(Semaphore::new(room_kib as usize)),
            share_kib: room_kib / SHARES,
            shares: Mutex::default(),
        })
    }

    /// A place that holds nothing yet, for one body.
    pub(crate) fn place(self: &Arc<Self>, whose: &[Whose]) -> Place {
        let mut shares = self.shares();
        let of = |whose: &Whose| {
            let share = shares
                .entry(*whose)
                .or_insert_with(|| Arc::new(Semaphore::new(self.share_kib as usize)));
            Held::of(Arc::clone(share))
        };
        Place {
            shares: whose.iter().map(of).collect(),
            whose: whose.to_vec(),
            room: Held::of(Arc::clone(&self.room)),
            bodies: Arc::clone(self),
        }
    }

    /// A panic elsewhere leaves them whole: each change is one call.
    fn shares(&self) -> MutexGuard<'_, BTreeMap<Whose, Arc<Semaphore>>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one body holds, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    whose: Vec<Whose>,
    shares: Vec<Held>,
    room: Held,
    bodies: Arc<Bodies>,
}

impl Place {
    /// Takes so many bytes of its callers' shares, and nothing of the room yet.
    ///
    /// # Errors
    /// 429 when others of the same caller hold them for too long.
    pub(super) async fn promise(&mut self, size: usize) -> Result<(), Envelope> {
        let shares = async {
            for share in &mut self.shares {
                share.grow_to(size).await;
            }
        };
        let text = "too many large requests of yours come at once: send fewer side by side";
        timeout(ROOM_WAIT, shares).await.map_err(|_| crowded(text))
    }

    /// Has room for so many bytes, all that it had included.
    ///
    /// # Errors
    /// 429 when there is none for too long.
    pub(super) async fn hold(&mut self, size: usize) -> Result<(), Envelope> {
        self.promise(size).await?;
        let text = "too many large requests come at once: try again in a moment";
        timeout(ROOM_WAIT, self.room.grow_to(size))
            .await
            .map_err(|_| crowded(text))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // First what it holds, which counts among the owners of a share.
        self.shares.clear();
        let mut shares = self.bodies.shares();
        for whose in &self.whose {
            if shares
                .get(whose)
                .is_some_and(|it| Arc::strong_count(it) == 1)
            {
                shares.remove(whose);
            }
        }
    }
}

/// A part of a [`Semaphore`] whose permits are KiB.
#[derive(Debug)]
struct Held {
    whole: Arc<Semaphore>,
    part: Option<OwnedSemaphorePermit>,
}

impl Held {
    const fn of(whole: Arc<Semaphore>) -> Self {
        Self { whole, part: None }
    }

    /// Cancel safe.
    async fn grow_to(&mut self, size: usize) {
        let kib = u32::try_from(size.div_ceil(1_024)).unwrap_or(u32::MAX);
        let held = self
            .part
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        let held = u32::try_from(held).expect("it was taken by a number of 32 bits");
        let more = kib.saturating_sub(held);
        if more == 0 {
            return;
        }
        let more = Arc::clone(&self.whole).acquire_many_owned(more).await;
        let more = more.expect("never closed");
        match &mut self.part {
            Some(part) => part.merge(more),
            None => self.part = Some(more),
        }
    }
}

fn crowded(text: &'static str) -> Envelope {
    let status = StatusCode::TOO_MANY_REQUESTS;
    complaint(status, "rate_limit_exceeded", text)
}
