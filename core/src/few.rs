//! A list of a few values in place: no allocation, and a limit that its type names.

use core::hash::{Hash, Hasher};

/// At most `MAX` values, in the order in which they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Few<T, const MAX: usize> {
    places: [Option<T>; MAX],
}

impl<T: Copy, const MAX: usize> Few<T, MAX> {
    pub const EMPTY: Self = Self {
        places: [None; MAX],
    };

    /// # Panics
    /// There are more than `MAX`: whoever makes the list knows its limit.
    #[must_use]
    pub fn of(values: &[T]) -> Self {
        let mut few = Self::EMPTY;
        values.iter().for_each(|&value| few.push(value));
        few
    }

    /// # Panics
    /// There are `MAX` already.
    pub fn push(&mut self, value: T) {
        let free = self.places.iter_mut().find(|place| place.is_none());
        *free.expect("whoever makes the list knows its limit") = Some(value);
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.iter().flatten()
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.iter().count()
    }
}

/// Of the values alone, so that a higher limit changes no digest.
impl<T: Hash + Copy, const MAX: usize> Hash for Few<T, MAX> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.count().hash(state);
        self.iter().for_each(|value| value.hash(state));
    }
}

impl<'a, T: Copy, const MAX: usize> IntoIterator for &'a Few<T, MAX> {
    type Item = &'a T;
    type IntoIter = core::iter::Flatten<core::slice::Iter<'a, Option<T>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.places.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_values_keep_their_order_and_their_limit() {
        let mut few = Few::<u8, 3>::of(&[5, 4]);
        few.push(6);
        assert_eq!(few.iter().copied().collect::<Vec<_>>(), [5, 4, 6]);
        assert_eq!((&few).into_iter().count(), few.count());
    }
}
