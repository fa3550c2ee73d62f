//! The thread that watches the engine's: a step that does not end leaves nobody waiting.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::event::Event;
use super::inbox::Inbox;
use super::refusals::overdue;
use crate::scheduler::leases::Cause;

/// Whoever listens, shared by the two threads.
pub(super) type Listener<F> = Arc<Mutex<F>>;

pub(super) fn tell<F: FnMut(Event)>(listener: &Mutex<F>, event: Event) {
    // A listener that panicked once is told all the same.
    let mut listener = listener.lock().unwrap_or_else(PoisonError::into_inner);
    (*listener)(event);
}

/// Looks until the engine's thread is gone.
pub(super) fn start<F>(inbox: Arc<Inbox>, listener: Listener<F>) -> io::Result<JoinHandle<()>>
where
    F: FnMut(Event) + Send + 'static,
{
    thread::Builder::new()
        .name("engine-watch".to_owned())
        .spawn(move || {
            for id in inbox.when_stuck() {
                let failure = overdue(Cause::Watchdog);
                tell(&listener, Event::Failed { id, failure });
            }
        })
}
