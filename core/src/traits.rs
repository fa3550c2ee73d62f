//! What a request needs of a machine and what a machine has, as masks: one comparison tells whether it
//! suits, whatever is added.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::event::Trust;

/// A set of traits.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Traits(u32);

impl Traits {
    pub const NONE: Self = Self(0);
    /// The machine's identity is at least signed by itself.
    pub const SELF_SIGNED: Self = Self(1 << 0);
    /// The machine's identity is proven by its hardware.
    pub const HARDWARE: Self = Self(1 << 1);

    const NAMES: [(Self, &'static str); 2] = [
        (Self::SELF_SIGNED, "a signed identity"),
        (Self::HARDWARE, "an identity proven by hardware"),
    ];

    /// What an identity of this trust has; as a need, what one of at least this trust has.
    #[must_use]
    pub const fn of_trust(trust: Trust) -> Self {
        match trust {
            Trust::None => Self::NONE,
            Trust::SelfSigned => Self::SELF_SIGNED,
            Trust::Hardware => Self(Self::SELF_SIGNED.0 | Self::HARDWARE.0),
        }
    }

    /// The highest trust whose traits are all here.
    #[must_use]
    pub const fn trust(self) -> Trust {
        if self.cover(Self::of_trust(Trust::Hardware)) {
            Trust::Hardware
        } else if self.cover(Self::of_trust(Trust::SelfSigned)) {
            Trust::SelfSigned
        } else {
            Trust::None
        }
    }

    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether nothing of `needs` is missing.
    #[must_use]
    pub const fn cover(self, needs: Self) -> bool {
        needs.0 & !self.0 == 0
    }
}

/// `nothing`, or the names.
impl fmt::Display for Traits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE {
            return f.write_str("nothing");
        }
        let named = Self::NAMES.iter().filter(|(one, _)| self.cover(*one));
        for (nth, (_, name)) in named.enumerate() {
            let comma = if nth == 0 { "" } else { ", " };
            write!(f, "{comma}{name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_trust_covers_less_and_not_the_reverse() {
        let all = [Trust::None, Trust::SelfSigned, Trust::Hardware];
        for has in all {
            assert_eq!(Traits::of_trust(has).trust(), has);
            for needs in all {
                let covers = Traits::of_trust(has).cover(Traits::of_trust(needs));
                assert_eq!(covers, has >= needs, "{has:?} for {needs:?}");
            }
        }
        assert_eq!(Traits::NONE.to_string(), "nothing");
        assert_eq!(Traits::SELF_SIGNED.to_string(), "a signed identity");
    }
}
