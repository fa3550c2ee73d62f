//! Our open-addressing index: find, insert, remove, and no way to iterate, so that no decision can
//! hang on its order.

use serde::{Deserialize, Serialize};

use crate::ids::{AccountId, ConnId, RequestId};

/// What can be looked up. The bits are spread here, since ids are often counters.
pub trait LookupKey: Copy + Eq {
    fn bits(self) -> u128;
}

impl LookupKey for AccountId {
    fn bits(self) -> u128 {
        u128::from(self.0)
    }
}

impl LookupKey for ConnId {
    fn bits(self) -> u128 {
        u128::from(self.0)
    }
}

impl LookupKey for RequestId {
    fn bits(self) -> u128 {
        self.0
    }
}

const CAPACITY_MIN: usize = 16;
/// The golden ratio's fraction: neighbouring counters land far apart.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Linear probing, at most seven eighths full, deletion by shifting back.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lookup<K> {
    places: Vec<Option<(K, u32)>>,
    count: usize,
}

impl<K: LookupKey> Default for Lookup<K> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            count: 0,
        }
    }
}

impl<K: LookupKey> Lookup<K> {
    #[must_use]
    pub fn get(&self, key: K) -> Option<u32> {
        if self.places.is_empty() {
            return None;
        }
        let mut ix = self.home(key);
        while let Some((held, value)) = self.places[ix] {
            if held == key {
                return Some(value);
            }
            ix = self.after(ix);
        }
        None
    }

    /// Inserts a key that is not there yet.
    pub fn insert(&mut self, key: K, value: u32) {
        if (self.count + 1) * 8 > self.places.len() * 7 {
            self.grow();
        }
        let mut ix = self.home(key);
        while let Some((held, _)) = self.places[ix] {
            assert!(held != key, "a key is inserted once");
            ix = self.after(ix);
        }
        self.places[ix] = Some((key, value));
        self.count += 1;
    }

    pub fn remove(&mut self, key: K) -> Option<u32> {
        if self.places.is_empty() {
            return None;
        }
        let mut hole = self.home(key);
        let removed = loop {
            let (held, value) = self.places[hole]?;
            if held == key {
                break value;
            }
            hole = self.after(hole);
        };
        self.places[hole] = None;
        self.count -= 1;
        let mut ix = self.after(hole);
        while let Some((held, _)) = self.places[ix] {
            let home = self.home(held);
            if self.distance(home, ix) >= self.distance(hole, ix) {
                self.places[hole] = self.places[ix].take();
                hole = ix;
            }
            ix = self.after(ix);
        }
        Some(removed)
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    fn grow(&mut self) {
        let capacity = (self.places.len() * 2).max(CAPACITY_MIN);
        let old = core::mem::replace(&mut self.places, vec![None; capacity]);
        self.count = 0;
        for (key, value) in old.into_iter().flatten() {
            self.insert(key, value);
        }
    }

    fn home(&self, key: K) -> usize {
        let bits = key.bits();
        let word = (bits as u64) ^ ((bits >> 64) as u64).rotate_left(32);
        let wide = u128::from(word ^ SPREAD) * u128::from(SPREAD);
        ((wide >> 64) as usize ^ wide as usize) & (self.places.len() - 1)
    }

    fn after(&self, ix: usize) -> usize {
        (ix + 1) & (self.places.len() - 1)
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.places.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_answers_as_a_map_does(ops in prop::collection::vec((0u64..40, any::<bool>()), 0..400)) {
            let mut lookup = Lookup::default();
            let mut map = BTreeMap::new();
            for (number, insert) in ops {
                let key = ConnId(number);
                if insert && !map.contains_key(&number) {
                    let value = u32::try_from(map.len()).unwrap();
                    lookup.insert(key, value);
                    map.insert(number, value);
                } else {
                    prop_assert_eq!(lookup.remove(key), map.remove(&number));
                }
                for probe in 0..40 {
                    prop_assert_eq!(lookup.get(ConnId(probe)), map.get(&probe).copied());
                }
                prop_assert_eq!(lookup.count(), map.len());
            }
        }
    }
}
