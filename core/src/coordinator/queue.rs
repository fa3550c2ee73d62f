//! Requests that wait for one model: first come first served within an account, turn by turn between
//! accounts, so that one account cannot occupy the whole queue of a model.

use serde::{Deserialize, Serialize};

use super::life::Request;
use crate::ids::AccountId;
use crate::slab::{Key, Slab};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Lane {
    account: AccountId,
    head: Key,
    tail: Key,
}

/// The order is kept in links inside the requests; nothing is allocated per entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Queue {
    /// In turn order; the first is served next.
    lanes: Vec<Lane>,
    count: u32,
}

impl Queue {
    pub(crate) fn push(&mut self, requests: &mut Slab<Request>, key: Key) {
        let request = requests.get_mut(key).expect("a queued request lives");
        let account = request.ask.account;
        request.next_queued = Key::NONE;
        self.count += 1;
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.account == account) else {
            request.prev_queued = Key::NONE;
            self.lanes.push(Lane {
                account,
                head: key,
                tail: key,
            });
            return;
        };
        let tail = lane.tail;
        lane.tail = key;
        request.prev_queued = tail;
        requests
            .get_mut(tail)
            .expect("a lane's tail lives")
            .next_queued = key;
    }

    /// To the head of its account's lane, and the account to the head of the turn.
    pub(crate) fn push_front(&mut self, requests: &mut Slab<Request>, key: Key) {
        let request = requests.get_mut(key).expect("a queued request lives");
        let account = request.ask.account;
        request.prev_queued = Key::NONE;
        self.count += 1;
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.account == account) else {
            request.next_queued = Key::NONE;
            let lane = Lane {
                account,
                head: key,
                tail: key,
            };
            return self.lanes.insert(0, lane);
        };
        let head = core::mem::replace(&mut lane.head, key);
        request.next_queued = head;
        requests
            .get_mut(head)
            .expect("a lane's head lives")
            .prev_queued = key;
    }

    pub(crate) fn remove(&mut self, requests: &mut Slab<Request>, key: Key) {
        let request = requests.get(key).expect("a queued request lives");
        let (prev, next, account) = (
            request.prev_queued,
            request.next_queued,
            request.ask.account,
        );
        let lane_ix = self
            .lanes
            .iter()
            .position(|lane| lane.account == account)
            .expect("a queued request's account has a lane");
        if prev == Key::NONE {
            self.lanes[lane_ix].head = next;
        } else {
            requests
                .get_mut(prev)
                .expect("a link names a live request")
                .next_queued = next;
        }
        if next == Key::NONE {
            self.lanes[lane_ix].tail = prev;
        } else {
            requests
                .get_mut(next)
                .expect("a link names a live request")
                .prev_queued = prev;
        }
        if self.lanes[lane_ix].head == Key::NONE {
            self.lanes.remove(lane_ix);
        }
        self.count -= 1;
    }

    /// The next request in turn that `fits`; its account goes to the end of the turn.
    pub(crate) fn pop(
        &mut self,
        requests: &mut Slab<Request>,
        fits: impl Fn(&Request) -> bool,
    ) -> Option<Key> {
        for lane_ix in 0..self.lanes.len() {
            let mut key = self.lanes[lane_ix].head;
            while key != Key::NONE {
                let request = requests.get(key).expect("a link names a live request");
                if fits(request) {
                    self.lanes[lane_ix..].rotate_left(1);
                    self.remove(requests, key);
                    return Some(key);
                }
                key = request.next_queued;
            }
        }
        None
    }

    /// In turn order, then in order of arrival.
    pub(crate) fn keys(&self, requests: &Slab<Request>) -> Vec<Key> {
        let mut keys = Vec::new();
        for lane in &self.lanes {
            let mut key = lane.head;
            while key != Key::NONE {
                keys.push(key);
                key = requests
                    .get(key)
                    .expect("a link names a live request")
                    .next_queued;
            }
        }
        keys
    }

    pub(crate) const fn count(&self) -> u32 {
        self.count
    }
}
