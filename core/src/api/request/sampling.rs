//! How the caller wants tokens chosen, each value held to its range.

use std::collections::BTreeMap;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::super::refusal::{Fault, Place, Refusal};
use super::raw::Raw;
use super::{BIASES_MAX, STOP_TOKENS_MAX, TOP_LOGPROBS_MAX};

/// What a provider's engine samples with. Passed through; nothing here decides by it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sampling {
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    /// Zero keeps all.
    pub top_k: Option<u32>,
    pub min_p: Option<f64>,
    pub repetition_penalty: Option<f64>,
    /// Tokens that count for it, at least one; absent are all.
    pub repetition_window: Option<u32>,
    pub frequency_penalty: Option<f64>,
    pub presence_penalty: Option<f64>,
    /// Sorted by token.
    pub logit_bias: Vec<(u32, f64)>,
    pub seed: Option<i64>,
    /// Log-probabilities are asked for, with so many of the likeliest.
    pub top_logprobs: Option<u8>,
}

/// What an end token does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ends {
    #[default]
    Heeded,
    /// Nothing: the answer goes on to its bound. For measurements, which need answers of one length.
    Ignored,
}

impl Raw<'_, '_> {
    pub(super) fn sampling(&self) -> Result<Sampling, Refusal> {
        let penalty = |name| self.number(name, -2.0, 2.0, "-2 and 2");
        let share = |name| self.number(name, 0.0, 1.0, "0 and 1");
        Ok(Sampling {
            temperature: self.number("temperature", 0.0, 2.0, "0 and 2")?,
            top_p: share("top_p")?,
            top_k: self.top_k()?,
            min_p: share("min_p")?,
            repetition_penalty: self.number("repetition_penalty", 0.01, 2.0, "0.01 and 2")?,
            repetition_window: self.whole("repetition_context_size", 1)?,
            frequency_penalty: penalty("frequency_penalty")?,
            presence_penalty: penalty("presence_penalty")?,
            logit_bias: self.logit_bias()?,
            seed: self.seed()?,
            top_logprobs: self.top_logprobs()?,
        })
    }

    pub(super) fn ends(&self) -> Result<Ends, Refusal> {
        Ok(match self.flag("ignore_eos")? {
            Some(true) => Ends::Ignored,
            None | Some(false) => Ends::Heeded,
        })
    }

    pub(super) fn end_tokens(&self) -> Result<Vec<u32>, Refusal> {
        self.tokens::<STOP_TOKENS_MAX>("stop_token_ids")
    }

    fn top_k(&self) -> Result<Option<u32>, Refusal> {
        let what = "-1, 0 or a positive integer";
        let wrong = Refusal::field(Place::field("top_k"), Fault::Takes { what });
        let Some(text) = self.text("top_k") else {
            return Ok(None);
        };
        match serde_json::from_str::<i64>(text).map_err(|_| wrong)? {
            -1 => Ok(Some(0)),
            top_k => u32::try_from(top_k).map(Some).map_err(|_| wrong),
        }
    }

    fn seed(&self) -> Result<Option<i64>, Refusal> {
        let wrong = Refusal::field(Place::field("seed"), Fault::NotAnInteger);
        self.text("seed")
            .map(|text| serde_json::from_str(text).map_err(|_| wrong))
            .transpose()
    }

    fn top_logprobs(&self) -> Result<Option<u8>, Refusal> {
        let count = |name| {
            let place = Place::field(name);
            let count = self.whole(name, 0)?;
            let range = "0 and 20";
            match count.map(u8::try_from) {
                None => Ok(None),
                Some(Ok(count)) if count <= TOP_LOGPROBS_MAX => Ok(Some(count)),
                Some(_) => Err(Refusal::field(place, Fault::OutOfRange { range })),
            }
        };
        if !self.is_chat() {
            return count("logprobs");
        }
        let top = count("top_logprobs")?;
        match (self.flag("logprobs")?, top) {
            (Some(true), top) => Ok(Some(top.unwrap_or(0))),
            (None | Some(false), None | Some(0)) => Ok(None),
            (None | Some(false), Some(_)) => {
                let what = "logprobs to be true";
                let place = Place::field("top_logprobs");
                Err(Refusal::field(place, Fault::Needs { what }))
            }
        }
    }

    fn logit_bias(&self) -> Result<Vec<(u32, f64)>, Refusal> {
        let place = Place::field("logit_bias");
        let Some(text) = self.text("logit_bias") else {
            return Ok(Vec::new());
        };
        if !text.starts_with('{') {
            return Err(Refusal::field(place, Fault::NotAnObject));
        }
        let what = "an object of token numbers, each with a number between -100 and 100";
        let wrong = Refusal::field(place, Fault::Takes { what });
        let raw: Biases<'_> = serde_json::from_str(text).map_err(|_| wrong)?;
        if raw.is_cut {
            let count_max = BIASES_MAX;
            return Err(Refusal::field(place, Fault::TooMany { count_max }));
        }
        let mut biases = Vec::with_capacity(raw.tokens.len());
        for (token, bias) in raw.tokens {
            let token: u32 = token.parse().map_err(|_| wrong)?;
            let bias: f64 = serde_json::from_str(bias.get()).map_err(|_| wrong)?;
            if !(-100.0..=100.0).contains(&bias) {
                return Err(wrong);
            }
            biases.push((token, bias));
        }
        biases.sort_by_key(|&(token, _)| token);
        biases.dedup_by_key(|&mut (token, _)| token);
        Ok(biases)
    }
}

/// Members by name, at most [`BIASES_MAX`] of them.
struct Biases<'a> {
    tokens: BTreeMap<String, &'a RawValue>,
    is_cut: bool,
}

impl<'de> Deserialize<'de> for Biases<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Biases<'de>;

            fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut tokens, mut is_cut) = (BTreeMap::new(), false);
                while tokens.len() < BIASES_MAX {
                    let Some((token, bias)) = map.next_entry::<String, &'de RawValue>()? else {
                        return Ok(Biases { tokens, is_cut });
                    };
                    tokens.insert(token, bias);
                }
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    is_cut = true;
                }
                Ok(Biases { tokens, is_cut })
            }
        }

        deserializer.deserialize_map(Members)
    }
}
