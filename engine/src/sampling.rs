//! From logits to the next token, reproducibly.
//!
//! Chance is a keyed draw of (seed, step), never a stream: a row's tokens depend on its own seed
//! and on nothing that its neighbours in the batch do. Floats are the accelerator's here, so the
//! result may differ between machines; no scheduling decision reads it.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use cereus_core::draw::{Purpose, Seed};

/// How one request wants its tokens chosen. Values are within their ranges; see `chat`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Zero takes the likeliest token always.
    pub temperature: f32,
    /// The smallest set of likeliest tokens that holds this share; one keeps all.
    pub top_p: f32,
    /// Only so many of the likeliest tokens; zero keeps all.
    pub top_k: u32,
    pub seed: u64,
}

impl Sampling {
    #[must_use]
    pub const fn greedy() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            seed: 0,
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
struct Candidate {
    weight: f32,
    token: u32,
}

impl Eq for Candidate {}

impl Ord for Candidate {
    /// Heavier first, then the lower id: a total order, so equal weights cannot differ by run.
    fn cmp(&self, other: &Self) -> Ordering {
        self.weight
            .total_cmp(&other.weight)
            .then_with(|| other.token.cmp(&self.token))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Chooses token number `step` of a row. `None` when no logit is a number: the model is broken.
#[must_use]
pub fn choose(sampling: &Sampling, step: u32, logits: &[f32]) -> Option<u32> {
    let best = likeliest(logits)?;
    if sampling.temperature <= 0.0 {
        return Some(best.token);
    }
    let chance = uniform(sampling.seed, step);
    let sharpness = sampling.temperature.recip();
    // Shifted so that the greatest weight is one: nothing overflows, however small the temperature.
    let weigh = |logit: f32| {
        let weight = ((logit - best.weight) * sharpness).exp();
        if weight.is_finite() { weight } else { 0.0 }
    };
    let weights = enumerated(logits).map(|(token, logit)| Candidate {
        weight: weigh(logit),
        token,
    });
    let keeps_all = sampling.top_k == 0 && sampling.top_p >= 1.0;
    if keeps_all {
        let total = weights
            .clone()
            .map(|candidate| f64::from(candidate.weight))
            .sum();
        return Some(at_share(weights, total, chance).unwrap_or(best.token));
    }
    let nucleus = nucleus(sampling, weights.collect());
    let total = nucleus
        .iter()
        .map(|candidate| f64::from(candidate.weight))
        .sum();
    Some(at_share(nucleus.into_iter(), total, chance).unwrap_or(best.token))
}

/// The likeliest token, the lowest id among equals; its logit stands in `weight`.
fn likeliest(logits: &[f32]) -> Option<Candidate> {
    enumerated(logits)
        .filter(|(_, logit)| !logit.is_nan())
        .map(|(token, weight)| Candidate { weight, token })
        .max()
        .filter(|best| best.weight.is_finite())
}

fn enumerated(logits: &[f32]) -> impl Iterator<Item = (u32, f32)> + Clone + '_ {
    (0_u32..).zip(logits.iter().copied())
}

/// The candidates that top-k and then top-p leave, heaviest first. A heap, because a vocabulary is
/// large and few of it are taken.
fn nucleus(sampling: &Sampling, all: Vec<Candidate>) -> Vec<Candidate> {
    let all_count = all.len();
    let mut heap = BinaryHeap::from(all);
    let count = match sampling.top_k {
        0 => all_count,
        k => usize::try_from(k).unwrap_or(all_count).min(all_count),
    };
    if sampling.top_p >= 1.0 {
        return std::iter::from_fn(|| heap.pop()).take(count).collect();
    }
    // The share is of what top-k left, as in the samplers that clients know.
    let total: f64 = if count == all_count {
        heap.iter()
            .map(|candidate| f64::from(candidate.weight))
            .sum()
    } else {
        let kept: Vec<Candidate> = std::iter::from_fn(|| heap.pop()).take(count).collect();
        let total = kept
            .iter()
            .map(|candidate| f64::from(candidate.weight))
            .sum();
        heap = BinaryHeap::from(kept);
        total
    };
    let wanted = total * f64::from(sampling.top_p);
    let mut share = 0.0;
    let mut taken = Vec::new();
    while let Some(candidate) = heap.pop() {
        share += f64::from(candidate.weight);
        taken.push(candidate);
        if share >= wanted {
            break;
        }
    }
    taken
}

/// The first candidate at which the running share passes `chance` of the total.
fn at_share(candidates: impl Iterator<Item = Candidate>, total: f64, chance: f64) -> Option<u32> {
    let target = total * chance;
    let mut share = 0.0;
    let mut last = None;
    for candidate in candidates.filter(|candidate| candidate.weight > 0.0) {
        share += f64::from(candidate.weight);
        last = Some(candidate.token);
        if share > target {
            break;
        }
    }
    last
}

/// Uniform in 0..1, by the 53 bits that a double holds exactly.
fn uniform(seed: u64, step: u32) -> f64 {
    let word = Seed::from_number(seed).draw(Purpose::Sampling, u128::from(step), 0);
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact in a double")]
    let numerator = (word >> 11) as f64;
    #[expect(clippy::cast_precision_loss, reason = "a power of two is exact")]
    let denominator = (1_u64 << 53) as f64;
    numerator / denominator
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn warm(temperature: f32, seed: u64) -> Sampling {
        Sampling {
            temperature,
            top_p: 1.0,
            top_k: 0,
            seed,
        }
    }

    #[test]
    fn greedy_takes_the_likeliest_and_the_lowest_id_among_equals() {
        assert_eq!(
            choose(&Sampling::greedy(), 0, &[0.5, 2.0, -1.0, 2.0]),
            Some(1)
        );
    }

    #[test]
    fn logits_that_are_no_numbers_yield_nothing() {
        assert_eq!(choose(&Sampling::greedy(), 0, &[f32::NAN, f32::NAN]), None);
        assert_eq!(choose(&Sampling::greedy(), 0, &[f32::NEG_INFINITY]), None);
        assert_eq!(choose(&warm(1.0, 1), 0, &[f32::INFINITY, 0.0]), None);
        assert_eq!(choose(&Sampling::greedy(), 0, &[]), None);
        assert_eq!(choose(&warm(1.0, 1), 0, &[f32::NAN, 0.0]), Some(1));
    }

    #[test]
    fn shares_follow_the_softmax_of_the_tempered_logits() {
        // Weights 1, 2 and 4 at temperature two.
        let logits = [0.0, 2.0 * 2.0_f32.ln(), 2.0 * 4.0_f32.ln()];
        let mut counts = [0_u32; 3];
        for step in 0..14_000 {
            let token = choose(&warm(2.0, 77), step, &logits).unwrap();
            counts[usize::try_from(token).unwrap()] += 1;
        }
        for (count, share) in counts.iter().zip([2_000_u32, 4_000, 8_000]) {
            assert!(count.abs_diff(share) < 250, "{counts:?}");
        }
    }

    #[test]
    fn top_p_leaves_out_the_unlikely_rest() {
        let logits = [4.0_f32.ln(), 0.0, 4.0_f32.ln(), 0.0];
        let sampling = Sampling {
            top_p: 0.79,
            ..warm(1.0, 5)
        };
        for step in 0..500 {
            assert!([0, 2].contains(&choose(&sampling, step, &logits).unwrap()));
        }
    }

    #[test]
    fn top_k_of_one_is_greedy_whatever_the_temperature() {
        let sampling = Sampling {
            top_k: 1,
            ..warm(5.0, 5)
        };
        for step in 0..100 {
            assert_eq!(choose(&sampling, step, &[0.1, 0.3, 0.2]), Some(1));
        }
    }

    proptest! {
        #[test]
        fn one_seed_and_step_always_choose_the_same(
            seed: u64,
            step: u32,
            logits in prop::collection::vec(-20.0_f32..20.0, 1..50),
            temperature in 0.01_f32..3.0,
            top_p in 0.01_f32..1.0,
            top_k in 0_u32..60,
        ) {
            let sampling = Sampling { temperature, top_p, top_k, seed };
            let token = choose(&sampling, step, &logits).unwrap();
            prop_assert_eq!(choose(&sampling, step, &logits), Some(token));
            prop_assert!(usize::try_from(token).unwrap() < logits.len());
        }
    }
}
