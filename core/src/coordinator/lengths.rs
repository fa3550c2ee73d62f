//! How long answers become, by who asks and what model answers. What a consumer allows says little: most
//! allow far more than they get.

use serde::{Deserialize, Serialize};

use crate::digest::Mix;
use crate::event::Ask;
use crate::ewma::Ewma;
use crate::ids::{AccountId, ModelIx};
use crate::memo::Memo;

/// Where nothing is known.
const EXPECTED_TOKENS: u32 = 256;
/// The newest answer weighs one eighth.
const SHIFT: u8 = 3;
/// Pairs of an account and a model that are remembered.
const PAIRS_MAX: u32 = 8_192;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Lengths {
    /// By model; `None` before the first answer.
    models: Vec<Option<Ewma>>,
    pairs: Memo<Ewma>,
}

impl Lengths {
    pub(super) fn new(models: usize) -> Self {
        Self {
            models: vec![None; models],
            pairs: Memo::new(PAIRS_MAX),
        }
    }

    /// Models were listed: so many places there are.
    pub(super) fn grow(&mut self, models: usize) {
        self.models.resize(models, None);
    }

    /// Tokens that the answer to a request will have, more or less.
    pub(super) fn expected(&self, ask: &Ask) -> u32 {
        let known = self.known(ask.account, ask.model);
        let known = known.or(self.models[usize::from(ask.model.0)]);
        let tokens = known.map_or(EXPECTED_TOKENS, Ewma::value);
        tokens.min(ask.output_tokens_max)
    }

    /// An answer had so many tokens. The first of a pair counts as one among its model's.
    pub(super) fn learn(&mut self, account: AccountId, model: ModelIx, tokens: u32) {
        let of_model = &mut self.models[usize::from(model.0)];
        let of_model = of_model.get_or_insert(Ewma::seeded(EXPECTED_TOKENS, SHIFT));
        let mut of_pair = *of_model;
        of_model.push(tokens);
        if let Some(known) = self.known(account, model) {
            of_pair = known;
        }
        of_pair.push(tokens);
        self.pairs.put(name(account, model), of_pair, |_| true);
    }

    fn known(&self, account: AccountId, model: ModelIx) -> Option<Ewma> {
        self.pairs.of(name(account, model)).next().copied()
    }
}

fn name(account: AccountId, model: ModelIx) -> u64 {
    Mix::of(&(account, model)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RequestId;

    fn ask(account: u64, output_tokens_max: u32) -> Ask {
        Ask {
            output_tokens_max,
            ..Ask::new(RequestId(1), AccountId(account), ModelIx(0))
        }
    }

    #[test]
    fn what_is_allowed_bounds_the_guess_and_does_not_make_it() {
        let mut lengths = Lengths::new(1);
        assert_eq!(lengths.expected(&ask(1, 16_384)), EXPECTED_TOKENS);
        assert_eq!(lengths.expected(&ask(1, 10)), 10);
        for _ in 0..60 {
            lengths.learn(AccountId(1), ModelIx(0), 40);
        }
        let short = lengths.expected(&ask(1, 16_384));
        assert!((40..50).contains(&short), "{short}");
    }

    #[test]
    fn who_asks_for_novels_is_told_from_who_asks_for_labels() {
        let mut lengths = Lengths::new(1);
        for _ in 0..60 {
            lengths.learn(AccountId(1), ModelIx(0), 3);
            lengths.learn(AccountId(2), ModelIx(0), 3_000);
        }
        assert!(lengths.expected(&ask(1, 16_384)) < 20);
        assert!(lengths.expected(&ask(2, 16_384)) > 2_500);
        let stranger = lengths.expected(&ask(3, 16_384));
        assert!((500..2_500).contains(&stranger), "{stranger}");
    }
}
