//! A generational slab: values in a dense vector, named by eight-byte keys that go stale.

use serde::{Deserialize, Serialize};

/// Names one value. A key whose value was removed finds nothing, even when the place is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    pub slot: u32,
    pub generation: u32,
}

impl Key {
    /// Finds nothing, ever.
    pub const NONE: Self = Self {
        slot: u32::MAX,
        generation: 0,
    };
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

/// Bounded by `limit`; the free list is last in, first out, hence deterministic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Slab<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    limit: u32,
}

impl<T> Slab<T> {
    #[must_use]
    pub const fn with_limit(limit: u32) -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            limit,
        }
    }

    /// From now on. What is there already stays, be it more.
    pub const fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// Whether [`Self::insert`] would find a place.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.count() < self.limit as usize
    }

    /// `None` when the slab is full; the value is dropped then.
    pub fn insert(&mut self, value: T) -> Option<Key> {
        if !self.has_room() {
            return None;
        }
        if let Some(slot) = self.free.pop() {
            let entry = &mut self.entries[slot as usize];
            assert!(entry.value.is_none(), "a free place holds nothing");
            entry.value = Some(value);
            return Some(Key {
                slot,
                generation: entry.generation,
            });
        }
        let slot = u32::try_from(self.entries.len()).ok()?;
        self.entries.push(Entry {
            generation: 1,
            value: Some(value),
        });
        Some(Key {
            slot,
            generation: 1,
        })
    }

    pub fn remove(&mut self, key: Key) -> Option<T> {
        let entry = self.entries.get_mut(key.slot as usize)?;
        if entry.generation != key.generation {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = entry.generation.wrapping_add(1).max(1);
        self.free.push(key.slot);
        Some(value)
    }

    #[must_use]
    pub fn get(&self, key: Key) -> Option<&T> {
        let entry = self.entries.get(key.slot as usize)?;
        if entry.generation == key.generation {
            entry.value.as_ref()
        } else {
            None
        }
    }

    /// The value at a place, if it is taken.
    #[must_use]
    pub fn get_at(&self, slot: u32) -> Option<&T> {
        self.entries.get(slot as usize)?.value.as_ref()
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let entry = self.entries.get_mut(key.slot as usize)?;
        if entry.generation == key.generation {
            entry.value.as_mut()
        } else {
            None
        }
    }

    /// The value at a place that the caller's own index proves to be taken.
    #[must_use]
    pub fn at(&self, slot: u32) -> &T {
        self.entries[slot as usize]
            .value
            .as_ref()
            .expect("the index names a taken place")
    }

    pub fn at_mut(&mut self, slot: u32) -> &mut T {
        self.entries[slot as usize]
            .value
            .as_mut()
            .expect("the index names a taken place")
    }

    /// The full key of a taken place.
    #[must_use]
    pub fn key_at(&self, slot: u32) -> Key {
        let entry = &self.entries[slot as usize];
        assert!(entry.value.is_some(), "the index names a taken place");
        Key {
            slot,
            generation: entry.generation,
        }
    }

    /// In order of place.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        (0u32..)
            .zip(self.entries.iter())
            .filter_map(|(slot, entry)| {
                let value = entry.value.as_ref()?;
                Some((
                    Key {
                        slot,
                        generation: entry.generation,
                    },
                    value,
                ))
            })
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_finds_nothing_after_its_place_is_reused() {
        let mut slab = Slab::with_limit(2);
        let first = slab.insert('a').unwrap();
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b').unwrap();
        assert_eq!(second.slot, first.slot);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&'b'));
    }

    #[test]
    fn a_lower_limit_lets_nothing_in_until_enough_has_left() {
        let mut slab = Slab::with_limit(3);
        let keys = ['a', 'b', 'c'].map(|value| slab.insert(value).unwrap());
        slab.set_limit(2);
        slab.remove(keys[0]);
        assert!(slab.insert('d').is_none());
        slab.remove(keys[1]);
        assert!(slab.insert('d').is_some());
    }

    #[test]
    fn the_limit_holds() {
        let mut slab = Slab::with_limit(1);
        assert!(slab.has_room() && slab.insert(1).is_some());
        assert!(!slab.has_room() && slab.insert(2).is_none());
        assert_eq!(slab.count(), 1);
    }
}
