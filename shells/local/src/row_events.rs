//! From the engine's thread to the task that answers: events in order, taken all at once.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use cereus_engine::runtime::Event;

/// One row's events. Bounded: the engine holds up a row whose reader is behind.
#[derive(Debug, Default)]
pub(crate) struct RowEvents(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    events: Vec<Event>,
    waiting: Option<Waker>,
}

impl RowEvents {
    pub(crate) fn push(&self, event: Event) {
        let mut state = self.lock();
        state.events.push(event);
        let waiting = state.waiting.take();
        drop(state);
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    /// Swaps what came for `taken`, which must be empty. Ready with at least one event.
    pub(crate) fn poll_take(&self, context: &Context<'_>, taken: &mut Vec<Event>) -> Poll<()> {
        assert!(taken.is_empty(), "what was taken before is dealt with");
        let mut state = self.lock();
        if state.events.is_empty() {
            state.waiting = Some(context.waker().clone());
            return Poll::Pending;
        }
        std::mem::swap(&mut state.events, taken);
        Poll::Ready(())
    }

    /// A panic elsewhere leaves the state whole: each change is one call.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
