//! The network itself: one pure function from tokens to logits.
//!
//! What differs between training, one-shot use and serving is only how attention sees the past,
//! so that is an argument: `Whole` looks at nothing but the tokens given, `cache::Packed` at each
//! row's cached keys and values. Everything else is the same code for all.

use std::collections::BTreeMap;

use mlx_rs::error::Exception;
use mlx_rs::fast::{self, ScaledDotProductAttentionMask};
use mlx_rs::{Array, nn};

use super::config::Config;
use super::error::ModelError;
use super::rope::Rope;
use super::weights::{self, Layer, Linear, Weights};

/// A dense decoder of the Llama or Qwen3 family.
#[derive(Clone)]
pub struct Model {
    config: Config,
    weights: Weights<Array>,
    rope: Rope,
}

/// Prints no weights: printing would compute and copy them.
impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// How one layer's attention sees the past. Queries, keys and values come as (batch, tokens,
/// heads, head_dim), before rotary positions; so does the answer.
pub(super) trait Attend {
    fn attend(
        &mut self,
        layer_ix: usize,
        query: &Array,
        key: &Array,
        value: &Array,
    ) -> Result<Array, Exception>;
}

impl Model {
    /// Builds a model from its tensors. Cheap: checks names and shapes and computes nothing, so it
    /// may run inside a function that MLX differentiates.
    ///
    /// # Errors
    /// A tensor is missing, has another shape, or belongs to no part of the network.
    pub fn from_arrays(
        config: &Config,
        arrays: BTreeMap<String, Array>,
    ) -> Result<Self, ModelError> {
        let weights = weights::build(config, arrays)?;
        Ok(Self {
            config: config.clone(),
            weights,
            rope: Rope::new(config),
        })
    }

    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Logits (batch, tokens, vocabulary) of whole rows of token ids (batch, tokens), each token
    /// seeing those before it. This is the function to differentiate when training.
    ///
    /// # Errors
    /// MLX refuses the tokens' shape or type.
    pub fn logits(&self, tokens: &Array) -> Result<Array, Exception> {
        let mut attend = Whole {
            rope: &self.rope,
            scale: self.attention_scale(),
        };
        let hidden = self.hidden(tokens, &mut attend)?;
        self.head(&hidden)
    }

    /// Bytes of one number in the network, and so in its cache.
    pub(super) fn element_size(&self) -> u64 {
        self.weights.embedding.item_size() as u64
    }

    pub(super) fn rope(&self) -> &Rope {
        &self.rope
    }

    pub(super) fn attention_scale(&self) -> f32 {
        // A head's width is far below 2^24, where f32 stops being exact.
        #[expect(clippy::cast_precision_loss, reason = "exact below 2^24")]
        let width = self.config.head_dim as f32;
        width.sqrt().recip()
    }

    /// The state before the output head, (batch, tokens, hidden).
    pub(super) fn hidden(
        &self,
        tokens: &Array,
        attend: &mut impl Attend,
    ) -> Result<Array, Exception> {
        let mut state = self.weights.embedding.take_axis(tokens, 0)?;
        for (layer_ix, layer) in self.weights.layers.iter().enumerate() {
            let normed = self.norm(&state, &layer.attention_norm)?;
            let seen = self.attention(layer_ix, layer, &normed, attend)?;
            state = state.add(&seen)?;
            let normed = self.norm(&state, &layer.mlp_norm)?;
            state = state.add(&mlp(layer, &normed)?)?;
        }
        self.norm(&state, &self.weights.norm)
    }

    /// Logits of states, whatever dimensions come before the last.
    pub(super) fn head(&self, hidden: &Array) -> Result<Array, Exception> {
        let matrix = self
            .weights
            .head
            .as_ref()
            .unwrap_or(&self.weights.embedding);
        hidden.matmul(matrix.t())
    }

    fn attention(
        &self,
        layer_ix: usize,
        layer: &Layer<Array>,
        state: &Array,
        attend: &mut impl Attend,
    ) -> Result<Array, Exception> {
        let (batch, tokens) = (state.dim(0), state.dim(1));
        let heads =
            |array: Array, count: i32| array.reshape(&[batch, tokens, count, self.config.head_dim]);
        let mut query = heads(layer.query.apply(state)?, self.config.query_heads)?;
        let mut key = heads(layer.key.apply(state)?, self.config.kv_heads)?;
        let value = heads(layer.value.apply(state)?, self.config.kv_heads)?;
        if let Some(norms) = &layer.head_norms {
            query = self.norm(&query, &norms.query)?;
            key = self.norm(&key, &norms.key)?;
        }
        let seen = attend.attend(layer_ix, &query, &key, &value)?;
        layer.output.apply(&seen.reshape(&[batch, tokens, -1])?)
    }

    fn norm(&self, state: &Array, weight: &Array) -> Result<Array, Exception> {
        fast::rms_norm(state, Some(weight), self.config.rms_norm_eps)
    }
}

impl Linear<Array> {
    fn apply(&self, input: &Array) -> Result<Array, Exception> {
        let product = input.matmul(self.weight.t())?;
        match &self.bias {
            Some(bias) => product.add(bias),
            None => Ok(product),
        }
    }
}

fn mlp(layer: &Layer<Array>, state: &Array) -> Result<Array, Exception> {
    let gate = nn::silu(layer.gate.apply(state)?)?;
    let up = layer.up.apply(state)?;
    layer.down.apply(&gate.multiply(&up)?)
}

/// Attention over the given tokens only, each seeing itself and those before it.
struct Whole<'a> {
    rope: &'a Rope,
    scale: f32,
}

impl Attend for Whole<'_> {
    fn attend(
        &mut self,
        _layer_ix: usize,
        query: &Array,
        key: &Array,
        value: &Array,
    ) -> Result<Array, Exception> {
        let query = self.rope.at_start(&query.swap_axes(1, 2)?)?;
        let key = self.rope.at_start(&key.swap_axes(1, 2)?)?;
        let value = value.swap_axes(1, 2)?;
        let causal = ScaledDotProductAttentionMask::Causal;
        fast::scaled_dot_product_attention(&query, &key, &value, self.scale, Some(causal), None)?
            .swap_axes(1, 2)
    }
}
