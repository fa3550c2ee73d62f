//! What a folder's `config.json` says, read once into values that cannot be wrong.
//!
//! A [`Config`] is the whole network in words: every layer with its sizes. One file a family
//! (`families/`) writes it; the tensors (`network/`) and the books of memory only read it. Pure:
//! a machine without MLX can still say what a model needs.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod groups;
mod keys;
mod memory;
mod quantisation;
mod rope;

pub use groups::StoreGroup;
pub use keys::EosIds;
pub(super) use keys::{Keys, missing};
pub use quantisation::Numbers;
pub(super) use rope::turning;
pub use rope::{Rope, RopePairs, RopeStretch, Yarn, YarnRamp};

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
    pub per_layer_input: Option<PerLayerInput>,
    pub head: Head,
    /// Logits are squeezed into this range by a hyperbolic tangent.
    pub logit_softcap: Option<f32>,
    pub layers: Vec<Layer>,
    pub numbers: Numbers,
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

/// A second embedding of each token, a part of it for each layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerLayerInput {
    /// Of one layer's part.
    pub width: i32,
    pub vocab_size: i32,
}

/// Where logits come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// A matrix of its own, `lm_head`.
    Own,
    /// The embedding; an `lm_head` in the files takes no part.
    Tied,
    /// `lm_head` where the files hold it, else the embedding.
    TiedUnlessStored,
}

/// One layer: something that looks at the past, then something that looks at each token alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    pub mixer: Mixer,
    pub feed_forward: FeedForward,
    pub norms: NormPlaces,
    /// Whether the layer's output is multiplied by a number of its own.
    pub output_scale: OutputScale,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlaces {
    /// Before each of the two parts.
    Before,
    /// Before and after each.
    Around,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputScale {
    Absent,
    Stored,
}

/// How a layer sees the past.
#[derive(Clone, Debug, PartialEq)]
pub enum Mixer {
    Attention(Attention),
    GatedDelta(GatedDelta),
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
    pub key_value: KeyValue,
    /// Whether the projections of queries, keys and values have biases.
    pub input_bias: Bias,
    pub output_bias: Bias,
    pub gate: OutputGate,
    pub sinks: Sinks,
}

/// Where keys and values come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyValue {
    /// A projection each.
    Projected,
    /// One projection for both.
    OneForBoth,
    /// Those of an earlier layer, by its index.
    OfLayer(usize),
}

/// Whether what a head has seen is scaled by a sigmoid of a second half of the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputGate {
    Absent,
    Sigmoid,
}

/// Whether each query head has a logit that takes its share of attention and gives nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sinks {
    Absent,
    Present,
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
    /// Values as well, theirs without a weight.
    QueryKeyValue,
}

/// A recurrent layer by the gated delta rule: a convolution over the last few tokens, then a
/// matrix a head that each token decays and corrects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatedDelta {
    pub key_heads: i32,
    pub value_heads: i32,
    pub key_dim: i32,
    pub value_dim: i32,
    /// Tokens that the convolution sees, the present one included.
    pub kernel: i32,
}

impl GatedDelta {
    /// Numbers of a token that pass the convolution: queries, keys and values.
    #[must_use]
    pub fn mixed_width(&self) -> i32 {
        2 * self.key_heads * self.key_dim + self.value_width()
    }

    #[must_use]
    pub fn value_width(&self) -> i32 {
        self.value_heads * self.value_dim
    }
}

/// What a layer does with each token alone.
#[derive(Clone, Debug, PartialEq)]
pub enum FeedForward {
    Dense(Dense),
    Experts(Experts),
    /// Both beside each other, each normalised, and their sum.
    DenseAndExperts(Dense, Experts),
}

/// `down(act(gate(x)) * up(x))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dense {
    pub inner: i32,
    pub activation: Activation,
    pub bias: Bias,
}

/// Many dense layers, of which each token takes a few.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Experts {
    pub count: i32,
    pub chosen: i32,
    /// Of each; their activation and their biases.
    pub each: Dense,
    pub router: Router,
    /// A dense layer that every token takes as well, scaled by a sigmoid of its own: its width.
    pub shared_inner: Option<i32>,
    pub names: ExpertNames,
}

/// How a token's experts are chosen and weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Router {
    /// The highest shares of a softmax over all.
    SharesOfAll,
    /// The same, made to sum to one.
    SharesOfAllRenormalised,
    /// A softmax over the highest logits; the router has a bias.
    SharesOfChosen,
    /// The same on a normalised input, times a stored scale an expert.
    SharesOfChosenScaled,
}

/// What the files call the parts, below the layer's own name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertNames {
    pub router: &'static str,
    pub experts: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    Silu,
    /// The approximation by a hyperbolic tangent.
    GeluTanh,
    /// Both halves clipped to `limit`, one added to the linear one.
    SwigluClipped {
        limit: f32,
    },
}

/// What one row keeps for the layers of a model, in the order of the layers that own it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    Attention {
        kv_heads: i32,
        head_dim: i32,
        window: Option<i32>,
    },
    Recurrent(GatedDelta),
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
            Mixer::Attention(attention) => match attention.key_value {
                KeyValue::Projected | KeyValue::OneForBoth => Some(Store::Attention {
                    kv_heads: attention.kv_heads,
                    head_dim: attention.head_dim,
                    window: attention.window,
                }),
                KeyValue::OfLayer(_) => None,
            },
            Mixer::GatedDelta(delta) => Some(Store::Recurrent(*delta)),
        };
        self.layers.iter().filter_map(of_layer).collect()
    }

    /// Which of [`Config::stores`] each layer sees.
    #[must_use]
    pub fn store_of_layers(&self) -> Vec<usize> {
        let mut stores: Vec<usize> = Vec::with_capacity(self.layers.len());
        let mut next = 0;
        for layer in &self.layers {
            let shared = match &layer.mixer {
                Mixer::Attention(attention) => match attention.key_value {
                    KeyValue::OfLayer(earlier) => Some(stores[earlier]),
                    KeyValue::Projected | KeyValue::OneForBoth => None,
                },
                Mixer::GatedDelta(_) => None,
            };
            stores.push(shared.unwrap_or(next));
            next += usize::from(shared.is_none());
        }
        stores
    }
}

#[cfg(test)]
mod tests;
