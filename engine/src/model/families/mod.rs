//! The model families: one file each, from the keys of `config.json` to a [`Config`].
//!
//! A family's file says which keys it reads, what it calls its tensors where that is not what all
//! call them, and the order of its layers. The arithmetic is shared; a family brings none.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod decoder;
mod gemma3;
mod gemma4;
mod gpt_oss;
mod llama;
#[cfg(feature = "mlx")]
mod names;
mod qwen2;
mod qwen3;
mod qwen3_5;
mod qwen3_moe;

use self::decoder::{Decoder, before, silu};
#[cfg(feature = "mlx")]
pub(super) use self::names::network_name;
use super::config::{Config, Keys};
use super::error::ModelError;

/// Which architecture a folder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Gemma3,
    Gemma4,
    GptOss,
    Llama,
    Qwen2,
    Qwen3,
    Qwen3Moe,
    Qwen35,
}

/// For people whose model is none of them.
pub(super) const SUPPORTED: &str = "gemma3, gemma3_text, gemma4, gemma4_text, gpt_oss, llama, \
    mistral, qwen2, qwen3, qwen3_moe, qwen3_5 and qwen3_5_moe";

pub(super) fn read(keys: &Keys<'_>) -> Result<Config, ModelError> {
    match keys.model_type()? {
        "gemma3" | "gemma3_text" => gemma3::read(keys),
        "gemma4" | "gemma4_text" | "gemma4_unified" => gemma4::read(keys),
        "gpt_oss" => gpt_oss::read(keys),
        "llama" | "mistral" => llama::read(keys),
        "qwen2" => qwen2::read(keys),
        "qwen3" => qwen3::read(keys),
        "qwen3_moe" => qwen3_moe::read(keys),
        "qwen3_5" | "qwen3_5_text" | "qwen3_5_moe" | "qwen3_5_moe_text" => qwen3_5::read(keys),
        other => Err(ModelError::Family(other.to_owned())),
    }
}
