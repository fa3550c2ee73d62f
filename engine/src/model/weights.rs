//! The tensors of a model by name and shape, and their place in the network.
//!
//! One walk over the network, generic in what it finds at each place, serves listing, checking and
//! building: names and shapes are stated once.

use std::collections::BTreeMap;

use mlx_rs::Array;

use super::config::{Config, Family};
use super::error::ModelError;

/// One tensor that a model of some config has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorShape {
    pub name: String,
    pub shape: Vec<i32>,
}

/// `y = x W^T + b`, as in the files: `weight` is (out, in).
#[derive(Clone, Debug)]
pub(super) struct Linear<T> {
    pub(super) weight: T,
    pub(super) bias: Option<T>,
}

#[derive(Clone, Debug)]
pub(super) struct Layer<T> {
    pub(super) attention_norm: T,
    pub(super) query: Linear<T>,
    pub(super) key: Linear<T>,
    pub(super) value: Linear<T>,
    pub(super) output: Linear<T>,
    /// Qwen3 normalises queries and keys per head.
    pub(super) head_norms: Option<HeadNorms<T>>,
    pub(super) mlp_norm: T,
    pub(super) gate: Linear<T>,
    pub(super) up: Linear<T>,
    pub(super) down: Linear<T>,
}

#[derive(Clone, Debug)]
pub(super) struct HeadNorms<T> {
    pub(super) query: T,
    pub(super) key: T,
}

#[derive(Clone, Debug)]
pub(super) struct Weights<T> {
    pub(super) embedding: T,
    pub(super) layers: Vec<Layer<T>>,
    pub(super) norm: T,
    /// Absent when the embedding serves both ends.
    pub(super) head: Option<T>,
}

/// Every tensor that a model of this config has, in the order of the network.
#[must_use]
pub fn tensor_shapes(config: &Config) -> Vec<TensorShape> {
    let mut list = Vec::new();
    let walked = walk(config, |name, shape| {
        list.push(TensorShape { name, shape });
        Ok(())
    });
    assert!(
        walked.is_ok(),
        "listing looks at no tensor, so none can be wrong"
    );
    list
}

/// Checks names and shapes without touching data: the caller may know them from file headers.
pub(super) fn check(
    config: &Config,
    mut found: BTreeMap<String, Vec<i32>>,
) -> Result<(), ModelError> {
    walk(config, |name, expected| match found.remove(&name) {
        None => Err(ModelError::TensorMissing { name, expected }),
        Some(shape) if shape != expected => Err(ModelError::TensorShape {
            name,
            expected,
            found: shape,
        }),
        Some(_) => Ok(()),
    })?;
    refuse_strangers(config, found.keys())
}

/// A tensor left over by the walk means that config and weights are of different models, unless it
/// is one that takes no part in the network.
fn refuse_strangers<'a>(
    config: &Config,
    left: impl IntoIterator<Item = &'a String>,
) -> Result<(), ModelError> {
    let is_idle = |name: &str| {
        name.ends_with("rotary_emb.inv_freq")
            || (config.tied_embeddings && name == "lm_head.weight")
    };
    let stranger = left.into_iter().find(|name| !is_idle(name));
    stranger.map_or(Ok(()), |name| {
        Err(ModelError::TensorUnknown { name: name.clone() })
    })
}

/// Puts each tensor in its place.
pub(super) fn build(
    config: &Config,
    mut arrays: BTreeMap<String, Array>,
) -> Result<Weights<Array>, ModelError> {
    let weights = walk(config, |name, expected| {
        let Some(array) = arrays.remove(&name) else {
            return Err(ModelError::TensorMissing { name, expected });
        };
        if array.shape() != expected {
            let found = array.shape().to_vec();
            return Err(ModelError::TensorShape {
                name,
                expected,
                found,
            });
        }
        Ok(array)
    })?;
    refuse_strangers(config, arrays.keys())?;
    Ok(weights)
}

/// Visits every place of the network in order.
fn walk<T>(
    config: &Config,
    mut at: impl FnMut(String, Vec<i32>) -> Result<T, ModelError>,
) -> Result<Weights<T>, ModelError> {
    let embedding_shape = vec![config.vocab_size, config.hidden_size];
    let embedding = at(
        "model.embed_tokens.weight".to_owned(),
        embedding_shape.clone(),
    )?;
    let layers = (0..config.layer_count)
        .map(|index| walk_layer(config, &format!("model.layers.{index}"), &mut at))
        .collect::<Result<Vec<_>, _>>()?;
    let norm = at("model.norm.weight".to_owned(), vec![config.hidden_size])?;
    let head = if config.tied_embeddings {
        None
    } else {
        Some(at("lm_head.weight".to_owned(), embedding_shape)?)
    };
    Ok(Weights {
        embedding,
        layers,
        norm,
        head,
    })
}

fn walk_layer<T>(
    config: &Config,
    prefix: &str,
    at: &mut impl FnMut(String, Vec<i32>) -> Result<T, ModelError>,
) -> Result<Layer<T>, ModelError> {
    let hidden = config.hidden_size;
    let inner = config.intermediate_size;
    let query_width = config.query_heads * config.head_dim;
    let kv_width = config.kv_heads * config.head_dim;
    let mut norm = |name: &str, width: i32| at(format!("{prefix}.{name}.weight"), vec![width]);
    let attention_norm = norm("input_layernorm", hidden)?;
    let mlp_norm = norm("post_attention_layernorm", hidden)?;
    let head_norms = match config.family {
        Family::Llama => None,
        Family::Qwen3 => Some(HeadNorms {
            query: norm("self_attn.q_norm", config.head_dim)?,
            key: norm("self_attn.k_norm", config.head_dim)?,
        }),
    };
    let mut linear = |name: &str, biased: bool, width_out: i32, width_in: i32| {
        let weight = at(format!("{prefix}.{name}.weight"), vec![width_out, width_in])?;
        let bias = biased.then(|| at(format!("{prefix}.{name}.bias"), vec![width_out]));
        Ok::<_, ModelError>(Linear {
            weight,
            bias: bias.transpose()?,
        })
    };
    Ok(Layer {
        attention_norm,
        query: linear(
            "self_attn.q_proj",
            config.attention_bias,
            query_width,
            hidden,
        )?,
        key: linear("self_attn.k_proj", config.attention_bias, kv_width, hidden)?,
        value: linear("self_attn.v_proj", config.attention_bias, kv_width, hidden)?,
        output: linear(
            "self_attn.o_proj",
            config.attention_bias,
            hidden,
            query_width,
        )?,
        head_norms,
        mlp_norm,
        gate: linear("mlp.gate_proj", config.mlp_bias, inner, hidden)?,
        up: linear("mlp.up_proj", config.mlp_bias, inner, hidden)?,
        down: linear("mlp.down_proj", config.mlp_bias, hidden, inner)?,
    })
}
