//! The event queue: what happens next in the simulated world.
//!
//! A wheel of buckets four milliseconds wide covers the next 16 s, where nearly every event falls; what
//! lies further waits in a heap. Only the bucket under the hand is ordered. Order is total: by time,
//! then by rank, which the caller or the queue's own counter gives.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use cereus_core::time::Tick;

/// Width of a bucket: 2^12 us. With a thousand machines one holds about two events, and the wheel
/// fits a core's own cache.
const BUCKET_SHIFT: u32 = 12;
const BUCKETS: usize = 1 << 12;
const WORDS: usize = BUCKETS / 64;

/// Ranks below this are the caller's: they come before every counted event of their tick.
pub const RANK_COUNTED_FIRST: u64 = 1 << 32;

#[derive(Clone, Debug)]
struct Entry<T> {
    at: Tick,
    rank: u64,
    what: T,
}

impl<T> Entry<T> {
    const fn key(&self) -> (u64, u64) {
        (self.at.0, self.rank)
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct EventQueue<T> {
    now: Tick,
    counter: u64,
    len: usize,
    /// The bucket under the hand, ordered.
    current: BinaryHeap<Reverse<Entry<T>>>,
    /// Number of the bucket under the hand since the origin, not wrapped.
    hand: u64,
    buckets: Vec<Vec<Entry<T>>>,
    occupied: Vec<u64>,
    near_len: usize,
    far: BinaryHeap<Reverse<Entry<T>>>,
}

impl<T> Default for EventQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> EventQueue<T> {
    #[must_use]
    pub fn new() -> Self {
        Self {
            now: Tick::ZERO,
            counter: RANK_COUNTED_FIRST,
            len: 0,
            current: BinaryHeap::new(),
            hand: 0,
            buckets: (0..BUCKETS).map(|_| Vec::new()).collect(),
            occupied: vec![0; WORDS],
            near_len: 0,
            far: BinaryHeap::new(),
        }
    }

    /// When the latest event that was popped happened.
    #[must_use]
    pub const fn now(&self) -> Tick {
        self.now
    }

    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// After everything pushed before for the same tick.
    pub fn push(&mut self, at: Tick, what: T) {
        let rank = self.counter;
        self.counter += 1;
        self.insert(Entry { at, rank, what });
    }

    /// Before every counted event of its tick, and by `rank` among its like.
    pub fn push_ranked(&mut self, at: Tick, rank: u32, what: T) {
        self.insert(Entry {
            at,
            rank: u64::from(rank),
            what,
        });
    }

    pub fn pop(&mut self) -> Option<(Tick, T)> {
        while self.current.is_empty() {
            if !self.turn() {
                return None;
            }
        }
        let Reverse(entry) = self.current.pop()?;
        self.len -= 1;
        self.now = entry.at;
        Some((entry.at, entry.what))
    }

    fn insert(&mut self, entry: Entry<T>) {
        assert!(entry.at >= self.now, "nothing happens in the past (INV-11)");
        self.len += 1;
        let bucket = entry.at.0 >> BUCKET_SHIFT;
        if bucket <= self.hand {
            self.current.push(Reverse(entry));
        } else if bucket - self.hand < BUCKETS as u64 {
            self.near(bucket, entry);
        } else {
            self.far.push(Reverse(entry));
        }
    }

    fn near(&mut self, bucket: u64, entry: Entry<T>) {
        let ix = wrapped(bucket);
        self.occupied[ix / 64] |= 1 << (ix % 64);
        self.buckets[ix].push(entry);
        self.near_len += 1;
    }

    /// Moves the hand to the next bucket that holds something. False when nothing is left.
    fn turn(&mut self) -> bool {
        if self.near_len > 0 {
            self.hand = self.next_occupied();
        } else if let Some(Reverse(first)) = self.far.peek() {
            self.hand = first.at.0 >> BUCKET_SHIFT;
        } else {
            return false;
        }
        let ix = wrapped(self.hand);
        self.occupied[ix / 64] &= !(1 << (ix % 64));
        self.near_len -= self.buckets[ix].len();
        self.current.extend(self.buckets[ix].drain(..).map(Reverse));
        self.refill();
        true
    }

    /// What the horizon now covers comes in from afar.
    fn refill(&mut self) {
        while let Some(Reverse(first)) = self.far.peek() {
            let bucket = first.at.0 >> BUCKET_SHIFT;
            if bucket >= self.hand + BUCKETS as u64 {
                return;
            }
            let Some(Reverse(entry)) = self.far.pop() else {
                return;
            };
            if bucket <= self.hand {
                self.current.push(Reverse(entry));
            } else {
                self.near(bucket, entry);
            }
        }
    }

    fn next_occupied(&self) -> u64 {
        let start = wrapped(self.hand);
        let first_word = start / 64;
        let after =
            self.occupied[first_word] & (!0u64).checked_shl(1 + (start % 64) as u32).unwrap_or(0);
        if after != 0 {
            return self.hand + distance(start, first_word * 64 + after.trailing_zeros() as usize);
        }
        for step in 1..=WORDS {
            let word = (first_word + step) % WORDS;
            let bits = self.occupied[word];
            if bits != 0 {
                let ix = word * 64 + bits.trailing_zeros() as usize;
                return self.hand + distance(start, ix);
            }
        }
        unreachable!("near_len counts what the buckets hold")
    }
}

/// Buckets from `start` forward to `ix`, around the wheel.
const fn distance(start: usize, ix: usize) -> u64 {
    ((ix + BUCKETS - start) % BUCKETS) as u64
}

const fn wrapped(bucket: u64) -> usize {
    (bucket % BUCKETS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Stream;

    #[test]
    fn events_come_in_order_of_time_then_of_pushing() {
        let mut stream = Stream::new(5, "queue");
        let mut queue = EventQueue::new();
        let mut model: Vec<(u64, u64)> = Vec::new();
        let mut popped = Vec::new();
        for number in 0..20_000u64 {
            let spread = [3, 900, 40_000, 30_000_000, 400_000_000][stream.below(5) as usize];
            let at = queue.now().0 + stream.below(spread);
            queue.push(Tick(at), number);
            model.push((at, number));
            if stream.below(3) == 0 {
                popped.push(queue.pop().map(|(at, what)| (at.0, what)).unwrap());
            }
        }
        while let Some((at, what)) = queue.pop() {
            popped.push((at.0, what));
        }
        assert!(queue.is_empty());
        // Popping never runs ahead of a later push, so the whole output is sorted.
        model.sort_unstable();
        assert_eq!(popped, model);
    }

    #[test]
    fn ranked_events_precede_counted_ones_of_their_tick() {
        let mut queue = EventQueue::new();
        queue.push(Tick(5), "counted");
        queue.push_ranked(Tick(5), 9, "nine");
        queue.push_ranked(Tick(5), 2, "two");
        let order: Vec<&str> = std::iter::from_fn(|| queue.pop().map(|(_, what)| what)).collect();
        assert_eq!(order, ["two", "nine", "counted"]);
    }
}
