//! Why an offer cannot be routed to: each reason is a bit, and open means none.

use core::fmt;

use serde::{Deserialize, Serialize};

/// The reasons against one offer at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Gate(u32);

impl Gate {
    pub(crate) const OPEN: Self = Self(0);
    pub(crate) const CANNOT_SEAL: Self = Self(1 << 0);
    pub(crate) const CRASHED: Self = Self(1 << 1);
    pub(crate) const DISTRUSTED: Self = Self(1 << 2);
    pub(crate) const DRAINING: Self = Self(1 << 3);
    pub(crate) const FULL: Self = Self(1 << 4);
    /// The machine no longer lists the model.
    pub(crate) const WITHDRAWN: Self = Self(1 << 5);
    /// It refused work since its last report: believed full until the next one.
    pub(crate) const REFUSED: Self = Self(1 << 6);
    pub(crate) const RELOADING: Self = Self(1 << 7);
    pub(crate) const THERMAL: Self = Self(1 << 8);
    pub(crate) const TOO_LARGE: Self = Self(1 << 9);
    pub(crate) const TRUST_FLOOR: Self = Self(1 << 10);
    pub(crate) const UNVERIFIED: Self = Self(1 << 11);
    pub(crate) const WEDGED: Self = Self(1 << 12);

    /// Its machine has faults that it has not made good: the last resort.
    pub(crate) const BARRED: Self = Self(1 << 13);
    /// Its machine's last report is too old.
    pub(crate) const STALE: Self = Self(1 << 14);

    pub(crate) const REASONS: usize = 15;
    /// In the order of their bits.
    const NAMES: [&'static str; Self::REASONS] = [
        "cannot seal",
        "crashed",
        "distrusted",
        "draining",
        "full",
        "withdrawn",
        "refused since its last report",
        "reloading",
        "too hot",
        "not enough memory for the model",
        "below the demanded trust",
        "not verified",
        "wedged",
        "barred",
        "no recent report",
    ];

    /// Reasons that pass by themselves as work ends: waiting makes sense.
    const PASSING: u32 = Self::FULL.0 | Self::REFUSED.0;

    #[must_use]
    pub(crate) const fn is_open(self) -> bool {
        self.0 == 0
    }

    /// Open, or closed only for want of capacity.
    #[must_use]
    pub(crate) const fn is_capable(self) -> bool {
        self.0 & !Self::PASSING == 0
    }

    /// The same for a machine that is barred: once nobody else is there.
    pub(crate) const fn is_capable_at_last(self) -> bool {
        self.0 & !(Self::PASSING | Self::BARRED.0) == 0
    }

    pub(crate) const fn add_if(&mut self, reason: Self, holds: bool) {
        if holds {
            self.0 |= reason.0;
        }
    }

    /// The numbers of the reasons that hold.
    pub(crate) fn reasons(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        core::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let reason = left.trailing_zeros();
            left &= left - 1;
            usize::try_from(reason).ok()
        })
    }

    pub(crate) const fn name(reason: usize) -> &'static str {
        Self::NAMES[reason]
    }
}

/// `open`, or the reasons.
impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_open() {
            return f.write_str("open");
        }
        for (nth, reason) in self.reasons().enumerate() {
            let comma = if nth == 0 { "" } else { ", " };
            write!(f, "{comma}{}", Self::name(reason))?;
        }
        Ok(())
    }
}
