//! What every connection shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use cereus_engine::chat::ChatRequest;
use cereus_engine::failure::{Failure, Reason};
use cereus_engine::kv::Scope;
use cereus_engine::runtime::CapacitySnapshot;
use cereus_engine::scheduler::RowId;
use cereus_http::Kept;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::answer::Answer;
use crate::guard::Guard;
use crate::model::Model;
use crate::row_events::RowEvents;

const LOCAL_SCOPE: &[u8] = b"local";

/// A request's place among those that run or wait: its answers share it, however many they are.
pub(crate) type Place = Arc<Waiting>;

/// What one request holds while it runs or waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    _permit: OwnedSemaphorePermit,
    /// Its conversation waits in the engine: that counts in the room for bodies as its body did.
    _body: Kept,
}

#[derive(Debug)]
pub(crate) struct App {
    pub(crate) model_id: String,
    pub(crate) started_unix_s: u64,
    pub(crate) guard: Guard,
    model: Model,
    /// Places for requests that run or wait.
    places: Arc<Semaphore>,
    draining: watch::Receiver<bool>,
    next_row: AtomicU64,
}

impl Waiting {
    pub(crate) fn new(permit: OwnedSemaphorePermit, body: Kept) -> Place {
        Arc::new(Self {
            _permit: permit,
            _body: body.emptied(),
        })
    }
}

impl App {
    pub(crate) fn new(
        model_id: String,
        model: Model,
        places_max: usize,
        guard: Guard,
        draining: watch::Receiver<bool>,
    ) -> Self {
        Self {
            model_id,
            started_unix_s: unix_now_s(),
            guard,
            model,
            places: Arc::new(Semaphore::new(places_max)),
            draining,
            next_row: AtomicU64::new(0),
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    pub(crate) fn drain(&self) {
        self.model.engine.drain();
    }

    pub(crate) fn capacity(&self) -> CapacitySnapshot {
        self.model.engine.capacity()
    }

    /// A permit for one request.
    ///
    /// # Errors
    /// All are given.
    pub(crate) fn permit(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let permit = Arc::clone(&self.places).try_acquire_owned();
        permit.map_err(|_| {
            let text = "every place for a request is taken; try again later";
            Failure::new(Reason::QueueFull, text)
        })
    }

    /// Hands one answer of a request to the engine. Dropping it is its reader leaving.
    pub(crate) fn ask(
        self: &Arc<Self>,
        request: ChatRequest,
        place: Place,
    ) -> Result<Answer, Failure> {
        let id = RowId(self.next_row.fetch_add(1, Ordering::Relaxed) + 1);
        // All who reach this machine are one tenant.
        let scope = Scope::new(LOCAL_SCOPE);
        let events = Arc::new(RowEvents::default());
        self.model.events_by_row.insert(id, Arc::clone(&events));
        if let Err(failure) = self.model.engine.ask(id, request, scope) {
            self.model.events_by_row.remove(id);
            return Err(failure);
        }
        Ok(Answer::new(Arc::clone(self), id, events, place))
    }

    /// The reader of a row took so many events; one that is behind holds up its row.
    pub(crate) fn read(&self, id: RowId, events: usize) {
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        self.model.engine.read(id, events);
    }

    /// The reader of a row has left before its end.
    pub(crate) fn leave(&self, id: RowId) {
        self.model.events_by_row.remove(id);
        self.model.engine.cancel(id);
    }
}

pub(crate) fn unix_now_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
