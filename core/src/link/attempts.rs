//! The attempts that this connection carries, by their id on the wire.

use crate::event::Shown;
use crate::ids::{AttemptKey, WireId};
use crate::time::{Span, Tick};

/// One attempt between its dispatch and its terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Carried {
    pub(super) wire: WireId,
    pub(super) key: AttemptKey,
    /// Given up: its terminal may still settle money, its chunks reach nobody.
    pub(super) cancelled_at: Option<Tick>,
    /// What had been relayed of it when it was given up.
    pub(super) shown: Shown,
}

/// Sorted by wire id; few at a time.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Attempts {
    list: Vec<Carried>,
}

impl Attempts {
    pub(super) fn insert(&mut self, wire: WireId, key: AttemptKey) {
        let Err(ix) = self.place(wire) else {
            unreachable!("the caller has looked: a wire id is carried once");
        };
        self.list.insert(
            ix,
            Carried {
                wire,
                key,
                cancelled_at: None,
                shown: Shown::default(),
            },
        );
    }

    pub(super) fn find(&self, wire: WireId) -> Option<Carried> {
        self.place(wire).ok().map(|ix| self.list[ix])
    }

    pub(super) fn wire_of(&self, key: AttemptKey) -> Option<WireId> {
        self.list
            .iter()
            .find(|carried| carried.key == key)
            .map(|carried| carried.wire)
    }

    pub(super) fn cancel(&mut self, wire: WireId, now: Tick, shown: Shown) {
        if let Ok(ix) = self.place(wire) {
            self.list[ix].cancelled_at = Some(now);
            self.list[ix].shown = shown;
        }
    }

    pub(super) fn remove(&mut self, wire: WireId) -> Option<Carried> {
        self.place(wire).ok().map(|ix| self.list.remove(ix))
    }

    /// Forgets cancelled attempts whose provider owes a terminal for longer than `keep`.
    pub(super) fn forget_cancelled(&mut self, now: Tick, keep: Span) {
        self.list.retain(|carried| match carried.cancelled_at {
            Some(at) => now.since(at) < keep,
            None => true,
        });
    }

    pub(super) fn count(&self) -> usize {
        self.list.len()
    }

    fn place(&self, wire: WireId) -> Result<usize, usize> {
        self.list
            .binary_search_by_key(&wire, |carried| carried.wire)
    }
}
