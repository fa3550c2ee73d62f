//! What most families have in common: the keys of a decoder of the Llama kind.

use super::Family;
use crate::model::config::{
    Activation, Attention, Bias, Config, Dense, FeedForward, Head, HeadNorms, KeyValue, Keys,
    Layer, Mixer, NormPlaces, NormShape, NormWeight, Numbers, OutputGate, OutputScale, Rope, Sinks,
    missing,
};
use crate::model::error::ModelError;

/// The keys that every decoder of the Llama kind has.
pub(super) struct Decoder {
    pub(super) hidden_size: i32,
    pub(super) vocab_size: i32,
    pub(super) layer_count: usize,
    pub(super) query_heads: i32,
    pub(super) kv_heads: i32,
    pub(super) head_dim: i32,
    pub(super) context_tokens_max: i32,
    pub(super) norm: NormShape,
}

/// What a family's files mean when they do not say.
pub(super) struct Defaults {
    pub(super) query_heads: Option<i32>,
    /// As many as query heads when absent.
    pub(super) kv_heads: Option<i32>,
    /// The hidden width shared out among the heads when absent.
    pub(super) head_dim: Option<i32>,
    pub(super) vocab_size: Option<i32>,
    pub(super) context_tokens: i32,
    pub(super) norm_eps: Option<f32>,
    pub(super) norm_weight: NormWeight,
}

impl Defaults {
    /// Of files that say almost everything.
    pub(super) const PLAIN: Self = Self {
        query_heads: None,
        kv_heads: None,
        head_dim: None,
        vocab_size: None,
        context_tokens: 2_048,
        norm_eps: None,
        norm_weight: NormWeight::AsStored,
    };
}

impl Decoder {
    pub(super) fn read(keys: &Keys<'_>, defaults: &Defaults) -> Result<Self, ModelError> {
        const HEADS: &str = "num_attention_heads";
        const KV_HEADS: &str = "num_key_value_heads";
        let query_heads = keys.heads(HEADS)?.or(defaults.query_heads);
        let query_heads = query_heads.ok_or_else(|| missing(HEADS))?;
        let kv_heads = keys.heads(KV_HEADS)?.or(defaults.kv_heads);
        let hidden_size = keys.width("hidden_size")?;
        let head_dim = match keys.head_dim("head_dim")?.or(defaults.head_dim) {
            Some(dim) => dim,
            None if hidden_size % query_heads == 0 => hidden_size / query_heads,
            None => return Err(missing("head_dim")),
        };
        let eps = keys.positive("rms_norm_eps")?.or(defaults.norm_eps);
        let vocab_size = keys.width_if_any("vocab_size")?.or(defaults.vocab_size);
        let context = keys.width_if_any("max_position_embeddings")?;
        Ok(Self {
            hidden_size,
            vocab_size: vocab_size.ok_or_else(|| missing("vocab_size"))?,
            layer_count: keys.layers("num_hidden_layers")?.unsigned_abs() as usize,
            query_heads,
            kv_heads: grouped(query_heads, KV_HEADS, kv_heads.unwrap_or(query_heads))?,
            head_dim,
            context_tokens_max: context.unwrap_or(defaults.context_tokens),
            norm: NormShape {
                eps: eps.ok_or_else(|| missing("rms_norm_eps"))?,
                weight: defaults.norm_weight,
            },
        })
    }

    /// Attention over everything, with no biases, norms or gates.
    pub(super) fn attention(&self, rope: Rope) -> Attention {
        Attention {
            query_heads: self.query_heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            scale: inverse_root(self.head_dim),
            window: None,
            rope,
            head_norms: HeadNorms::Absent,
            key_value: KeyValue::Projected,
            input_bias: Bias::Absent,
            output_bias: Bias::Absent,
            gate: OutputGate::Absent,
            sinks: Sinks::Absent,
        }
    }

    /// The same layer over and over.
    pub(super) fn uniform(&self, layer: Layer) -> Vec<Layer> {
        vec![layer; self.layer_count]
    }

    /// Whether each layer has a window, from `layer_types`; `pattern` where the file has none.
    pub(super) fn windows(
        &self,
        keys: &Keys<'_>,
        window: Option<i32>,
        pattern: impl Fn(usize) -> Span,
    ) -> Result<Vec<Option<i32>>, ModelError> {
        const KEY: &str = "layer_types";
        let spans: Vec<Span> = match keys.texts(KEY, self.layer_count)? {
            Some(types) => types
                .into_iter()
                .map(|kind| match kind {
                    "full_attention" => Ok(Span::All),
                    "sliding_attention" => Ok(Span::Window),
                    other => Err(ModelError::Unsupported(format!("{KEY} {other}"))),
                })
                .collect::<Result<_, _>>()?,
            None => (0..self.layer_count).map(pattern).collect(),
        };
        let of = |span| match span {
            Span::All => Ok(None),
            Span::Window => window.map(Some).ok_or_else(|| missing("sliding_window")),
        };
        spans.into_iter().map(of).collect()
    }

    /// The head as `tie_word_embeddings` says.
    pub(super) fn config(
        self,
        keys: &Keys<'_>,
        family: Family,
        layers: Vec<Layer>,
    ) -> Result<Config, ModelError> {
        let head = if keys.flag("tie_word_embeddings", false)? {
            Head::Tied
        } else {
            Head::Own
        };
        Ok(Config {
            family,
            hidden_size: self.hidden_size,
            vocab_size: self.vocab_size,
            context_tokens_max: self.context_tokens_max,
            norm: self.norm,
            embedding_scale: None,
            per_layer_input: None,
            head,
            logit_softcap: None,
            layers,
            numbers: Numbers::read(keys)?,
            eos_ids: keys.eos_ids()?,
        })
    }
}

/// How far back a layer sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    All,
    Window,
}

pub(super) fn grouped(query_heads: i32, key: &str, kv_heads: i32) -> Result<i32, ModelError> {
    if query_heads % kv_heads == 0 {
        return Ok(kv_heads);
    }
    Err(ModelError::Inconsistent(format!(
        "num_attention_heads {query_heads} is no multiple of {key} {kv_heads}"
    )))
}

pub(super) fn inverse_root(width: i32) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "tensors compute in f32")]
    let scale = f64::from(width).sqrt().recip() as f32;
    scale
}

/// A gated layer of `intermediate_size`; the file may name no other activation.
pub(super) fn silu(keys: &Keys<'_>) -> Result<Dense, ModelError> {
    only(keys, "hidden_act", "silu")?;
    Ok(Dense {
        inner: keys.width("intermediate_size")?,
        activation: Activation::Silu,
        bias: Bias::Absent,
    })
}

/// Refuses another value than the one that the family computes.
pub(super) fn only(keys: &Keys<'_>, key: &str, known: &str) -> Result<(), ModelError> {
    match keys.text(key)? {
        Some(other) if other != known => Err(ModelError::Unsupported(format!("{key} {other}"))),
        Some(_) | None => Ok(()),
    }
}

/// A layer with a norm before each of its parts.
pub(super) fn before(attention: Attention, feed_forward: FeedForward) -> Layer {
    Layer {
        mixer: Mixer::Attention(attention),
        feed_forward,
        norms: NormPlaces::Before,
        output_scale: OutputScale::Absent,
    }
}
