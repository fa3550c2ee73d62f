//! Requests that wait for one model: first come first served within an account, turn by turn between
//! accounts. The places are shared as the turns are: a full queue takes one from the account that
//! has the most.

use serde::{Deserialize, Serialize};

use super::life::Request;
use crate::ewma::Ewma;
use crate::ids::AccountId;
use crate::slab::{Key, Slab};
use crate::time::Tick;

/// Weighs the newest interval one eighth.
const PACE_SHIFT: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Lane {
    account: AccountId,
    head: Key,
    tail: Key,
    count: u32,
}

/// Whose requests are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    Anybody,
    Only(AccountId),
}

/// The order is kept in links inside the requests; nothing is allocated per entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Queue {
    /// In turn order; the first is served next.
    lanes: Vec<Lane>,
    count: u32,
    /// No waiting request needs fewer tokens; `u64::MAX` when none waits.
    need_tokens_min: u64,
    /// The last completion that left somebody waiting.
    completed_at: Option<Tick>,
    /// Between two completions while somebody waited.
    interval_ms: Option<Ewma>,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            lanes: Vec::new(),
            count: 0,
            need_tokens_min: u64::MAX,
            completed_at: None,
            interval_ms: None,
        }
    }
}

impl Queue {
    pub(crate) fn push(&mut self, requests: &mut Slab<Request>, key: Key) {
        let request = requests.get_mut(key).expect("a queued request lives");
        let account = request.ask.account;
        request.next_queued = Key::NONE;
        self.count += 1;
        self.need_tokens_min = self.need_tokens_min.min(request.need_tokens());
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.account == account) else {
            request.prev_queued = Key::NONE;
            self.lanes.push(Lane {
                account,
                head: key,
                tail: key,
                count: 1,
            });
            return;
        };
        let tail = lane.tail;
        lane.tail = key;
        lane.count += 1;
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
        self.need_tokens_min = self.need_tokens_min.min(request.need_tokens());
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.account == account) else {
            request.next_queued = Key::NONE;
            let lane = Lane {
                account,
                head: key,
                tail: key,
                count: 1,
            };
            return self.lanes.insert(0, lane);
        };
        lane.count += 1;
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
        self.lanes[lane_ix].count -= 1;
        if self.lanes[lane_ix].count == 0 {
            self.lanes.remove(lane_ix);
        }
        self.count -= 1;
        if self.count == 0 {
            self.need_tokens_min = u64::MAX;
            self.completed_at = None;
        }
    }

    /// The next request in turn that `fits`; its account goes to the end of the turn.
    pub(crate) fn pop(
        &mut self,
        requests: &mut Slab<Request>,
        whose: Whose,
        mut fits: impl FnMut(&Request) -> bool,
    ) -> Option<Key> {
        for lane_ix in 0..self.lanes.len() {
            let lane = &self.lanes[lane_ix];
            match whose {
                Whose::Only(account) if account != lane.account => continue,
                Whose::Only(_) | Whose::Anybody => {}
            }
            let mut key = lane.head;
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

    /// The request that gives its place to a newcomer of `account` when the queue is full: the
    /// newest of the account with the most places, if that keeps more than the newcomer's then has.
    pub(crate) fn gives_way_to(&self, account: AccountId) -> Option<Key> {
        let own = self.lanes.iter().find(|lane| lane.account == account);
        let own_count = own.map_or(0, |lane| lane.count);
        let most = self.longest()?;
        (most.count > own_count + 1).then_some(most.tail)
    }

    /// What the account with the most places added last.
    pub(crate) fn newest_of_the_longest(&self) -> Option<Key> {
        self.longest().map(|lane| lane.tail)
    }

    fn longest(&self) -> Option<&Lane> {
        self.lanes.iter().max_by_key(|lane| lane.count)
    }

    /// A request of this model was completed. Only what passes between two completions while
    /// somebody waits tells how fast the queue moves.
    pub(crate) fn completed(&mut self, now: Tick) {
        if let Some(since) = self.completed_at {
            let interval = now.since(since).as_millis_floor();
            let interval = u32::try_from(interval).unwrap_or(u32::MAX);
            match &mut self.interval_ms {
                Some(average) => average.push(interval),
                None => self.interval_ms = Some(Ewma::seeded(interval, PACE_SHIFT)),
            }
        }
        self.completed_at = (self.count > 0).then_some(now);
    }

    /// Expected time from one completion to the next; `None` before it was measured.
    pub(crate) fn interval_ms(&self) -> Option<u32> {
        self.interval_ms.map(Ewma::value)
    }

    /// No waiting request needs fewer tokens; `u64::MAX` when none waits.
    pub(crate) const fn need_tokens_min(&self) -> u64 {
        self.need_tokens_min
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
