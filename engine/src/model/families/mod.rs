//! The model families: one file each, from the keys of `config.json` to a [`Config`].
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod llama;
mod qwen3;

use super::config::{
    Attention, Bias, Config, Head, HeadNorms, Keys, Layer, NormShape, NormWeight, Rope, missing,
};
use super::error::ModelError;

/// Which architecture a folder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Llama,
    Qwen3,
}

/// For people whose model is none of them.
pub(super) const SUPPORTED: &str = "llama and qwen3";

/// What a folder without `max_position_embeddings` gets.
const CONTEXT_TOKENS_DEFAULT: i32 = 2_048;

pub(super) fn read(keys: &Keys<'_>) -> Result<Config, ModelError> {
    keys.refuse("quantization")?;
    keys.refuse("quantization_config")?;
    match keys.model_type()? {
        "llama" => llama::read(keys),
        "qwen3" => qwen3::read(keys),
        other => Err(ModelError::Family(other.to_owned())),
    }
}

/// The keys that every decoder of the Llama kind has.
struct Decoder {
    hidden_size: i32,
    layer_count: i32,
    query_heads: i32,
    kv_heads: i32,
    head_dim: i32,
    norm: NormShape,
}

impl Decoder {
    fn read(keys: &Keys<'_>) -> Result<Self, ModelError> {
        if let Some(act) = keys.text("hidden_act")?.filter(|&act| act != "silu") {
            return Err(ModelError::Unsupported(format!("hidden_act {act}")));
        }
        let query_heads = keys.heads("num_attention_heads")?;
        let query_heads = query_heads.ok_or_else(|| missing("num_attention_heads"))?;
        let kv_heads = keys.heads("num_key_value_heads")?.unwrap_or(query_heads);
        let hidden_size = keys.width("hidden_size")?;
        let head_dim = match keys.head_dim("head_dim")? {
            Some(dim) => dim,
            None if hidden_size % query_heads == 0 => hidden_size / query_heads,
            None => return Err(missing("head_dim")),
        };
        grouped(query_heads, "num_key_value_heads", kv_heads)?;
        Ok(Self {
            hidden_size,
            layer_count: keys.layers("num_hidden_layers")?,
            query_heads,
            kv_heads,
            head_dim,
            norm: NormShape {
                eps: keys.demand("rms_norm_eps")?,
                weight: NormWeight::AsStored,
            },
        })
    }

    /// Attention over everything, positions as the file says, no biases.
    fn attention(&self, keys: &Keys<'_>) -> Result<Attention, ModelError> {
        Ok(Attention {
            query_heads: self.query_heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            scale: inverse_root(self.head_dim),
            window: None,
            rope: Rope::read(keys, self.head_dim)?,
            head_norms: HeadNorms::Absent,
            input_bias: Bias::Absent,
            output_bias: Bias::Absent,
        })
    }

    fn config(
        self,
        keys: &Keys<'_>,
        family: Family,
        layers: Vec<Layer>,
    ) -> Result<Config, ModelError> {
        let context = keys.width_if_any("max_position_embeddings")?;
        let head = if keys.flag("tie_word_embeddings", false)? {
            Head::Tied
        } else {
            Head::Own
        };
        Ok(Config {
            family,
            hidden_size: self.hidden_size,
            vocab_size: keys.width("vocab_size")?,
            context_tokens_max: context.unwrap_or(CONTEXT_TOKENS_DEFAULT),
            norm: self.norm,
            embedding_scale: None,
            head,
            layers,
            eos_ids: keys.eos_ids()?,
        })
    }
}

fn grouped(query_heads: i32, key: &str, kv_heads: i32) -> Result<(), ModelError> {
    if query_heads % kv_heads == 0 {
        return Ok(());
    }
    Err(ModelError::Inconsistent(format!(
        "num_attention_heads {query_heads} is no multiple of {key} {kv_heads}"
    )))
}

fn inverse_root(width: i32) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "tensors compute in f32")]
    let scale = f64::from(width).sqrt().recip() as f32;
    scale
}
