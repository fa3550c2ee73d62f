//! The network itself: one pure function from tokens to logits, built from a [`Config`].

mod checkpoint;
mod layers;
mod linear;
mod past;
mod rope;
mod rows;
mod whole;

use std::collections::BTreeMap;

use mlx_rs::Array;
use mlx_rs::error::Exception;

use self::checkpoint::{Checkpoint, LinearSize};
use self::layers::{Norm, Normed};
use self::linear::{Linear, Matrix, Projections};
use self::past::{Attention, KeyValue, Past};
use self::rope::Rope;
use self::whole::Whole;
use super::config::{self, Activation, Config, Head, HeadNorms, Store};
use super::error::ModelError;

pub use checkpoint::{Layout, TensorShape};
pub use rows::{Output, RowCache, RowStep};

/// A model with its weights.
#[derive(Clone)]
pub struct Model {
    config: Config,
    stores: Vec<Store>,
    embedding: Matrix,
    layers: Vec<Layer>,
    norm: Norm,
    /// Absent when the embedding serves both ends.
    head: Option<Matrix>,
}

#[derive(Clone, Debug)]
struct Layer {
    mixer_norm: Norm,
    mixer: AttentionBlock,
    feed_forward_norm: Norm,
    feed_forward: Dense,
}

#[derive(Clone, Debug)]
struct AttentionBlock {
    constants: Attention,
    /// Queries, keys, values.
    inputs: Projections,
    output: Linear,
}

#[derive(Clone, Debug)]
struct Dense {
    /// Gate, up.
    inputs: Projections,
    down: Linear,
    activation: Activation,
    layout: Layout,
}

/// Prints no weights: printing would compute and copy them.
impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl From<Exception> for ModelError {
    fn from(cause: Exception) -> Self {
        Self::Mlx(cause.to_string())
    }
}

/// Every tensor that a model of this config has, in the order of the network.
#[must_use]
pub fn tensor_shapes(config: &Config) -> Vec<TensorShape> {
    let mut listing = Checkpoint::listing();
    Model::build(config, &mut listing)
        .expect("a listing has every tensor, in the shape that is asked for");
    listing.into_listed()
}

impl Model {
    /// A model of named arrays, as a folder would hold them. They take part in differentiation.
    ///
    /// # Errors
    /// A tensor is missing, of another shape, or belongs to no part of the model.
    pub fn from_arrays(
        config: &Config,
        arrays: BTreeMap<String, Array>,
    ) -> Result<Self, ModelError> {
        let mut checkpoint = Checkpoint::of(arrays, Layout::Apart);
        let model = Self::build(config, &mut checkpoint)?;
        checkpoint.finish(config)?;
        Ok(model)
    }

    /// The same, with everything that the network holds computed and in memory.
    pub(in crate::model) fn in_memory(
        config: &Config,
        arrays: BTreeMap<String, Array>,
        layout: Layout,
    ) -> Result<Self, ModelError> {
        let mut checkpoint = Checkpoint::of(arrays, layout);
        let model = Self::build(config, &mut checkpoint)?;
        mlx_rs::transforms::eval(&checkpoint.finish(config)?)?;
        Ok(model)
    }

    fn build(config: &Config, from: &mut Checkpoint) -> Result<Self, ModelError> {
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let embedding = from.matrix("model.embed_tokens", vocab, hidden)?;
        let mut layers = Vec::with_capacity(config.layers.len());
        for (index, layer) in config.layers.iter().enumerate() {
            let place = Place {
                config,
                prefix: format!("model.layers.{index}"),
                store: index,
            };
            layers.push(Layer::build(layer, &place, from)?);
        }
        let norm = from.norm("model.norm", config.norm, hidden)?;
        let head = match config.head {
            Head::Tied => None,
            Head::Own => Some(from.matrix("lm_head", vocab, hidden)?),
        };
        Ok(Self {
            config: config.clone(),
            stores: config.stores(),
            embedding,
            layers,
            norm,
            head,
        })
    }

    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What a row keeps: the caches are made by this.
    #[must_use]
    pub fn stores(&self) -> &[Store] {
        &self.stores
    }

    /// Bytes of keys and values that one more cached token takes.
    #[must_use]
    pub fn kv_bytes_per_token(&self) -> u64 {
        self.config.kv_bytes_per_token(self.element_bytes())
    }

    /// Bytes of one number in the network, and so in its cache. Norms are never quantised.
    fn element_bytes(&self) -> u64 {
        let weight = self.norm.weight.as_ref();
        weight.expect("the last norm has a weight").item_size() as u64
    }

    /// Logits (batch, tokens, vocabulary) of whole rows of token ids (batch, tokens), each token
    /// seeing those before it. This is the function to differentiate when training.
    ///
    /// # Errors
    /// MLX refuses the tokens' shape or type.
    pub fn logits(&self, tokens: &Array) -> Result<Array, Exception> {
        let hidden = self.hidden(tokens, &mut Whole::new(self.stores.len()))?;
        self.head(&hidden)
    }

    /// The state before the output head, (batch, tokens, hidden).
    pub(in crate::model) fn hidden(
        &self,
        tokens: &Array,
        past: &mut impl Past,
    ) -> Result<Array, Exception> {
        let state = self.embedding.rows(tokens)?;
        let first = &self
            .layers
            .first()
            .map_or(&self.norm, |layer| &layer.mixer_norm);
        let normed = layers::norm(first, &state)?;
        let mut at = Normed { state, normed };
        for (index, layer) in self.layers.iter().enumerate() {
            let next = self.layers.get(index + 1);
            let next = next.map_or(&self.norm, |layer| &layer.mixer_norm);
            at = layer.apply(&at, next, past)?;
        }
        Ok(at.normed)
    }

    /// Logits of states, whatever dimensions come before the last.
    pub(in crate::model) fn head(&self, hidden: &Array) -> Result<Array, Exception> {
        self.head.as_ref().unwrap_or(&self.embedding).apply(hidden)
    }
}

/// Where a layer stands in its model.
struct Place<'a> {
    config: &'a Config,
    prefix: String,
    store: usize,
}

impl Place<'_> {
    fn named(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }
}

impl Layer {
    fn build(
        layer: &config::Layer,
        place: &Place<'_>,
        from: &mut Checkpoint,
    ) -> Result<Self, ModelError> {
        let mut norm = |name: &str| {
            let config = place.config;
            from.norm(&place.named(name), config.norm, config.hidden_size)
        };
        let mixer_norm = norm("input_layernorm")?;
        let feed_forward_norm = norm("post_attention_layernorm")?;
        let config::Mixer::Attention(attention) = &layer.mixer;
        let config::FeedForward::Dense(dense) = &layer.feed_forward;
        Ok(Self {
            mixer_norm,
            mixer: AttentionBlock::build(attention, place, from)?,
            feed_forward_norm,
            feed_forward: Dense::build(dense, place, from)?,
        })
    }

    fn apply(&self, at: &Normed, next: &Norm, past: &mut impl Past) -> Result<Normed, Exception> {
        let seen = self.mixer.apply(&at.normed, past)?;
        let at = layers::add_norm(&self.feed_forward_norm, &at.state, &seen)?;
        let made = self.feed_forward.apply(&at.normed)?;
        layers::add_norm(next, &at.state, &made)
    }
}

impl AttentionBlock {
    fn build(
        shape: &config::Attention,
        place: &Place<'_>,
        from: &mut Checkpoint,
    ) -> Result<Self, ModelError> {
        let hidden = place.config.hidden_size;
        let query_width = shape.query_heads * shape.head_dim;
        let kv_width = shape.kv_heads * shape.head_dim;
        let mut head_norm = |name: &str| match shape.head_norms {
            HeadNorms::Absent => Ok(None),
            HeadNorms::QueryKey => from
                .norm(&place.named(name), place.config.norm, shape.head_dim)
                .map(Some),
        };
        let query_norm = head_norm("self_attn.q_norm")?;
        let key_norm = head_norm("self_attn.k_norm")?;
        let parts = [
            (place.named("self_attn.q_proj"), query_width),
            (place.named("self_attn.k_proj"), kv_width),
            (place.named("self_attn.v_proj"), kv_width),
        ];
        let inputs = from.projections(&parts, hidden, shape.input_bias)?;
        let size = LinearSize {
            output: hidden,
            input: query_width,
        };
        let output = from.linear(&place.named("self_attn.o_proj"), size, shape.output_bias)?;
        Ok(Self {
            constants: Attention {
                store: place.store,
                query_heads: shape.query_heads,
                kv_heads: shape.kv_heads,
                head_dim: shape.head_dim,
                scale: shape.scale,
                window: shape.window,
                query_norm,
                key_norm,
                value_norm: None,
                rope: Some(Rope::new(&shape.rope)),
                sinks: None,
            },
            inputs,
            output,
        })
    }

    fn apply(&self, state: &Array, past: &mut impl Past) -> Result<Array, Exception> {
        let parts = self.inputs.apply(state)?;
        let [query, key, value] = parts.as_slice() else {
            unreachable!("attention is built with three projections");
        };
        let seen = past.attend(&self.constants, query, Some(KeyValue { key, value }))?;
        self.output.apply(&seen)
    }
}

impl Dense {
    fn build(
        shape: &config::Dense,
        place: &Place<'_>,
        from: &mut Checkpoint,
    ) -> Result<Self, ModelError> {
        let hidden = place.config.hidden_size;
        let parts = [
            (place.named("mlp.gate_proj"), shape.inner),
            (place.named("mlp.up_proj"), shape.inner),
        ];
        let inputs = from.projections(&parts, hidden, shape.bias)?;
        let size = LinearSize {
            output: hidden,
            input: shape.inner,
        };
        Ok(Self {
            inputs,
            down: from.linear(&place.named("mlp.down_proj"), size, shape.bias)?,
            activation: shape.activation,
            layout: from.layout(),
        })
    }

    fn apply(&self, state: &Array) -> Result<Array, Exception> {
        let parts = self.inputs.apply(state)?;
        let [gate, up] = parts.as_slice() else {
            unreachable!("a gated layer is built with two projections");
        };
        self.down
            .apply(&layers::gated(self.activation, self.layout, gate, up)?)
    }
}
