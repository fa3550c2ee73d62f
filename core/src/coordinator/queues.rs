//! Requests that wait, one queue for each model: within an account in the order in which their content is
//! due, and first come first served of those that are due at once; turn by turn between accounts. The places are shared as the turns are: a full queue takes one from the
//! account that has the most.

use serde::{Deserialize, Serialize};

use crate::ewma::Ewma;
use crate::ids::{AccountId, ModelIx};
use crate::slab::Key;
use crate::time::Tick;

/// Weighs the newest interval one eighth.
const PACE_SHIFT: u8 = 3;

/// Whose requests are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Anybody,
    Only(AccountId),
}

/// What a queue knows of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Waiting {
    pub(super) model: ModelIx,
    pub(super) account: AccountId,
    pub(super) need_tokens: u64,
    /// When its content must have begun, then when it came.
    pub(super) due: (Tick, Tick),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Entry {
    key: Key,
    waiting: Waiting,
    prev: Key,
    next: Key,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Lane {
    account: AccountId,
    head: Key,
    tail: Key,
    count: u32,
}

impl Lane {
    const fn empty(account: AccountId) -> Self {
        Self {
            account,
            head: Key::NONE,
            tail: Key::NONE,
            count: 0,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Queue {
    /// In turn order; the first is served next.
    lanes: Vec<Lane>,
    count: u32,
    /// No waiting request needs fewer tokens; `u64::MAX` when none waits.
    need_tokens_min: u64,
    /// The last completion that left somebody waiting.
    completed_at: Option<Tick>,
    /// Between two completions while somebody waited.
    interval_us: Option<Ewma>,
}

impl Queue {
    const fn new() -> Self {
        Self {
            lanes: Vec::new(),
            count: 0,
            need_tokens_min: u64::MAX,
            completed_at: None,
            interval_us: None,
        }
    }

    fn longest(&self) -> Option<&Lane> {
        self.lanes.iter().max_by_key(|lane| lane.count)
    }
}

/// See the module. The order is kept in links between entries; nothing is allocated for one that waits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Queues {
    models: Vec<Queue>,
    /// By the places of requests, of which there is a limit.
    entries: Vec<Option<Entry>>,
}

impl Queues {
    pub(super) fn new(models: usize) -> Self {
        let mut queues = Self {
            models: Vec::new(),
            entries: Vec::new(),
        };
        queues.grow(models);
        queues
    }

    /// Models were listed: there is a queue for each of so many places.
    pub(super) fn grow(&mut self, models: usize) {
        self.models.resize_with(models, Queue::new);
    }

    /// To its place in its account's lane; an account that has none yet goes to the end of the turn.
    pub(super) fn push(&mut self, key: Key, waiting: Waiting) {
        let lanes = &mut self.note(waiting).lanes;
        let account = waiting.account;
        if !lanes.iter().any(|lane| lane.account == account) {
            lanes.push(Lane::empty(account));
        }
        self.enter(key, waiting);
    }

    /// The same, but an account that has none goes to the head of the turn: its request was taken before,
    /// and comes back.
    pub(super) fn push_again(&mut self, key: Key, waiting: Waiting) {
        let lanes = &mut self.note(waiting).lanes;
        let account = waiting.account;
        if !lanes.iter().any(|lane| lane.account == account) {
            lanes.insert(0, Lane::empty(account));
        }
        self.enter(key, waiting);
    }

    /// Takes a request out, if it waits.
    pub(super) fn remove(&mut self, key: Key) -> Option<Waiting> {
        let place = self.entries.get_mut(key.slot as usize)?;
        let entry = place.take_if(|entry| entry.key == key)?;
        if entry.prev != Key::NONE {
            self.entry_mut(entry.prev).next = entry.next;
        }
        if entry.next != Key::NONE {
            self.entry_mut(entry.next).prev = entry.prev;
        }
        let queue = &mut self.models[usize::from(entry.waiting.model.0)];
        let account = entry.waiting.account;
        let at = queue.lanes.iter().position(|lane| lane.account == account);
        let at = at.expect("a waiting request's account has a lane");
        let lane = &mut queue.lanes[at];
        if entry.prev == Key::NONE {
            lane.head = entry.next;
        }
        if entry.next == Key::NONE {
            lane.tail = entry.prev;
        }
        lane.count -= 1;
        if lane.count == 0 {
            queue.lanes.remove(at);
        }
        queue.count -= 1;
        if queue.count == 0 {
            queue.need_tokens_min = u64::MAX;
            queue.completed_at = None;
        }
        Some(entry.waiting)
    }

    /// The next request in turn that `fits`; its account goes to the end of the turn.
    pub(super) fn pop(
        &mut self,
        model: ModelIx,
        whose: Whose,
        mut fits: impl FnMut(Key) -> bool,
    ) -> Option<Key> {
        for at in 0..self.of(model).lanes.len() {
            let lane = self.of(model).lanes[at];
            match whose {
                Whose::Only(account) if account != lane.account => continue,
                Whose::Only(_) | Whose::Anybody => {}
            }
            let mut key = lane.head;
            while key != Key::NONE {
                if fits(key) {
                    self.models[usize::from(model.0)].lanes[at..].rotate_left(1);
                    self.remove(key);
                    return Some(key);
                }
                key = self.entry(key).next;
            }
        }
        None
    }

    /// The request that gives its place to a newcomer of `account` when the queue is full: the
    /// last in order of the account with the most places, if that keeps more than the newcomer's then has.
    pub(super) fn gives_way_to(&self, model: ModelIx, account: AccountId) -> Option<Key> {
        let queue = self.of(model);
        let own = queue.lanes.iter().find(|lane| lane.account == account);
        let own_count = own.map_or(0, |lane| lane.count);
        let most = queue.longest()?;
        (most.count > own_count + 1).then_some(most.tail)
    }

    /// What the account with the most places would be served last.
    pub(super) fn newest_of_the_longest(&self, model: ModelIx) -> Option<Key> {
        self.of(model).longest().map(|lane| lane.tail)
    }

    /// A request of this model was completed. Only what passes between two completions while
    /// somebody waits tells how fast the queue moves.
    pub(super) fn completed(&mut self, now: Tick, model: ModelIx) {
        let queue = &mut self.models[usize::from(model.0)];
        if let Some(since) = queue.completed_at {
            let interval = now.since(since).0;
            let interval = u32::try_from(interval).unwrap_or(u32::MAX);
            match &mut queue.interval_us {
                Some(average) => average.push(interval),
                None => queue.interval_us = Some(Ewma::seeded(interval, PACE_SHIFT)),
            }
        }
        queue.completed_at = (queue.count > 0).then_some(now);
    }

    /// Expected time from one completion to the next; `None` before it was measured.
    pub(super) fn interval_us(&self, model: ModelIx) -> Option<u32> {
        self.of(model).interval_us.map(Ewma::value)
    }

    /// No waiting request of this model needs fewer tokens. `None`: none waits.
    pub(super) fn need_tokens_min(&self, model: ModelIx) -> Option<u64> {
        let queue = self.of(model);
        (queue.count > 0).then_some(queue.need_tokens_min)
    }

    pub(super) fn count(&self, model: ModelIx) -> u32 {
        self.of(model).count
    }

    /// Of all models.
    pub(super) fn total(&self) -> usize {
        self.models.iter().map(|queue| queue.count as usize).sum()
    }

    /// All that wait for a model, in turn order, then in order of arrival.
    pub(super) fn keys(&self, model: ModelIx) -> Vec<Key> {
        let mut keys = Vec::new();
        for lane in &self.of(model).lanes {
            let mut key = lane.head;
            while key != Key::NONE {
                keys.push(key);
                key = self.entry(key).next;
            }
        }
        keys
    }

    /// All places of models.
    pub(super) fn models(&self) -> impl Iterator<Item = ModelIx> + use<> {
        (0u16..).map(ModelIx).take(self.models.len())
    }

    fn of(&self, model: ModelIx) -> &Queue {
        &self.models[usize::from(model.0)]
    }

    /// Counts a newcomer.
    fn note(&mut self, waiting: Waiting) -> &mut Queue {
        let queue = &mut self.models[usize::from(waiting.model.0)];
        queue.count += 1;
        queue.need_tokens_min = queue.need_tokens_min.min(waiting.need_tokens);
        queue
    }

    /// Behind all of its lane that are due no later. Most are due after all that came before them: those
    /// are found at the end.
    fn enter(&mut self, key: Key, waiting: Waiting) {
        let lanes = &self.of(waiting.model).lanes;
        let at = lanes.iter().position(|it| it.account == waiting.account);
        let at = at.expect("its account has a lane");
        let (mut prev, mut next) = (lanes[at].tail, Key::NONE);
        while prev != Key::NONE && self.entry(prev).waiting.due > waiting.due {
            next = prev;
            prev = self.entry(prev).prev;
        }
        let lane = &mut self.models[usize::from(waiting.model.0)].lanes[at];
        lane.count += 1;
        if prev == Key::NONE {
            lane.head = key;
        }
        if next == Key::NONE {
            lane.tail = key;
        }
        if prev != Key::NONE {
            self.entry_mut(prev).next = key;
        }
        if next != Key::NONE {
            self.entry_mut(next).prev = key;
        }
        let place = key.slot as usize;
        if self.entries.len() <= place {
            self.entries.resize(place + 1, None);
        }
        let before = self.entries[place].replace(Entry {
            key,
            waiting,
            prev,
            next,
        });
        assert!(before.is_none(), "a request waits once");
    }

    fn entry(&self, key: Key) -> &Entry {
        let entry = self.entries[key.slot as usize].as_ref();
        entry.expect("a link names a waiting request")
    }

    fn entry_mut(&mut self, key: Key) -> &mut Entry {
        let entry = self.entries[key.slot as usize].as_mut();
        entry.expect("a link names a waiting request")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: ModelIx = ModelIx(1);

    const fn key(slot: u32) -> Key {
        Key {
            slot,
            generation: 1,
        }
    }

    const fn waiting(account: u64) -> Waiting {
        due(account, 1_000, 0)
    }

    const fn due(account: u64, at: u64, came_at: u64) -> Waiting {
        Waiting {
            model: MODEL,
            account: AccountId(account),
            need_tokens: 100 + account,
            due: (Tick(at), Tick(came_at)),
        }
    }

    fn queues(accounts: &[u64]) -> Queues {
        let mut queues = Queues::new(2);
        for (slot, &account) in (0..).zip(accounts) {
            queues.push(key(slot), waiting(account));
        }
        queues
    }

    #[test]
    fn accounts_take_turns_and_each_is_served_in_order() {
        let mut queues = queues(&[7, 7, 7, 8, 9]);
        let mut served = Vec::new();
        while let Some(key) = queues.pop(MODEL, Whose::Anybody, |_| true) {
            served.push(key.slot);
        }
        assert_eq!(served, [0, 3, 4, 1, 2]);
        assert_eq!(queues.need_tokens_min(MODEL), None);
    }

    #[test]
    fn what_does_not_fit_keeps_its_place_and_so_does_its_account() {
        let mut queues = queues(&[7, 7, 8]);
        assert_eq!(
            queues.pop(MODEL, Whose::Anybody, |it| it.slot == 1),
            Some(key(1))
        );
        assert_eq!(queues.keys(MODEL), [key(2), key(0)]);
        let own = Whose::Only(AccountId(7));
        assert_eq!(queues.pop(MODEL, own, |_| true), Some(key(0)));
        assert_eq!(queues.pop(MODEL, own, |_| true), None);
    }

    #[test]
    fn an_account_that_has_none_returns_to_the_head_of_the_turn() {
        let mut queues = queues(&[7, 7]);
        queues.push_again(key(5), waiting(8));
        assert_eq!(queues.keys(MODEL), [5, 0, 1].map(key));
    }

    #[test]
    fn who_returns_stands_where_it_stood_whoever_else_has_returned() {
        let came = |nth: u64| due(7, 1_000 + nth, nth);
        // Whatever comes back first.
        for back in [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ] {
            let mut queues = Queues::new(2);
            (0..5).for_each(|nth| queues.push(key(nth), came(nth.into())));
            for nth in 0..3 {
                assert_eq!(queues.pop(MODEL, Whose::Anybody, |_| true), Some(key(nth)));
            }
            for nth in back {
                queues.push_again(key(nth), came(nth.into()));
            }
            assert_eq!(queues.keys(MODEL), [0, 1, 2, 3, 4].map(key), "{back:?}");
        }
    }

    #[test]
    fn who_is_in_a_hurry_goes_first_among_its_own_and_takes_no_turn_of_others() {
        let mut queues = Queues::new(2);
        queues.push(key(0), due(7, 9_000, 0));
        queues.push(key(1), due(8, 9_000, 1));
        queues.push(key(2), due(8, 9_000, 2));
        queues.push(key(3), due(8, 2_000, 3));
        queues.push(key(4), due(8, 2_000, 4));
        assert_eq!(queues.keys(MODEL), [0, 3, 4, 1, 2].map(key));
    }

    #[test]
    fn a_request_is_taken_out_once_wherever_it_stands() {
        let mut queues = queues(&[7, 7, 7]);
        assert_eq!(queues.remove(key(1)), Some(waiting(7)));
        assert_eq!(queues.remove(key(1)), None);
        assert_eq!(queues.keys(MODEL), [key(0), key(2)]);
        queues.remove(key(2));
        queues.push(key(3), waiting(7));
        assert_eq!(queues.keys(MODEL), [key(0), key(3)]);
        assert_eq!(queues.count(MODEL), 2);
    }

    #[test]
    fn the_account_with_the_most_places_gives_way_until_shares_are_even() {
        let queues = queues(&[7, 7, 7, 8]);
        assert_eq!(queues.gives_way_to(MODEL, AccountId(9)), Some(key(2)));
        assert_eq!(queues.gives_way_to(MODEL, AccountId(8)), Some(key(2)));
        assert_eq!(queues.gives_way_to(MODEL, AccountId(7)), None);
    }
}
