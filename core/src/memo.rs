//! What is known under a name, as far as there is room: a bounded memory that forgets what was not used
//! for the longest. Several things may be known under one name.

use core::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

use crate::digest::Mix;

/// Places that a name may take.
const WAYS: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry<V> {
    name: u64,
    /// The count of writes at its last.
    at: u64,
    value: V,
}

/// See the module. Names are spread already: they are hashes. Nothing is allocated before the first write,
/// and nothing after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memo<V> {
    sets: u32,
    places: Vec<Option<Entry<V>>>,
    writes: u64,
    /// Of every write: it stands for the state, which is too large to be read at each checkpoint.
    written: Mix,
}

impl<V: Copy + Hash> Memo<V> {
    /// # Panics
    /// The number of places is no power of two of at least eight.
    pub(crate) const fn new(places: u32) -> Self {
        assert!(places.is_power_of_two() && places as usize >= WAYS);
        Self {
            sets: places / WAYS as u32,
            places: Vec::new(),
            writes: 0,
            written: Mix::keyed([0, 0]),
        }
    }

    /// All that is known under a name.
    pub(crate) fn of(&self, name: u64) -> impl Iterator<Item = &V> {
        let set = self.places.get(self.range(name)).unwrap_or_default();
        let named = set.iter().flatten().filter(move |entry| entry.name == name);
        named.map(|entry| &entry.value)
    }

    /// Writes what is known under a name, in the place of what is the same, of nothing, or of what was
    /// written longest ago.
    pub(crate) fn put(&mut self, name: u64, value: V, is_same: impl Fn(&V) -> bool) {
        if self.places.is_empty() {
            self.places = vec![None; self.sets as usize * WAYS];
        }
        self.writes += 1;
        self.written.word(name);
        value.hash(&mut self.written);
        let entry = Entry {
            name,
            at: self.writes,
            value,
        };
        let range = self.range(name);
        let set = &mut self.places[range];
        let is_its = |place: &&mut Option<Entry<V>>| {
            place.is_some_and(|held| held.name == name && is_same(&held.value))
        };
        if let Some(place) = set.iter_mut().find(is_its) {
            *place = Some(entry);
            return;
        }
        let oldest = set.iter_mut().min_by_key(|place| place.map(|held| held.at));
        *oldest.expect("a set has places") = Some(entry);
    }

    /// Forgets what `is_it` of what is known under a name.
    pub(crate) fn forget(&mut self, name: u64, is_it: impl Fn(&V) -> bool) {
        self.writes += 1;
        self.written.word(name);
        let range = self.range(name);
        for place in self.places.get_mut(range).unwrap_or_default() {
            place.take_if(|held| held.name == name && is_it(&held.value));
        }
    }

    fn range(&self, name: u64) -> core::ops::Range<usize> {
        let set = (name % u64::from(self.sets)) as usize;
        set * WAYS..(set + 1) * WAYS
    }
}

impl<V> Hash for Memo<V> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.sets.hash(state);
        self.writes.hash(state);
        self.written.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let mut memo = Memo::<u32>::new(8);
        assert_eq!(memo.of(0).count(), 0);
        for name in 0..8u32 {
            memo.put(name.into(), name * 10, |_| true);
        }
        memo.put(0, 7, |_| true);
        memo.put(99, 990, |_| true);
        assert_eq!(memo.of(0).copied().collect::<Vec<_>>(), [7]);
        assert_eq!(memo.of(1).count(), 0, "the oldest");
        assert_eq!(memo.of(99).copied().collect::<Vec<_>>(), [990]);
        assert_eq!(memo.of(7).copied().collect::<Vec<_>>(), [70]);
        memo.forget(7, |value| *value == 71);
        assert_eq!(memo.of(7).count(), 1);
        memo.forget(7, |value| *value == 70);
        assert_eq!(memo.of(7).count(), 0);
    }

    #[test]
    fn one_name_may_stand_for_several() {
        let mut memo = Memo::<(u8, u8)>::new(16);
        for (who, what) in [(1, 1), (2, 1), (1, 2)] {
            memo.put(5, (who, what), |held| held.0 == who);
        }
        let mut known: Vec<_> = memo.of(5).copied().collect();
        known.sort_unstable();
        assert_eq!(known, [(1, 2), (2, 1)]);
    }

    #[test]
    fn equal_writes_give_equal_digests_and_others_do_not() {
        let of = |writes: &[(u64, u32)]| {
            let mut memo = Memo::<u32>::new(8);
            for &(name, value) in writes {
                memo.put(name, value, |_| true);
            }
            (Mix::of(&memo), memo)
        };
        let one = of(&[(1, 2), (3, 4)]);
        assert_eq!(one, of(&[(1, 2), (3, 4)]));
        assert_ne!(one.0, of(&[(3, 4), (1, 2)]).0);
        let bytes = postcard::to_stdvec(&one.1).unwrap();
        assert_eq!(postcard::from_bytes::<Memo<u32>>(&bytes).unwrap(), one.1);
    }
}
