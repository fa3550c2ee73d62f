//! How the caller wants tokens chosen: the sampling fields of a body, each held to its range.

use std::num::NonZeroU32;

use cereus_core::api::Sampling as Asked;

use crate::sampling::Sampling;

/// How tokens are to be chosen, as far as the caller said; each value lies in its range.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wishes {
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub top_k: Option<u32>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
    pub repetition_window: Option<NonZeroU32>,
    pub frequency_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
    pub logit_bias: Vec<(u32, f32)>,
    pub seed: Option<u64>,
    pub top_logprobs: Option<u8>,
}

impl Wishes {
    /// Fills what the caller left open: the model's own defaults, and a seed.
    #[must_use]
    pub fn or(self, defaults: Defaults, seed: u64) -> Sampling {
        Sampling {
            temperature: self.temperature.unwrap_or(defaults.temperature),
            top_p: self.top_p.unwrap_or(defaults.top_p),
            top_k: self.top_k.unwrap_or(defaults.top_k),
            min_p: self.min_p.unwrap_or(defaults.min_p),
            repetition_penalty: self
                .repetition_penalty
                .unwrap_or(defaults.repetition_penalty),
            repetition_window: self.repetition_window,
            frequency_penalty: self.frequency_penalty.unwrap_or(0.0),
            presence_penalty: self.presence_penalty.unwrap_or(0.0),
            logit_bias: self.logit_bias,
            seed: self.seed.unwrap_or(seed),
            top_logprobs: self.top_logprobs,
        }
    }
}

/// How a model is best sampled, by its makers' word.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Defaults {
    pub temperature: f32,
    pub top_p: f32,
    pub top_k: u32,
    pub min_p: f32,
    pub repetition_penalty: f32,
}

impl Defaults {
    /// Those of the API, for a model that says nothing.
    pub const API: Self = Self {
        temperature: 1.0,
        top_p: 1.0,
        top_k: 0,
        min_p: 0.0,
        repetition_penalty: 1.0,
    };
}

impl From<&Asked> for Wishes {
    /// The core has held every value to its range.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked ranges that f32 holds"
    )]
    fn from(asked: &Asked) -> Self {
        let single = |value: Option<f64>| value.map(|value| value as f32);
        let biases = asked.logit_bias.iter();
        Self {
            temperature: single(asked.temperature),
            top_p: single(asked.top_p),
            top_k: asked.top_k,
            min_p: single(asked.min_p),
            repetition_penalty: single(asked.repetition_penalty),
            repetition_window: asked.repetition_window.and_then(NonZeroU32::new),
            frequency_penalty: single(asked.frequency_penalty),
            presence_penalty: single(asked.presence_penalty),
            logit_bias: biases.map(|&(token, bias)| (token, bias as f32)).collect(),
            seed: asked.seed.map(i64::cast_unsigned),
            top_logprobs: asked.top_logprobs,
        }
    }
}
