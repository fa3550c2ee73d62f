//! Why an offer cannot be routed to: each reason is a bit, and open means none.

use serde::{Deserialize, Serialize};

/// The reasons against one offer at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Gate(u32);

impl Gate {
    pub const OPEN: Self = Self(0);
    pub const CANNOT_SEAL: Self = Self(1 << 0);
    pub const CRASHED: Self = Self(1 << 1);
    pub const DISTRUSTED: Self = Self(1 << 2);
    pub const DRAINING: Self = Self(1 << 3);
    pub const FULL: Self = Self(1 << 4);
    pub const PRIVATE_ONLY: Self = Self(1 << 5);
    /// It refused work since its last report: believed full until the next one.
    pub const REFUSED: Self = Self(1 << 6);
    pub const RELOADING: Self = Self(1 << 7);
    pub const THERMAL: Self = Self(1 << 8);
    pub const TOO_LARGE: Self = Self(1 << 9);
    pub const TRUST_FLOOR: Self = Self(1 << 10);
    pub const UNVERIFIED: Self = Self(1 << 11);
    pub const WEDGED: Self = Self(1 << 12);

    /// Reasons that pass by themselves as work ends: waiting makes sense.
    const PASSING: u32 = Self::FULL.0 | Self::REFUSED.0;

    #[must_use]
    pub const fn is_open(self) -> bool {
        self.0 == 0
    }

    /// Open, or closed only for want of capacity.
    #[must_use]
    pub const fn is_capable(self) -> bool {
        self.0 & !Self::PASSING == 0
    }

    pub(crate) const fn add_if(&mut self, reason: Self, holds: bool) {
        if holds {
            self.0 |= reason.0;
        }
    }
}
