//! The shape of the tiny model, and its `config.json`.

use std::path::Path;

use anyhow::Result;
use cereus_engine::model::Config;
use serde_json::json;

use crate::vocabulary::{VOCABULARY, Vocabulary};

/// The longest row that is trained on is 384 tokens; beyond it the model is merely not wrong about
/// its own capacity.
pub(crate) const POSITIONS_MAX: usize = 2_048;

/// 0.9 million parameters: enough for what it is taught, and trained in minutes on two CPU cores.
pub(crate) const HIDDEN: u32 = 128;
pub(crate) const LAYERS: u32 = 4;
pub(crate) const HEADS: u32 = 4;
pub(crate) const KV_HEADS: u32 = 2;
pub(crate) const HEAD: u32 = 32;
pub(crate) const INNER: u32 = 384;

/// Writes `config.json` and `generation_config.json`, and reads the former as the engine does.
pub(crate) fn write(vocabulary: &Vocabulary, folder: &Path) -> Result<Config> {
    let config = json!({
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": false,
        "attention_dropout": 0.0,
        "bos_token_id": vocabulary.end_of_text,
        "eos_token_id": vocabulary.turn_end,
        "head_dim": HEAD,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": INNER,
        "max_position_embeddings": POSITIONS_MAX,
        "model_type": "qwen3",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS,
        "pad_token_id": vocabulary.end_of_text,
        "rms_norm_eps": 1e-6,
        "rope_scaling": null,
        "rope_theta": 10_000.0,
        "sliding_window": null,
        "tie_word_embeddings": true,
        "torch_dtype": "float32",
        "use_cache": true,
        "use_sliding_window": false,
        "vocab_size": VOCABULARY,
    });
    let generation = json!({
        "do_sample": false,
        "eos_token_id": [vocabulary.turn_end, vocabulary.end_of_text],
        "pad_token_id": vocabulary.end_of_text,
    });
    let text = serde_json::to_string_pretty(&config)? + "\n";
    std::fs::write(folder.join("config.json"), &text)?;
    std::fs::write(
        folder.join("generation_config.json"),
        serde_json::to_string_pretty(&generation)? + "\n",
    )?;
    Ok(Config::from_json(text.as_bytes())?)
}
