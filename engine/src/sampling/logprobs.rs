//! Log-probabilities for the reader: of the model's own logits, before anything was done to them.

use super::filter::{self, Candidate};
use super::weights;

/// How many of the likeliest tokens a request may ask for, for each token of the answer.
pub const TOP_LOGPROBS_MAX: u8 = 20;

/// What stands in for a probability of zero, which JSON cannot write the logarithm of.
const LOGPROB_MIN: f32 = -9_999.0;

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    pub chosen: f32,
    /// The likeliest tokens, likeliest first. The chosen one is among them, as one more and the last
    /// where it is not likely enough; none at all where none were asked for.
    pub top: Vec<(u32, f32)>,
}

impl Logprobs {
    pub(super) fn of(
        logits: &[f32],
        token: u32,
        count: u8,
        candidates: &mut Vec<Candidate>,
    ) -> Self {
        let best = filter::likeliest(logits).map_or(0.0, |best| best.value);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "logits are no more precise"
        )]
        let offset = best + (weights::exponential_sum(logits, best) as f32).ln();
        let logprob = |logit: f32| (logit - offset).clamp(LOGPROB_MIN, 0.0);
        let chosen = usize::try_from(token).ok().and_then(|ix| logits.get(ix));
        filter::sorted_greatest(logits, usize::from(count), candidates);
        let chosen = chosen.map_or(LOGPROB_MIN, |&logit| logprob(logit));
        let likeliest = candidates.iter();
        let mut top: Vec<(u32, f32)> = likeliest
            .map(|candidate| (candidate.token, logprob(candidate.value)))
            .collect();
        if count > 0 && top.iter().all(|&(other, _)| other != token) {
            top.push((token, chosen));
        }
        Self { chosen, top }
    }
}
