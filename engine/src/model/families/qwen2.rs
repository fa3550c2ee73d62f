//! Qwen2 and Qwen2.5: biases on queries, keys and values.

use super::decoder::Defaults;
use super::{Decoder, Family, before, silu};
use crate::model::config::{Bias, Config, FeedForward, Keys, Rope};
use crate::model::error::ModelError;

pub(super) fn read(keys: &Keys<'_>) -> Result<Config, ModelError> {
    keys.refuse("use_sliding_window")?;
    let decoder = Decoder::read(keys, &Defaults::PLAIN)?;
    let rope = Rope::read(keys, decoder.head_dim, 1_000_000.0)?.paired_as(keys)?;
    let mut attention = decoder.attention(rope);
    attention.input_bias = Bias::Present;
    let layers = decoder.uniform(before(attention, FeedForward::Dense(silu(keys)?)));
    decoder.config(keys, Family::Qwen2, layers)
}
