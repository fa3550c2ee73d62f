//! How the caller wants tokens chosen: the sampling fields of a body, each held to its range.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serde::Deserialize;

use crate::failure::Failure;
use crate::sampling::{Sampling, TOP_LOGPROBS_MAX};

/// The range that clients know for `temperature`.
pub(super) const TEMPERATURE_MAX: f64 = 2.0;
/// The range that clients know for `frequency_penalty` and `presence_penalty`, either side of zero.
pub(super) const PENALTY_MAX: f64 = 2.0;
pub(super) const REPETITION_PENALTY_MIN: f64 = 0.01;
pub(super) const REPETITION_PENALTY_MAX: f64 = 2.0;
pub(super) const LOGIT_BIAS_MAX: f64 = 100.0;
pub(super) const LOGIT_BIAS_TOKENS_MAX: usize = 1_024;

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

/// A wish for chat completions; for plain ones a count.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
pub(super) enum RawLogprobs {
    Flag(bool),
    Count(i64),
}

/// The fields of a body that [`Wishes`] come from.
pub(super) struct RawWishes {
    pub(super) temperature: Option<f64>,
    pub(super) top_p: Option<f64>,
    pub(super) top_k: Option<i64>,
    pub(super) min_p: Option<f64>,
    pub(super) repetition_penalty: Option<f64>,
    pub(super) repetition_context_size: Option<u64>,
    pub(super) frequency_penalty: Option<f64>,
    pub(super) presence_penalty: Option<f64>,
    pub(super) logit_bias: Option<BTreeMap<String, f64>>,
    pub(super) seed: Option<i64>,
    pub(super) logprobs: Option<RawLogprobs>,
    pub(super) top_logprobs: Option<i64>,
}

impl RawWishes {
    pub(super) fn into_wishes(self) -> Result<Wishes, Failure> {
        let top_k =
            match self.top_k {
                None => None,
                Some(-1) => Some(0),
                Some(top_k) => Some(u32::try_from(top_k).map_err(|_| {
                    Failure::client("top_k must be -1, 0 or a small positive number")
                })?),
            };
        Ok(Wishes {
            temperature: within("temperature", self.temperature, 0.0, TEMPERATURE_MAX)?,
            top_p: within("top_p", self.top_p, 0.0, 1.0)?,
            top_k,
            min_p: within("min_p", self.min_p, 0.0, 1.0)?,
            repetition_penalty: within(
                "repetition_penalty",
                self.repetition_penalty,
                REPETITION_PENALTY_MIN,
                REPETITION_PENALTY_MAX,
            )?,
            repetition_window: self.repetition_context_size.map(window).transpose()?,
            frequency_penalty: penalty("frequency_penalty", self.frequency_penalty)?,
            presence_penalty: penalty("presence_penalty", self.presence_penalty)?,
            logit_bias: biases(self.logit_bias.unwrap_or_default())?,
            seed: self.seed.map(i64::cast_unsigned),
            top_logprobs: top_logprobs(self.logprobs, self.top_logprobs)?,
        })
    }
}

/// A window beyond any context is all of it.
fn window(tokens: u64) -> Result<NonZeroU32, Failure> {
    NonZeroU32::new(u32::try_from(tokens).unwrap_or(u32::MAX))
        .ok_or_else(|| Failure::client("repetition_context_size must be at least 1"))
}

fn penalty(field: &str, value: Option<f64>) -> Result<Option<f32>, Failure> {
    within(field, value, -PENALTY_MAX, PENALTY_MAX)
}

fn biases(raw: BTreeMap<String, f64>) -> Result<Vec<(u32, f32)>, Failure> {
    if raw.len() > LOGIT_BIAS_TOKENS_MAX {
        return Err(Failure::client(format!(
            "logit_bias must name at most {LOGIT_BIAS_TOKENS_MAX} tokens"
        )));
    }
    let mut biases = Vec::with_capacity(raw.len());
    for (token, bias) in raw {
        let token = token
            .parse()
            .map_err(|_| Failure::client("logit_bias must name tokens by their numbers"))?;
        let bias = within("logit_bias", Some(bias), -LOGIT_BIAS_MAX, LOGIT_BIAS_MAX)?;
        biases.extend(bias.map(|bias| (token, bias)));
    }
    biases.sort_unstable_by_key(|&(token, _)| token);
    Ok(biases)
}

fn top_logprobs(logprobs: Option<RawLogprobs>, top: Option<i64>) -> Result<Option<u8>, Failure> {
    let (is_wanted, top) = match logprobs {
        None => (false, top),
        Some(RawLogprobs::Flag(flag)) => (flag, top),
        Some(RawLogprobs::Count(count)) => (true, Some(count)),
    };
    let top = match top.map(u8::try_from) {
        None => None,
        Some(Ok(count)) if count <= TOP_LOGPROBS_MAX => Some(count),
        Some(_) => {
            return Err(Failure::client(format!(
                "top_logprobs must lie between 0 and {TOP_LOGPROBS_MAX}"
            )));
        }
    };
    match (is_wanted, top) {
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => Err(Failure::client("top_logprobs needs logprobs to be true")),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a checked range that f32 holds"
)]
fn within(field: &str, value: Option<f64>, low: f64, high: f64) -> Result<Option<f32>, Failure> {
    match value {
        None => Ok(None),
        Some(value) if (low..=high).contains(&value) => Ok(Some(value as f32)),
        Some(_) => Err(Failure::client(format!(
            "{field} must lie between {low} and {high}"
        ))),
    }
}
