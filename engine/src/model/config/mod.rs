//! What a folder's `config.json` says, read once into values that cannot be wrong.
//!
//! A [`Config`] is the whole network in words: every layer with its sizes. One file a family
//! (`families/`) writes it; the tensors (`network/`) and the books of memory only read it. Pure:
//! a machine without MLX can still say what a model needs.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod keys;
mod memory;
mod rope;

pub use keys::EosIds;
pub(super) use keys::{Keys, missing};
pub use rope::{Rope, RopeStretch};

use super::error::ModelError;
use super::families::{self, Family};

/// The shape of a model. All sizes are positive and consistent with one another.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub family: Family,
    pub hidden_size: i32,
    pub vocab_size: i32,
    pub context_tokens_max: i32,
    pub norm: NormShape,
    /// What the embedding of a token is multiplied by.
    pub embedding_scale: Option<f32>,
    pub head: Head,
    pub layers: Vec<Layer>,
    /// End-of-sequence tokens that this file names; other files may name more.
    pub eos_ids: Vec<u32>,
}

/// How root-mean-square norms are written in the files.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormShape {
    pub eps: f32,
    pub weight: NormWeight,
}

/// What a norm multiplies by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormWeight {
    AsStored,
    /// The file holds the difference to one.
    OnePlusStored,
}

/// Where logits come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// A matrix of its own, `lm_head`.
    Own,
    /// The embedding; an `lm_head` in the files takes no part.
    Tied,
}

/// One layer: something that looks at the past, then something that looks at each token alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    pub mixer: Mixer,
    pub feed_forward: FeedForward,
}

/// How a layer sees the past.
#[derive(Clone, Debug, PartialEq)]
pub enum Mixer {
    Attention(Attention),
}

/// Attention over cached keys and values.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    pub query_heads: i32,
    pub kv_heads: i32,
    pub head_dim: i32,
    pub scale: f32,
    /// Tokens that a token sees, itself included; all when absent.
    pub window: Option<i32>,
    pub rope: Rope,
    pub head_norms: HeadNorms,
    /// Whether the projections of queries, keys and values have biases.
    pub input_bias: Bias,
    pub output_bias: Bias,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    Absent,
    Present,
}

impl Bias {
    pub(crate) const fn from_flag(flag: bool) -> Self {
        if flag { Self::Present } else { Self::Absent }
    }
}

/// Which heads are normalised before rotary positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadNorms {
    Absent,
    QueryKey,
}

/// What a layer does with each token alone.
#[derive(Clone, Debug, PartialEq)]
pub enum FeedForward {
    Dense(Dense),
}

/// `down(act(gate(x)) * up(x))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dense {
    pub inner: i32,
    pub activation: Activation,
    pub bias: Bias,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    Silu,
}

/// What one row keeps for the layers of a model, in the order of the layers that own it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    Attention {
        kv_heads: i32,
        head_dim: i32,
        window: Option<i32>,
    },
}

impl Config {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// The JSON is malformed, the family or a feature of it is not supported, or sizes disagree.
    pub fn from_json(json: &[u8]) -> Result<Self, ModelError> {
        let root: serde_json::Value =
            serde_json::from_slice(json).map_err(|cause| ModelError::Json {
                file: "config.json".to_owned(),
                cause: cause.to_string(),
            })?;
        families::read(&Keys::of_config(&root)?)
    }

    /// What a row keeps, in the order of the layers.
    #[must_use]
    pub fn stores(&self) -> Vec<Store> {
        let of_layer = |layer: &Layer| match &layer.mixer {
            Mixer::Attention(attention) => Store::Attention {
                kv_heads: attention.kv_heads,
                head_dim: attention.head_dim,
                window: attention.window,
            },
        };
        self.layers.iter().map(of_layer).collect()
    }
}

#[cfg(test)]
mod tests;
