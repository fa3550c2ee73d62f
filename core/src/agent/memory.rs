//! Request ids of the recent past, so that a repeat or a late cancel is known. Bounded: the
//! oldest is forgotten first.

use std::collections::VecDeque;

use crate::ids::WireId;

/// The last `MAX` ids that were put in. The oldest is forgotten first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Recent<const MAX: usize> {
    ids: VecDeque<WireId>,
}

impl<const MAX: usize> Recent<MAX> {
    pub(super) fn put(&mut self, id: WireId) {
        if self.has(id) {
            return;
        }
        if self.ids.len() == MAX {
            self.ids.pop_front();
        }
        self.ids.push_back(id);
    }

    pub(super) fn has(&self, id: WireId) -> bool {
        self.ids.contains(&id)
    }

    /// True when it was there.
    pub(super) fn remove(&mut self, id: WireId) -> bool {
        let position = self.ids.iter().position(|other| *other == id);
        position.is_some_and(|ix| self.ids.remove(ix).is_some())
    }

    pub(super) fn clear(&mut self) {
        self.ids.clear();
    }
}
