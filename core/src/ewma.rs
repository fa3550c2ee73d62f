//! An exponential average in integers: decisions take no floats, which differ from platform to
//! platform.

use serde::{Deserialize, Serialize};

/// Exponential average in 16-bit fixed point; `shift` 3 weighs the newest sample one eighth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ewma {
    scaled: u64,
    shift: u8,
}

impl Ewma {
    #[must_use]
    pub const fn seeded(first: u32, shift: u8) -> Self {
        Self {
            scaled: (first as u64) << 16,
            shift,
        }
    }

    pub const fn push(&mut self, sample: u32) {
        let target = (sample as u64) << 16;
        self.scaled = self.scaled - (self.scaled >> self.shift) + (target >> self.shift);
    }

    #[must_use]
    pub const fn value(self) -> u32 {
        (self.scaled >> 16) as u32
    }
}
