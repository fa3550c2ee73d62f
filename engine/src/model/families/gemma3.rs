//! Gemma 3: five layers with a window to each that sees everything, norms before and after.

use super::decoder::{Defaults, Span, only};
use super::{Decoder, Family};
use crate::model::config::{
    Activation, Attention, Bias, Config, Dense, FeedForward, Head, HeadNorms, Keys, Layer, Mixer,
    NormPlaces, NormWeight, OutputScale, Rope,
};
use crate::model::error::ModelError;

/// The published text parts leave out what they share with one another.
const DEFAULTS: Defaults = Defaults {
    query_heads: Some(8),
    kv_heads: Some(4),
    head_dim: Some(256),
    vocab_size: Some(262_208),
    context_tokens: 131_072,
    norm_eps: Some(1e-6),
    norm_weight: NormWeight::OnePlusStored,
};
const WINDOW_DEFAULT: i32 = 512;
const PATTERN_DEFAULT: i32 = 6;
const THETA_DEFAULT: f32 = 1_000_000.0;
const THETA_WINDOW_DEFAULT: f32 = 10_000.0;

pub(super) fn read(keys: &Keys<'_>) -> Result<Config, ModelError> {
    keys.refuse("attn_logit_softcapping")?;
    keys.refuse("final_logit_softcapping")?;
    keys.refuse("use_bidirectional_attention")?;
    let decoder = Decoder::read(keys, &DEFAULTS)?;
    let scalar = keys.positive("query_pre_attn_scalar")?.unwrap_or(256.0);
    let ropes = Ropes::read(keys, decoder.head_dim)?;
    let pattern = keys.width_if_any("sliding_window_pattern")?;
    let pattern = pattern.unwrap_or(PATTERN_DEFAULT).unsigned_abs() as usize;
    let window = keys.width_if_any("sliding_window")?;
    let windows = decoder.windows(keys, Some(window.unwrap_or(WINDOW_DEFAULT)), |index| {
        if (index + 1) % pattern == 0 {
            Span::All
        } else {
            Span::Window
        }
    })?;
    let feed_forward = FeedForward::Dense(gelu(keys)?);
    let layers = windows.into_iter().map(|window| Layer {
        mixer: Mixer::Attention(Attention {
            window,
            scale: scalar.sqrt().recip(),
            head_norms: HeadNorms::QueryKey,
            ..decoder.attention(ropes.of(window))
        }),
        feed_forward: feed_forward.clone(),
        norms: NormPlaces::Around,
        output_scale: OutputScale::Absent,
    });
    let layers = layers.collect();
    let hidden_size = decoder.hidden_size;
    Ok(Config {
        head: Head::TiedUnlessStored,
        embedding_scale: Some(root_in_bfloat16(hidden_size)),
        ..decoder.config(keys, Family::Gemma3, layers)?
    })
}

/// Rotary positions of the two kinds of layers.
struct Ropes {
    all: Rope,
    window: Rope,
}

impl Ropes {
    fn read(keys: &Keys<'_>, dims: i32) -> Result<Self, ModelError> {
        let theta = keys.positive("rope_theta")?.unwrap_or(THETA_DEFAULT);
        let local = keys.positive("rope_local_base_freq")?;
        let local = local.unwrap_or(THETA_WINDOW_DEFAULT);
        // Newer files have an object for each kind of layer, older ones one for the full layers.
        let newer = keys.section("rope_parameters")?;
        let section = |kind: &str| newer.map_or(Ok(None), |newer| newer.section(kind));
        let all = match section("full_attention")? {
            Some(section) => Some(section),
            None => keys.section("rope_scaling")?,
        };
        let of = |section: Option<Keys<'_>>, theta: f32| match section {
            Some(section) => Rope::of_section(keys, &section, theta, dims),
            None => Rope::plain(theta, dims),
        };
        Ok(Self {
            all: of(all, theta)?,
            window: of(section("sliding_attention")?, local)?,
        })
    }

    fn of(&self, window: Option<i32>) -> Rope {
        window.map_or(&self.all, |_| &self.window).clone()
    }
}

/// A gated layer with Gemma's activation.
pub(super) fn gelu(keys: &Keys<'_>) -> Result<Dense, ModelError> {
    only(keys, "hidden_activation", "gelu_pytorch_tanh")?;
    Ok(Dense {
        inner: keys.width("intermediate_size")?,
        activation: Activation::GeluTanh,
        bias: Bias::Absent,
    })
}

/// The square root of the width, in the precision in which Gemma 3 was trained: eight bits.
fn root_in_bfloat16(width: i32) -> f32 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the next line cuts further"
    )]
    let root = f64::from(width).sqrt() as f32;
    let bits = root.to_bits();
    // Rounds to the nearest, ties to even; a root is positive and far from overflow.
    let rounded = bits + 0x7fff + ((bits >> 16) & 1);
    f32::from_bits(rounded & 0xffff_0000)
}
