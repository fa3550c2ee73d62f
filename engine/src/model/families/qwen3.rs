//! Qwen3, dense: queries and keys are normalised per head.

use super::decoder::Defaults;
use super::{Decoder, Family, before, silu};
use crate::model::config::{Attention, Bias, Config, FeedForward, HeadNorms, Keys, Rope};
use crate::model::error::ModelError;

/// What `transformers` takes for the family. Its makers' own files all name a greater one.
const THETA_DEFAULT: f32 = 10_000.0;

pub(super) fn read(keys: &Keys<'_>) -> Result<Config, ModelError> {
    let decoder = Decoder::read(keys, &Defaults::PLAIN)?;
    let layer = before(attention(keys, &decoder)?, FeedForward::Dense(silu(keys)?));
    let layers = decoder.uniform(layer);
    decoder.config(keys, Family::Qwen3, layers)
}

/// The attention of all Qwen3, those with experts included.
pub(super) fn attention(keys: &Keys<'_>, decoder: &Decoder) -> Result<Attention, ModelError> {
    keys.refuse("use_sliding_window")?;
    let rope = Rope::read(keys, decoder.head_dim, THETA_DEFAULT)?;
    let bias = Bias::from_flag(keys.flag("attention_bias", false)?);
    Ok(Attention {
        head_norms: HeadNorms::QueryKey,
        input_bias: bias,
        output_bias: bias,
        ..decoder.attention(rope)
    })
}
