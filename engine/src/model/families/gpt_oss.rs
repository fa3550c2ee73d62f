//! gpt-oss: a window in every other layer, attention sinks, experts in all, biases everywhere.

use super::decoder::{Defaults, Span};
use super::qwen3_moe::chosen;
use super::{Decoder, Family, before};
use crate::model::config::{
    Activation, Attention, Bias, Config, Dense, ExpertNames, Experts, FeedForward, Keys, Rope,
    Router, Sinks, missing,
};
use crate::model::error::ModelError;

const DEFAULTS: Defaults = Defaults {
    head_dim: Some(64),
    context_tokens: 131_072,
    norm_eps: Some(1e-5),
    ..Defaults::PLAIN
};
const NAMES: ExpertNames = ExpertNames {
    router: "mlp.router",
    experts: "mlp.experts",
};
const LIMIT_DEFAULT: f32 = 7.0;

pub(super) fn read(keys: &Keys<'_>) -> Result<Config, ModelError> {
    let decoder = Decoder::read(keys, &DEFAULTS)?;
    let rope = Rope::read(keys, decoder.head_dim, 150_000.0)?;
    let count = match keys.heads("num_local_experts")? {
        Some(count) => Some(count),
        None => keys.heads("num_experts")?,
    };
    let count = count.ok_or_else(|| missing("num_local_experts"))?;
    let limit = keys.positive("swiglu_limit")?;
    let experts = Experts {
        count,
        chosen: chosen(keys, "num_experts_per_tok", count)?,
        each: Dense {
            inner: keys.width("intermediate_size")?,
            activation: Activation::SwigluClipped {
                limit: limit.unwrap_or(LIMIT_DEFAULT),
            },
            bias: Bias::Present,
        },
        router: Router::SharesOfChosen,
        shared_inner: None,
        names: NAMES,
    };
    let window = keys.width_if_any("sliding_window")?;
    let windows = decoder.windows(keys, window, |index| {
        if index % 2 == 0 {
            Span::Window
        } else {
            Span::All
        }
    })?;
    let layers = windows.into_iter().map(|window| {
        let attention = Attention {
            window,
            input_bias: Bias::Present,
            output_bias: Bias::Present,
            sinks: Sinks::Present,
            ..decoder.attention(rope.clone())
        };
        before(attention, FeedForward::Experts(experts))
    });
    let layers = layers.collect();
    decoder.config(keys, Family::GptOss, layers)
}
