//! From logits to the next token, reproducibly.
//!
//! Chance is a keyed draw of (seed, step), never a stream: a row's tokens depend on its own seed
//! and on nothing that its neighbours in the batch do. Floats are the accelerator's here, so the
//! result may differ between machines; no scheduling decision reads it.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod filter;
mod history;
mod logprobs;
mod mask;
#[cfg(test)]
mod tests;
mod weights;

use std::num::NonZeroU32;

use cereus_core::draw::{Purpose, Seed};

pub use history::History;
pub use logprobs::{Logprobs, TOP_LOGPROBS_MAX};
pub use mask::TokenMask;

use filter::Candidate;

/// Below this a temperature is none: dividing by it would leave one token anyway.
pub const TEMPERATURE_GREEDY: f32 = 1e-5;

/// How one request wants its tokens chosen. Values are within their ranges; see `chat`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Zero takes the likeliest token always.
    pub temperature: f32,
    /// Tokens whose likelier ones hold more than this share are left out; one keeps all.
    pub top_p: f32,
    /// Only so many of the likeliest tokens; zero keeps all.
    pub top_k: u32,
    /// Tokens less likely than this share of the likeliest one are left out; zero keeps all.
    pub min_p: f32,
    /// Weakens tokens that prompt or answer hold already; one changes nothing.
    pub repetition_penalty: f32,
    /// So many of the last tokens count as held already; all of them when absent.
    pub repetition_window: Option<NonZeroU32>,
    /// Taken from a token's logit for each time that the answer holds it.
    pub frequency_penalty: f32,
    /// Taken from a token's logit once the answer holds it.
    pub presence_penalty: f32,
    /// Added to single tokens' logits. Tokens outside the vocabulary are passed over.
    pub logit_bias: Vec<(u32, f32)>,
    pub seed: u64,
    /// Asks for the chosen token's log-probability and those of so many of the likeliest.
    pub top_logprobs: Option<u8>,
}

impl Sampling {
    #[must_use]
    pub const fn greedy() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            repetition_window: None,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: vec![],
            seed: 0,
            top_logprobs: None,
        }
    }

    /// Whether the answer is the greatest logit and nothing else is asked: then an accelerator may
    /// find it by itself.
    #[must_use]
    pub fn is_argmax(&self) -> bool {
        self.is_greedy() && !self.changes_logits() && self.top_logprobs.is_none()
    }

    fn is_greedy(&self) -> bool {
        self.temperature < TEMPERATURE_GREEDY
    }

    fn changes_logits(&self) -> bool {
        !self.logit_bias.is_empty() || self.repeats_matter() || self.counts_matter()
    }

    fn repeats_matter(&self) -> bool {
        self.repetition_penalty != 1.0
    }

    fn counts_matter(&self) -> bool {
        self.frequency_penalty != 0.0 || self.presence_penalty != 0.0
    }

    fn filters(&self) -> bool {
        self.top_k > 0 || self.top_p < 1.0 || self.min_p > 0.0
    }
}

/// How one row's next token is chosen.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    pub sampling: &'a Sampling,
    pub history: &'a History,
    /// The tokens that a constraint allows; absent when there is none.
    pub allowed: Option<TokenMask<'a>>,
    /// Tokens that may not come, whatever is allowed.
    pub barred: &'a [u32],
    /// How many tokens of the answer came before.
    pub step: u32,
}

impl Sample<'_> {
    /// Whether any token may come.
    const fn is_free(&self) -> bool {
        self.allowed.is_none() && self.barred.is_empty()
    }
}

/// A row's next token.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    pub token: u32,
    /// Present when asked for.
    pub logprobs: Option<Box<Logprobs>>,
}

impl From<u32> for Chosen {
    fn from(token: u32) -> Self {
        Self {
            token,
            logprobs: None,
        }
    }
}

/// Chooses tokens, one row after the other; keeps its working memory between them.
#[derive(Debug, Default)]
pub struct Sampler {
    values: Vec<f32>,
    block_sums: Vec<f64>,
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// Chooses a row's next token: bias and penalties, then the mask, then temperature and filters, then
    /// the draw. Reported log probabilities are of the logits as they came, so that they speak of the
    /// model and not of the request's wishes. `None` when no allowed logit is a finite number: the model
    /// is broken.
    #[must_use]
    pub fn choose(&mut self, sample: &Sample<'_>, logits: &[f32]) -> Option<Chosen> {
        let sampling = sample.sampling;
        let token = if sampling.is_greedy() && !sampling.changes_logits() && sample.is_free() {
            filter::likeliest(logits)?.token
        } else {
            self.adjusted(sample, logits)?
        };
        let logprobs = sampling
            .top_logprobs
            .map(|count| Box::new(Logprobs::of(logits, token, count, &mut self.candidates)));
        Some(Chosen { token, logprobs })
    }

    fn adjusted(&mut self, sample: &Sample<'_>, logits: &[f32]) -> Option<u32> {
        let sampling = sample.sampling;
        self.values.clear();
        self.values.extend_from_slice(logits);
        history::penalise(sampling, sample.history, &mut self.values);
        if let Some(allowed) = sample.allowed {
            allowed.apply(&mut self.values);
        }
        for &token in sample.barred {
            let value = usize::try_from(token).ok();
            if let Some(value) = value.and_then(|ix| self.values.get_mut(ix)) {
                *value = f32::NEG_INFINITY;
            }
        }
        let best = filter::likeliest(&self.values)?;
        if sampling.is_greedy() {
            return Some(best.token);
        }
        let total = weights::exponentials(
            &mut self.values,
            best.value,
            sampling.temperature.recip(),
            &mut self.block_sums,
        );
        let chance = uniform(sampling.seed, sample.step);
        let token = if sampling.filters() {
            filter::keep(sampling, &self.values, total, &mut self.candidates);
            weights::at_share_of(&self.candidates, chance)
        } else {
            weights::at_share(&self.values, &self.block_sums, total * chance)
        };
        Some(token.unwrap_or(best.token))
    }
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
