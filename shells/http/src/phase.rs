//! Whether a connection rests, sends the head of a request or is being answered. Its socket and
//! its service share this, so that each timeout is counted only where it holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::Waker;

use futures_util::task::AtomicWaker;

/// What the next byte from the peer would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// The first byte of a request: the connection rests.
    Idle = 0,
    /// More of a request's head.
    Head = 1,
    /// Part of a body, or nothing: a request is being answered.
    Busy = 2,
}

#[derive(Clone, Debug)]
pub(crate) struct SharedPhase(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    phase: AtomicU8,
    /// A body was announced and has not come whole.
    is_owed: AtomicBool,
    /// The connection's task. hyper looks at its socket once while it answers and then not again
    /// before bytes come; the time that a connection may rest begins all the same.
    reader: AtomicWaker,
}

impl SharedPhase {
    pub(crate) fn new(phase: Phase) -> Self {
        Self(Arc::new(Shared {
            phase: AtomicU8::new(phase as u8),
            is_owed: AtomicBool::new(false),
            reader: AtomicWaker::new(),
        }))
    }

    pub(crate) fn get(&self) -> Phase {
        // One task polls both sides of a connection, so no order between other memory is needed.
        match self.0.phase.load(Ordering::Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            _ => Phase::Busy,
        }
    }

    pub(crate) fn set(&self, phase: Phase) {
        self.0.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Whether the peer still sends the body of a request.
    pub(crate) fn is_owed(&self) -> bool {
        self.0.is_owed.load(Ordering::Relaxed)
    }

    pub(crate) fn owes(&self, is_owed: bool) {
        self.0.is_owed.store(is_owed, Ordering::Relaxed);
    }

    /// The answer is over: whoever waits to read looks again.
    pub(crate) fn rest(&self) {
        self.set(Phase::Idle);
        self.0.reader.wake();
    }

    /// Whom [`Self::rest`] wakes.
    pub(crate) fn register(&self, reader: &Waker) {
        self.0.reader.register(reader);
    }
}
