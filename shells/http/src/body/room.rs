//! The memory that a server has for bodies while they come and while they are kept, and each caller's
//! share of it.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cereus_core::api::Envelope;
use cereus_core::door::Origin;
use hyper::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::SMALL;
use crate::reply::complaint;

/// KiB that all bodies of a server have together, but for those that are small: of these each
/// connection has one at a time, so that the limit of connections bounds them.
const ROOM_KIB: u32 = 256 << 10;
/// A caller's share is one of so many.
const SHARES: u32 = 4;
/// How long one body waits for room, all in all: its sender has no part in that.
const ROOM_WAIT: Duration = Duration::from_secs(10);

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
            wait_left: ROOM_WAIT,
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
    wait_left: Duration,
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
        let text = "too many large requests of yours come at once, or wait for their answer: send \
                    fewer side by side";
        waited(&mut self.wait_left, shares, text).await
    }

    /// Has room for so many bytes, all that it had included.
    ///
    /// # Errors
    /// 429 when there is none for too long.
    pub(super) async fn hold(&mut self, size: usize) -> Result<(), Envelope> {
        self.promise(size).await?;
        let text = "too many large requests come at once: try again in a moment";
        waited(&mut self.wait_left, self.room.grow_to(size), text).await
    }

    /// Gives back all that it holds beyond so many bytes.
    fn shrink_to(&mut self, size: usize) {
        for held in self.shares.iter_mut().chain([&mut self.room]) {
            held.shrink_to(size);
        }
    }
}

/// Waits for as long as is left of the body's whole wait.
async fn waited(
    left: &mut Duration,
    room: impl Future<Output = ()>,
    text: &'static str,
) -> Result<(), Envelope> {
    let begun = Instant::now();
    let found = timeout(*left, room).await;
    *left = left.saturating_sub(begun.elapsed());
    found.map_err(|_| crowded(text))
}

/// A body, or what was made of it. It counts in the room for as long as it is kept: where it goes on
/// as [`Bytes`], until the last of their clones is dropped.
#[derive(Debug)]
pub struct Kept {
    bytes: Bytes,
    /// None of what is small, which is free.
    place: Option<Place>,
}

impl Kept {
    /// What has come whole, in its place.
    pub(super) fn of(bytes: Bytes, place: Place) -> Self {
        let whole = Self {
            bytes: Bytes::new(),
            place: Some(place),
        };
        whole.replaced_by(bytes)
    }

    /// What is kept instead from now on. What is larger has no more room than this had: a few members
    /// that are written anew need none of their own.
    #[must_use]
    pub fn replaced_by(self, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let place = self.place.filter(|_| bytes.len() > SMALL);
        let place = place.map(|mut place| {
            place.shrink_to(bytes.len());
            place
        });
        Self { bytes, place }
    }

    /// The body is dropped and its room is held: something of about its size was made of it that is not
    /// bytes.
    #[must_use]
    pub fn emptied(self) -> Self {
        Self {
            bytes: Bytes::new(),
            place: self.place,
        }
    }
}

/// They take the place with them.
impl From<Kept> for Bytes {
    fn from(kept: Kept) -> Self {
        match kept.place {
            None => kept.bytes,
            Some(_) => Self::from_owner(kept),
        }
    }
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Deref for Kept {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
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
        let held = u32::try_from(self.kib()).expect("it was taken by a number of 32 bits");
        let kib = u32::try_from(size.div_ceil(1_024)).unwrap_or(u32::MAX);
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

    fn shrink_to(&mut self, size: usize) {
        let surplus = self.kib().saturating_sub(size.div_ceil(1_024));
        if let Some(part) = &mut self.part {
            drop(part.split(surplus));
        }
    }

    fn kib(&self) -> usize {
        self.part
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits)
    }
}

fn crowded(text: &'static str) -> Envelope {
    let status = StatusCode::TOO_MANY_REQUESTS;
    complaint(status, "rate_limit_exceeded", text)
}
