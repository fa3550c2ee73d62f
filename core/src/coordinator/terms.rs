//! What was agreed when a request was admitted, whatever changes until it is paid: the price, and who
//! has a share in the charge before whoever serves it.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::effect::{Item, LedgerAccount, Line, Lines};
use crate::event::Usage;
use crate::ids::AccountId;
use crate::money::{MicroUsd, Price, percent_of};

/// Most beneficiaries of one charge beside whoever served: as many as its transfer has places for.
pub const SHARES_MAX: usize = 3;

/// Who has a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Beneficiary {
    /// Earns like the owner of a machine.
    Earner(AccountId),
    Platform,
}

impl Beneficiary {
    pub(super) const fn ledger_account(self) -> LedgerAccount {
        match self {
            Self::Earner(account) => LedgerAccount::Provider(account),
            Self::Platform => LedgerAccount::Platform,
        }
    }
}

/// So many percent of each charge, rounded down, for one beneficiary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Share {
    pub beneficiary: Beneficiary,
    pub percent: u8,
}

/// In order: where shares are more than the charge, the first are served.
pub type Shares = SmallVec<[Share; SHARES_MAX]>;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Terms {
    pub(super) price: Price,
    pub(super) shares: Shares,
}

impl Terms {
    /// The platform's share and nobody else's.
    pub(super) fn new(price: Price, fee_percent: u8) -> Self {
        let fee = Share {
            beneficiary: Beneficiary::Platform,
            percent: fee_percent,
        };
        let mut shares = Shares::new();
        shares.push(fee);
        Self { price, shares }
    }

    pub(super) fn cost(&self, usage: Usage) -> MicroUsd {
        let prompt = u64::from(usage.prompt_tokens);
        let completion = u64::from(usage.completion_tokens);
        match usage.completion_tokens {
            0 => MicroUsd::ZERO, // Nothing delivered costs nothing.
            _ => self.price.cost(prompt, completion),
        }
    }

    /// A charge line by line.
    pub(super) fn lines(&self, usage: Usage, charged: MicroUsd) -> Lines {
        let mut lines = Lines::EMPTY;
        if charged == MicroUsd::ZERO {
            return lines;
        }
        let prompt_tokens = u64::from(usage.prompt_tokens);
        let completion_tokens = u64::from(usage.completion_tokens);
        let [prompt, completion] = self.price.terms(prompt_tokens, completion_tokens);
        let cost = self.cost(usage);
        for (item, tokens, amount) in [
            (Item::Prompt, usage.prompt_tokens, prompt),
            (Item::Completion, usage.completion_tokens, completion),
            (Item::Least, 0, cost - prompt - completion),
            (Item::Limit, 0, charged - cost),
        ] {
            if amount != MicroUsd::ZERO {
                lines.push(Line {
                    item,
                    tokens,
                    amount,
                });
            }
        }
        lines
    }
}

/// What each share comes to; the last entry is what is left for whoever served.
pub(super) fn divide(
    charged: MicroUsd,
    shares: &[Share],
) -> (SmallVec<[MicroUsd; SHARES_MAX]>, MicroUsd) {
    let mut left = charged;
    let parts = shares.iter().map(|share| {
        let part = percent_of(charged, share.percent).min(left);
        left -= part;
        part
    });
    (parts.collect(), left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(prompt_tokens: u32, completion_tokens: u32) -> Usage {
        Usage {
            prompt_tokens,
            completion_tokens,
        }
    }

    fn amounts(lines: &Lines) -> Vec<(Item, i64)> {
        lines
            .iter()
            .map(|line| (line.item, line.amount.0))
            .collect()
    }

    #[test]
    fn the_lines_of_a_charge_add_up_to_it() {
        let terms = Terms::new(Price::DEFAULT, 10);
        let lines = terms.lines(usage(1_000, 500), MicroUsd(150));
        assert_eq!(
            amounts(&lines),
            [(Item::Prompt, 50), (Item::Completion, 100)]
        );
        // The least charge, and one that is cut to what was held.
        for (usage, charged) in [
            (usage(19, 4), 100),
            (usage(1_000, 5_000), 900),
            (usage(0, 1), 7),
        ] {
            let lines = terms.lines(usage, MicroUsd(charged));
            let sum: i64 = lines.iter().map(|line| line.amount.0).sum();
            assert_eq!(sum, charged, "{lines:?}");
        }
        assert_eq!(terms.lines(usage(1_000, 0), MicroUsd::ZERO).count(), 0);
    }

    #[test]
    fn shares_are_served_in_order_and_the_rest_is_for_whoever_served() {
        let share = |percent| Share {
            beneficiary: Beneficiary::Platform,
            percent,
        };
        let (parts, left) = divide(MicroUsd(101), &[share(10), share(5)]);
        assert_eq!(
            (parts.as_slice(), left),
            (&[MicroUsd(10), MicroUsd(5)][..], MicroUsd(86))
        );
        let (parts, left) = divide(MicroUsd(10), &[share(80), share(80)]);
        assert_eq!(
            (parts.as_slice(), left),
            (&[MicroUsd(8), MicroUsd(2)][..], MicroUsd(0))
        );
    }
}
