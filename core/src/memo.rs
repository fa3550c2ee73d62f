//! What is known under a name, as far as there is room: a bounded memory that forgets what was not used
//! for the longest. Several things may be known under one name.

use core::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

use crate::digest::Mix;

/// Places that a name may take.
const WAYS: usize = 8;
/// No memory is larger: what a snapshot says is not believed beyond that.
const SETS_MAX: u32 = 1 << 20;
/// Stands where nothing is known.
const NOBODY: u64 = 0;

/// Places that names share, each array in cache lines of its own: who looks for a name reads one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Set<V> {
    /// The count of writes at each one's last.
    at: [u64; WAYS],
    values: [V; WAYS],
}

/// See the module. Names are spread already: they are hashes. Nothing is allocated before the first write,
/// and nothing after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    into = "Sparse<V>",
    try_from = "Sparse<V>",
    bound(
        serialize = "V: Copy + Default + Serialize",
        deserialize = "V: Copy + Default + Deserialize<'de>"
    )
)]
pub(crate) struct Memo<V: Copy + Default> {
    sets: u32,
    names: Vec<[u64; WAYS]>,
    held: Vec<Set<V>>,
    writes: u64,
    /// Of every write: it stands for the state, which is too large to be read at each checkpoint.
    written: Mix,
}

impl<V: Copy + Default + Hash> Memo<V> {
    /// # Panics
    /// The number of places is no power of two of at least eight.
    pub(crate) const fn new(places: u32) -> Self {
        assert!(places.is_power_of_two() && places as usize >= WAYS);
        Self {
            sets: places / WAYS as u32,
            names: Vec::new(),
            held: Vec::new(),
            writes: 0,
            written: Mix::keyed([0, 0]),
        }
    }

    /// All that is known under a name.
    pub(crate) fn of(&self, name: u64) -> impl Iterator<Item = &V> {
        let name = name.max(NOBODY + 1);
        let set = self.set_of(name);
        let names = self.names.get(set).into_iter().flatten();
        let named = names.enumerate().filter(move |(_, held)| **held == name);
        named.map(move |(way, _)| &self.held[set].values[way])
    }

    /// Writes what is known under a name, in the place of what is the same, of nothing, or of what was
    /// written longest ago.
    pub(crate) fn put(&mut self, name: u64, value: V, is_same: impl Fn(&V) -> bool) {
        self.furnish();
        self.writes += 1;
        self.written.word(name);
        value.hash(&mut self.written);
        let name = name.max(NOBODY + 1);
        let set = self.set_of(name);
        let (names, held) = (&mut self.names[set], &mut self.held[set]);
        let is_its = |way: &usize| names[*way] == name && is_same(&held.values[*way]);
        let age = |way: &usize| (names[*way] != NOBODY).then_some(held.at[*way]);
        let same = (0..WAYS).find(is_its);
        let way = same.or_else(|| (0..WAYS).min_by_key(age));
        let way = way.expect("a set has places");
        names[way] = name;
        held.at[way] = self.writes;
        held.values[way] = value;
    }

    /// Forgets what `is_it` of what is known under a name.
    pub(crate) fn forget(&mut self, name: u64, is_it: impl Fn(&V) -> bool) {
        self.writes += 1;
        self.written.word(name);
        let name = name.max(NOBODY + 1);
        let set = self.set_of(name);
        let Some(names) = self.names.get_mut(set) else {
            return;
        };
        for (way, held) in names.iter_mut().enumerate() {
            if *held == name && is_it(&self.held[set].values[way]) {
                *held = NOBODY;
            }
        }
    }
}

impl<V: Copy + Default> Memo<V> {
    fn furnish(&mut self) {
        if self.names.is_empty() {
            let set = Set {
                at: [0; WAYS],
                values: [V::default(); WAYS],
            };
            self.names = vec![[NOBODY; WAYS]; self.sets as usize];
            self.held = vec![set; self.sets as usize];
        }
    }

    fn set_of(&self, name: u64) -> usize {
        (name % u64::from(self.sets)) as usize
    }
}

impl<V: Copy + Default> Hash for Memo<V> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.sets.hash(state);
        self.writes.hash(state);
        self.written.hash(state);
    }
}

/// A memory as a snapshot holds it: what is known, and where.
#[derive(Serialize, Deserialize)]
struct Sparse<V> {
    sets: u32,
    writes: u64,
    written: Mix,
    /// Place, name, count of writes at its last, and what is known.
    known: Vec<(u32, u64, u64, V)>,
}

impl<V: Copy + Default> From<Memo<V>> for Sparse<V> {
    fn from(memo: Memo<V>) -> Self {
        let mut known = Vec::new();
        for (set, names) in memo.names.iter().enumerate() {
            for (way, &name) in names.iter().enumerate() {
                if name != NOBODY {
                    let held = &memo.held[set];
                    let place = u32::try_from(set * WAYS + way).expect("places fit");
                    known.push((place, name, held.at[way], held.values[way]));
                }
            }
        }
        Self {
            sets: memo.sets,
            writes: memo.writes,
            written: memo.written,
            known,
        }
    }
}

impl<V: Copy + Default> TryFrom<Sparse<V>> for Memo<V> {
    type Error = &'static str;

    fn try_from(sparse: Sparse<V>) -> Result<Self, Self::Error> {
        let mut memo = Self {
            sets: sparse.sets,
            names: Vec::new(),
            held: Vec::new(),
            writes: sparse.writes,
            written: sparse.written,
        };
        if memo.sets == 0 || memo.sets > SETS_MAX {
            return Err("a memory of no size");
        }
        if !sparse.known.is_empty() {
            memo.furnish();
        }
        for (place, name, at, value) in sparse.known {
            let (set, way) = (place as usize / WAYS, place as usize % WAYS);
            let names = memo.names.get_mut(set).ok_or("a place that is not there")?;
            names[way] = name;
            memo.held[set].at[way] = at;
            memo.held[set].values[way] = value;
        }
        Ok(memo)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let mut memo = Memo::<u32>::new(8);
        assert_eq!(memo.of(1).count(), 0);
        for name in 1..=8u32 {
            memo.put(name.into(), name * 10, |_| true);
        }
        memo.put(1, 7, |_| true);
        memo.put(99, 990, |_| true);
        assert_eq!(memo.of(1).copied().collect::<Vec<_>>(), [7]);
        assert_eq!(memo.of(2).count(), 0, "the oldest");
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

    #[test]
    fn a_snapshot_holds_what_is_known_and_no_more() {
        let mut memo = Memo::<u32>::new(1 << 12);
        assert!(postcard::to_stdvec(&memo).unwrap().len() < 64);
        for name in 0..100u32 {
            memo.put(name.into(), name, |_| true);
        }
        memo.forget(50, |_| true);
        let bytes = postcard::to_stdvec(&memo).unwrap();
        assert!(bytes.len() < 1_000, "{}", bytes.len());
        let again: Memo<u32> = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(again.of(7).copied().collect::<Vec<_>>(), [7]);
        assert_eq!(again.of(50).count(), 0);
        assert_eq!(Mix::of(&again), Mix::of(&memo));
        let mut both = [memo, again];
        for memo in &mut both {
            (0..5_000u32).for_each(|name| memo.put(name.into(), name, |_| true));
        }
        assert_eq!(both[0], both[1]);
    }

    #[test]
    fn a_snapshot_that_names_what_cannot_be_is_refused() {
        for (sets, place) in [(0, 0), (u32::MAX, 0), (4, 32)] {
            let sparse = Sparse {
                sets,
                writes: 1,
                written: Mix::keyed([0, 0]),
                known: vec![(place, 1u64, 1u64, 1u32)],
            };
            assert!(Memo::try_from(sparse).is_err(), "{sets} {place}");
        }
    }
}
