//! Which transfers are durable, and who waits for one of them.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::slab::Key;

/// Transfers are numbered in the order in which they are posted, so one number says it all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Durable {
    up_to: u64,
    /// Holds and settlements, by the number of their transfer. At most two for each request.
    awaited: VecDeque<(u64, Key)>,
}

impl Durable {
    /// `request` goes on once the newest transfer is durable.
    pub(super) fn awaits(&mut self, request: Key, transfer: u64) {
        self.awaited.push_back((transfer, request));
    }

    pub(super) fn reached(&mut self, up_to: u64) {
        self.up_to = self.up_to.max(up_to);
    }

    /// The next transfer that somebody waits for and that is durable by now, in order.
    pub(super) fn next(&mut self) -> Option<(u64, Key)> {
        let up_to = self.up_to;
        self.awaited
            .pop_front_if(|(transfer, _)| *transfer <= up_to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_named_in_order_and_only_once_it_is_durable() {
        let mut durable = Durable::default();
        let request = |slot| Key {
            slot,
            generation: 1,
        };
        durable.awaits(request(1), 3);
        durable.awaits(request(2), 4);
        durable.reached(2);
        assert_eq!(durable.next(), None);
        durable.reached(3);
        assert_eq!(durable.next(), Some((3, request(1))));
        assert_eq!(durable.next(), None);
        durable.reached(1);
        durable.reached(9);
        assert_eq!(durable.next(), Some((4, request(2))));
    }
}
