//! Chance bound to what it is for: a keyed hash, not a stream.
//!
//! Adding a draw elsewhere leaves every other draw unchanged, so a replay of an edited world differs
//! only where the edit matters.

use serde::{Deserialize, Serialize};

use crate::digest::Mix;

/// What a draw is for. The number is part of the hash: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    AttemptId = 1,
    BackoffJitter = 2,
    Candidate = 3,
    // 4 was one that is gone.
    RetryJitter = 5,
    Sampling = 6,
    Simulation = 7,
    Tie = 8,
    Load = 9,
}

/// The secret from which every draw of one process follows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Seed(pub [u64; 2]);

impl core::fmt::Debug for Seed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Seed(..)")
    }
}

impl Seed {
    /// For simulations and tests, where the seed is no secret.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self([number, 0x0063_6572_6575_7321])
    }

    #[must_use]
    pub fn draw(&self, purpose: Purpose, a: u128, b: u128) -> u64 {
        self.mixed(purpose, a, b).end()
    }

    #[must_use]
    pub fn draw_wide(&self, purpose: Purpose, a: u128, b: u128) -> u128 {
        self.mixed(purpose, a, b).end_wide()
    }

    /// A draw in `0..bound`, by multiplication (bias below 2^-32 for bounds below 2^32).
    #[must_use]
    pub fn draw_below(&self, purpose: Purpose, a: u128, b: u128, bound: u64) -> u64 {
        let wide = u128::from(self.draw(purpose, a, b)) * u128::from(bound);
        u64::try_from(wide >> 64).expect("the high half of a product of two u64 is a u64")
    }

    fn mixed(self, purpose: Purpose, a: u128, b: u128) -> Mix {
        let mut mix = Mix::keyed(self.0);
        mix.word(purpose as u64).wide(a).wide(b);
        mix
    }
}
