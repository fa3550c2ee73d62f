//! Money: integer micro-US-dollars, prices, and the one place where tokens become an amount.

use core::iter::Sum;
use core::ops::{Add, AddAssign, Neg, Sub, SubAssign};

use serde::{Deserialize, Serialize};

/// An amount in millionths of a US dollar.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct MicroUsd(pub i64);

/// The least that a finished request costs where its model has a price. Free is free.
pub const CHARGE_MIN: MicroUsd = MicroUsd(100);

/// The most that one deposit may bring or take: ten million dollars.
pub const DEPOSIT_MAX: MicroUsd = MicroUsd(10_000_000_000_000);

/// The most that one account may be credited up to, or owe: ten billion dollars.
pub const BALANCE_MAX: MicroUsd = MicroUsd(10_000_000_000_000_000);

/// The most that all accounts may hold together: half of what the integer takes, so that no sum of
/// parts of it leaves the integer's range on the way.
pub const BOOKS_MAX: MicroUsd = MicroUsd(i64::MAX / 2);

const TOKENS_PER_PRICE_UNIT: i128 = 1_000_000;

impl MicroUsd {
    pub const ZERO: Self = Self(0);

    /// Whether the amount, of either sign, is no larger than `bound`.
    #[must_use]
    pub const fn is_within(self, bound: Self) -> bool {
        self.0.unsigned_abs() <= bound.0.unsigned_abs()
    }

    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }
}

impl Add for MicroUsd {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Sub for MicroUsd {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl Neg for MicroUsd {
    type Output = Self;

    fn neg(self) -> Self {
        Self(-self.0)
    }
}

impl AddAssign for MicroUsd {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for MicroUsd {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Sum for MicroUsd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

/// Prices in micro-USD for a million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Price {
    pub input_per_mtok: MicroUsd,
    pub output_per_mtok: MicroUsd,
}

impl Price {
    /// For a model that was given no price: 5 cents for a million tokens in, 20 cents for a million out, as
    /// in the published network.
    pub const DEFAULT: Self = Self {
        input_per_mtok: MicroUsd(50_000),
        output_per_mtok: MicroUsd(200_000),
    };

    /// Whether nothing is asked for either side of a conversation.
    #[must_use]
    pub const fn is_free(self) -> bool {
        self.input_per_mtok.0 <= 0 && self.output_per_mtok.0 <= 0
    }

    /// Cost of a request: each term rounded down once, and never below [`CHARGE_MIN`] unless the
    /// model is free.
    #[must_use]
    pub fn cost(self, prompt_tokens: u64, completion_tokens: u64) -> MicroUsd {
        if self.is_free() {
            return MicroUsd::ZERO;
        }
        let [prompt, completion] = self.terms(prompt_tokens, completion_tokens);
        MicroUsd(prompt.0.saturating_add(completion.0).max(CHARGE_MIN.0))
    }

    /// What the prompt and the completion cost by themselves.
    #[must_use]
    pub fn terms(self, prompt_tokens: u64, completion_tokens: u64) -> [MicroUsd; 2] {
        [
            MicroUsd(term_floor(self.input_per_mtok, prompt_tokens)),
            MicroUsd(term_floor(self.output_per_mtok, completion_tokens)),
        ]
    }
}

fn term_floor(per_mtok: MicroUsd, tokens: u64) -> i64 {
    let product = i128::from(per_mtok.0.max(0)) * i128::from(tokens);
    i64::try_from(product / TOKENS_PER_PRICE_UNIT).unwrap_or(i64::MAX)
}

/// So many percent of a charge, rounded down.
#[must_use]
pub fn percent_of(charged: MicroUsd, percent: u8) -> MicroUsd {
    let share = i128::from(charged.0) * i128::from(percent.min(100)) / 100;
    MicroUsd(i64::try_from(share).expect("a share of an i64 fits an i64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_follows_the_published_vectors() {
        let vectors = [(1000, 500, 150), (100, 100, 100), (19, 4, 100), (0, 0, 100)];
        for (prompt, completion, expected) in vectors {
            assert_eq!(Price::DEFAULT.cost(prompt, completion), MicroUsd(expected));
        }
        assert_eq!(Price::DEFAULT.cost(1_000_000, 1_000_000), MicroUsd(250_000));
    }

    #[test]
    fn free_is_free_and_the_minimum_is_for_models_with_a_price() {
        let price = |input, output| Price {
            input_per_mtok: MicroUsd(input),
            output_per_mtok: MicroUsd(output),
        };
        assert_eq!(price(0, 0).cost(1_000_000, 1_000_000), MicroUsd::ZERO);
        assert_eq!(price(0, 1).cost(10, 10), CHARGE_MIN);
        assert_eq!(price(1, 0).cost(10, 10), CHARGE_MIN);
    }

    #[test]
    fn a_share_is_rounded_down() {
        assert_eq!(percent_of(MicroUsd(101), 10), MicroUsd(10));
        assert_eq!(percent_of(MicroUsd(9), 10), MicroUsd(0));
        assert_eq!(percent_of(MicroUsd(7), 0), MicroUsd(0));
        assert_eq!(percent_of(MicroUsd(7), 200), MicroUsd(7));
    }
}
