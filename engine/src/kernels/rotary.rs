//! Sines and cosines of rotary positions, computed once for each position and kept.

use std::sync::{Arc, RwLock};

/// One stretching of rotary positions, shared by the layers that use it.
#[derive(Debug)]
pub struct Rotary {
    /// Radians that each pair of components turns by for one position.
    frequencies: Vec<f32>,
    pairs: Pairs,
    /// What cosines and sines are multiplied by; YaRN has a use for it.
    magnitude: f32,
    /// The cosines and then the sines of each position from zero on.
    table: RwLock<Arc<Vec<f32>>>,
}

/// Which two components turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// One of the first half of those that turn, with its like of the second.
    Halves,
    Neighbours,
}

/// Positions by which the table grows.
const GROWTH: usize = 512;

impl Rotary {
    #[must_use]
    pub fn new(frequencies: Vec<f32>, pairs: Pairs, magnitude: f32) -> Self {
        Self {
            frequencies,
            pairs,
            magnitude,
            table: RwLock::default(),
        }
    }

    /// Whether the two turn every position alike.
    #[must_use]
    pub fn turns_as(&self, other: &Self) -> bool {
        (&self.frequencies, self.pairs, self.magnitude)
            == (&other.frequencies, other.pairs, other.magnitude)
    }

    pub(super) fn pairs(&self) -> Pairs {
        self.pairs
    }

    /// Components that turn: the first so many of a head.
    #[must_use]
    pub fn width(&self) -> usize {
        2 * self.frequencies.len()
    }

    /// The table of all positions below `end` at least: for each its cosines, then its sines.
    pub(super) fn table(&self, end: usize) -> Arc<Vec<f32>> {
        let known = Arc::clone(&self.table.read().expect("filling the table cannot panic"));
        if known.len() >= end * self.width() {
            return known;
        }
        let mut table = self.table.write().expect("filling the table cannot panic");
        let mut grown = Vec::clone(&table);
        let first = grown.len() / self.width();
        for position in first..end.next_multiple_of(GROWTH) {
            #[expect(clippy::cast_precision_loss, reason = "contexts are far below 2^24")]
            let turns = |frequency: &f32| f64::from(position as f32 * frequency);
            let angles = self.frequencies.iter().map(turns);
            #[expect(clippy::cast_possible_truncation, reason = "float32 is what is kept")]
            let kept = |value: f64| value as f32 * self.magnitude;
            grown.extend(angles.clone().map(|angle| kept(angle.cos())));
            grown.extend(angles.map(|angle| kept(angle.sin())));
        }
        *table = Arc::new(grown);
        Arc::clone(&table)
    }
}

/// Turns the first components of a head in place. `turn` holds the position's cosines and sines.
#[inline(always)]
pub(super) fn rotate(head: &mut [f32], pairs: Pairs, turn: &[f32]) {
    let half = turn.len() / 2;
    let (cosines, sines) = turn.split_at(half);
    let turns = cosines.iter().zip(sines);
    match pairs {
        Pairs::Halves => {
            let (first, rest) = head.split_at_mut(half);
            let pairs = first.iter_mut().zip(&mut rest[..half]);
            for ((a, b), (cos, sin)) in pairs.zip(turns) {
                turn_pair(a, b, *cos, *sin);
            }
        }
        Pairs::Neighbours => {
            for (pair, (cos, sin)) in head.chunks_exact_mut(2).zip(turns) {
                let [a, b] = pair else {
                    unreachable!("a chunk of two");
                };
                turn_pair(a, b, *cos, *sin);
            }
        }
    }
}

#[inline(always)]
fn turn_pair(a: &mut f32, b: &mut f32, cos: f32, sin: f32) {
    let (x, y) = (*a, *b);
    *a = x * cos - y * sin;
    *b = y * cos + x * sin;
}
