//! Llama, and Mistral, which is a Llama with a window.

use super::decoder::{Defaults, Span};
use super::{Decoder, Family, before, silu};
use crate::model::config::{Bias, Config, Dense, FeedForward, Keys, Rope};
use crate::model::error::ModelError;

pub(super) fn read(keys: &Keys<'_>) -> Result<Config, ModelError> {
    let decoder = Decoder::read(keys, &Defaults::PLAIN)?;
    let rope = Rope::read(keys, decoder.head_dim, 10_000.0)?.paired_as(keys)?;
    let mut attention = decoder.attention(rope);
    let bias = Bias::from_flag(keys.flag("attention_bias", false)?);
    attention.input_bias = bias;
    attention.output_bias = bias;
    let feed_forward = FeedForward::Dense(Dense {
        bias: Bias::from_flag(keys.flag("mlp_bias", false)?),
        ..silu(keys)?
    });
    // A Mistral that names a window means it for every layer; a Llama's is for those that
    // `layer_types` lists.
    let window = keys.width_if_any("sliding_window")?;
    let everywhere = keys.model_type()? == "mistral" && window.is_some();
    let pattern = |_| if everywhere { Span::Window } else { Span::All };
    let windows = decoder.windows(keys, window, pattern)?;
    let layers = windows.into_iter().map(|window| {
        let mut attention = attention.clone();
        attention.window = window;
        before(attention, feed_forward.clone())
    });
    let layers = layers.collect();
    decoder.config(keys, Family::Llama, layers)
}
