//! Llama, and Mistral, which is a Llama with a window.

use super::{Decoder, Family};
use crate::model::config::{Activation, Bias, Config, Dense, FeedForward, Keys, Layer, Mixer};
use crate::model::error::ModelError;

pub(super) fn read(keys: &Keys<'_>) -> Result<Config, ModelError> {
    let decoder = Decoder::read(keys)?;
    let mut attention = decoder.attention(keys)?;
    let bias = Bias::from_flag(keys.flag("attention_bias", false)?);
    attention.input_bias = bias;
    attention.output_bias = bias;
    let layer = Layer {
        mixer: Mixer::Attention(attention),
        feed_forward: FeedForward::Dense(Dense {
            inner: keys.width("intermediate_size")?,
            activation: Activation::Silu,
            bias: Bias::from_flag(keys.flag("mlp_bias", false)?),
        }),
    };
    let layers = vec![layer; decoder.layer_count.unsigned_abs() as usize];
    decoder.config(keys, Family::Llama, layers)
}
