//! The network itself: one pure function from tokens to logits, built from a [`Config`].

mod attention;
mod checkpoint;
pub(in crate::model) mod delta;
mod experts;
mod feed_forward;
mod layer;
pub(in crate::model) mod layers;
pub(in crate::model) mod linear;
mod paged;
pub(in crate::model) mod past;
mod per_layer;
mod published;
pub(in crate::model) mod quantised;
pub(in crate::model) mod rope;
mod rows;
mod whole;

use std::collections::BTreeMap;
use std::time::Duration;

use mlx_rs::Array;
use mlx_rs::error::Exception;

use self::checkpoint::Checkpoint;
use self::layer::{Layer, Place};
use self::layers::{Norm, Normed};
use self::linear::Matrix;
use self::past::Past;
use self::per_layer::LayerInputs;
use self::whole::Whole;
use super::config::{Config, Head, Store};
use super::error::ModelError;
use crate::kv::KvLayout;
use crate::scheduler::leases::Watchdog;

pub use checkpoint::{Layout, Load, QuantisedMatrices, TensorShape};
pub use paged::{BlockBytes, PagedCache, PagedStep};
pub use rows::{Output, RowCache, RowStep};

/// By `cargo xtask bench engine`: the time of a prompt token is level from about 200 in a step on.
const CPU_STEP_TOKENS: u32 = 512;
const CPU_STEP_TIME_MAX: Duration = Duration::from_secs(600);

/// A model with its weights.
#[derive(Clone)]
pub struct Model {
    config: Config,
    layout: Layout,
    stores: Vec<Store>,
    embedding: Matrix,
    layer_inputs: Option<LayerInputs>,
    layers: Vec<Layer>,
    norm: Norm,
    /// Absent when the embedding serves both ends.
    head: Option<Matrix>,
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
        let mut checkpoint = Checkpoint::of(config, arrays, Load::AS_STORED)?;
        let model = Self::build(config, &mut checkpoint)?;
        checkpoint.finish()?;
        Ok(model)
    }

    /// The same, with everything that the network holds computed and in memory.
    pub(in crate::model) fn in_memory(
        config: &Config,
        arrays: BTreeMap<String, Array>,
        load: Load,
    ) -> Result<Self, ModelError> {
        let mut checkpoint = Checkpoint::of(config, arrays, load)?;
        let model = Self::build(config, &mut checkpoint)?;
        mlx_rs::transforms::eval(&checkpoint.finish()?)?;
        Ok(model)
    }

    fn build(config: &Config, from: &mut Checkpoint) -> Result<Self, ModelError> {
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let embedding = from.matrix("model.embed_tokens", vocab, hidden)?;
        let layer_inputs = config.per_layer_input;
        let layer_inputs = layer_inputs.map(|shape| LayerInputs::build(shape, config, from));
        let mut layers = Vec::with_capacity(config.layers.len());
        let stores = config.store_of_layers();
        for (index, (layer, store)) in config.layers.iter().zip(stores).enumerate() {
            let place = Place {
                config,
                prefix: format!("model.layers.{index}"),
                store,
            };
            layers.push(Layer::build(layer, &place, from)?);
        }
        let norm = from.norm("model.norm", config.norm, hidden)?;
        let head = match config.head {
            Head::Tied => None,
            Head::TiedUnlessStored if !from.has("lm_head.weight") => None,
            Head::Own | Head::TiedUnlessStored => Some(from.matrix("lm_head", vocab, hidden)?),
        };
        Ok(Self {
            config: config.clone(),
            layout: from.layout(),
            stores: config.stores(),
            embedding,
            layer_inputs: layer_inputs.transpose()?,
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

    /// How its past is cut into pages, under a grant of so many bytes.
    #[must_use]
    pub fn kv_layout(&self, grant_bytes: u64) -> KvLayout {
        self.config.kv_layout(self.element_bytes(), grant_bytes)
    }

    /// Tokens of a step beyond which a token costs no less. A core of a CPU is busy with a few
    /// hundred; a GPU wants as many as there are.
    #[must_use]
    pub fn step_tokens_useful(&self) -> u32 {
        match self.layout {
            Layout::Packed => CPU_STEP_TOKENS,
            Layout::Apart | Layout::Joined => u32::MAX,
        }
    }

    /// How long a step may take before it is taken for one that never ends. A core of a CPU is honestly
    /// busy for minutes with a network of some billions.
    #[must_use]
    pub fn step_time_max(&self) -> Duration {
        match self.layout {
            Layout::Packed => CPU_STEP_TIME_MAX,
            Layout::Apart | Layout::Joined => Duration::from_micros(Watchdog::REFERENCE_LIMIT.0),
        }
    }

    pub(crate) const fn layout(&self) -> Layout {
        self.layout
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
        let mut state = self.embedding.rows(tokens)?;
        if let Some(scale) = self.config.embedding_scale {
            state = layers::scaled(&state, scale)?;
        }
        let own_inputs = match &self.layer_inputs {
            Some(inputs) => inputs.of(tokens, &state)?,
            None => vec![],
        };
        let norm_before = |index: usize| {
            let layer = self.layers.get(index);
            layer.map_or(&self.norm, |layer| &layer.mixer_norm)
        };
        let normed = layers::norm(norm_before(0), &state)?;
        let mut at = Normed { state, normed };
        for (index, layer) in self.layers.iter().enumerate() {
            at = layer.apply(&at, own_inputs.get(index), norm_before(index + 1), past)?;
        }
        Ok(at.normed)
    }

    /// Logits of states, whatever dimensions come before the last.
    pub(in crate::model) fn head(&self, hidden: &Array) -> Result<Array, Exception> {
        let logits = self
            .head
            .as_ref()
            .unwrap_or(&self.embedding)
            .apply(hidden)?;
        match self.config.logit_softcap {
            Some(cap) => layers::softcapped(&logits, cap),
            None => Ok(logits),
        }
    }
}
