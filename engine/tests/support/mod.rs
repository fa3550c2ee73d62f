//! Small models with weights drawn from a seed, for tests that need the network and no sense.
#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod truth;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use cereus_engine::model::{Config, Model, tensor_shapes};
use mlx_rs::Array;

/// A Qwen3 of four heads over two, tied.
pub(crate) const QWEN3: &str = r#"{
    "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_act": "silu",
    "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 61,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
    "tie_word_embeddings": true, "attention_bias": false, "eos_token_id": 1}"#;

/// A Llama with biases, its own head and stretched positions.
pub(crate) const LLAMA: &str = r#"{
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu",
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 53,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
    "tie_word_embeddings": false, "attention_bias": true, "mlp_bias": true,
    "eos_token_id": [1, 2]}"#;

/// A Mistral with a window in every layer.
pub(crate) const MISTRAL: &str = r#"{
    "model_type": "mistral", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 53,
    "rms_norm_eps": 1e-5, "sliding_window": 6, "rope_scaling": {"type": "linear", "factor": 2.0}}"#;

/// A Qwen2: biases on queries, keys and values.
pub(crate) const QWEN2: &str = r#"{
    "model_type": "qwen2", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 53, "rms_norm_eps": 1e-6,
    "tie_word_embeddings": true}"#;

/// A Qwen3 with experts in all layers but one.
pub(crate) const QWEN3_MOE: &str = r#"{
    "model_type": "qwen3_moe", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 53,
    "rms_norm_eps": 1e-6, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    "mlp_only_layers": [1], "norm_topk_prob": true}"#;

/// A Qwen3.5: recurrent layers, gated attention that turns a part of a head, a shared expert.
pub(crate) const QWEN35: &str = r#"{
    "model_type": "qwen3_5_moe", "vision_config": {}, "text_config": {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 53, "rms_norm_eps": 1e-6,
    "full_attention_interval": 2, "linear_num_value_heads": 4, "linear_num_key_heads": 2,
    "linear_key_head_dim": 8, "linear_value_head_dim": 12, "linear_conv_kernel_dim": 4,
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 24,
    "rope_parameters": {"rope_theta": 10000, "partial_rotary_factor": 0.5}}}"#;

/// A Gemma 3 with a window in two of three layers.
pub(crate) const GEMMA3: &str = r#"{
    "model_type": "gemma3_text", "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "vocab_size": 53, "sliding_window": 6, "sliding_window_pattern": 3,
    "query_pre_attn_scalar": 8}"#;

/// A Gemma 4 whose last two layers see the keys and values of earlier ones.
pub(crate) const GEMMA4: &str = r#"{
    "model_type": "gemma4_text", "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 8,
    "global_head_dim": 16, "vocab_size": 53, "sliding_window": 6, "sliding_window_pattern": 3,
    "num_kv_shared_layers": 2, "hidden_size_per_layer_input": 8, "tie_word_embeddings": false}"#;

/// A Gemma 4 with experts beside the dense part, and one projection for keys and values.
pub(crate) const GEMMA4_MOE: &str = r#"{
    "model_type": "gemma4", "text_config": {"hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "global_head_dim": 16, "num_global_key_value_heads": 1, "attention_k_eq_v": true,
    "vocab_size": 53, "sliding_window": 6, "sliding_window_pattern": 2, "enable_moe_block": true,
    "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 16,
    "tie_word_embeddings": false}}"#;

/// A gpt-oss: a window in every other layer, sinks, stretched positions, experts with biases.
pub(crate) const GPT_OSS: &str = r#"{
    "model_type": "gpt_oss", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 53,
    "rms_norm_eps": 1e-5, "sliding_window": 6, "num_local_experts": 4, "num_experts_per_tok": 2,
    "rope_scaling": {"rope_type": "yarn", "factor": 8.0,
        "original_max_position_embeddings": 64}}"#;

/// One of each family, with every kind of layer that it has.
pub(crate) const FAMILIES: &[&str] = &[
    GEMMA3, GEMMA4, GEMMA4_MOE, GPT_OSS, LLAMA, MISTRAL, QWEN2, QWEN3, QWEN35, QWEN3_MOE,
];

/// SplitMix64: a stream that is the same everywhere.
pub(crate) struct Stream(pub(crate) u64);

impl Stream {
    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    pub(crate) fn below(&mut self, end: u32) -> u32 {
        u32::try_from(self.word() % u64::from(end)).unwrap()
    }

    /// Uniform in -1..1.
    pub(crate) fn signed(&mut self) -> f32 {
        let [low, high, ..] = self.word().to_le_bytes();
        f32::from(i16::from_le_bytes([low, high])) / 32_768.0
    }
}

pub(crate) fn config(json: &str) -> Config {
    Config::from_json(json.as_bytes()).unwrap()
}

/// Weights of the scale of a trained model, so that logits differ clearly between tokens.
pub(crate) fn arrays(config: &Config, seed: u64) -> BTreeMap<String, Array> {
    let mut stream = Stream(seed);
    tensor_shapes(config)
        .into_iter()
        .map(|tensor| {
            let count: i32 = tensor.shape.iter().product();
            let fan_in = *tensor.shape.last().unwrap();
            let is_norm = tensor.name.ends_with("norm.weight");
            let values: Vec<f32> = (0..count)
                .map(|_| {
                    let noise = stream.signed();
                    if is_norm {
                        1.0 + 0.1 * noise
                    } else {
                        3.0 * noise / (fan_in as f32).sqrt()
                    }
                })
                .collect();
            (tensor.name, Array::from_slice(&values, &tensor.shape))
        })
        .collect()
}

pub(crate) fn model(json: &str, seed: u64) -> Model {
    let config = config(json);
    let arrays = arrays(&config, seed);
    Model::from_arrays(&config, arrays).unwrap()
}

/// Writes a folder's config and weights.
pub(crate) fn write_folder(folder: &Path, json: &str, arrays: &BTreeMap<String, Array>) {
    fs::write(folder.join("config.json"), json).unwrap();
    Array::save_safetensors(arrays, None, folder.join("model.safetensors")).unwrap();
}

/// A folder with language: one token per byte, and a Qwen3 over them with weights from `seed`.
pub(crate) fn write_byte_folder(folder: &Path, seed: u64) {
    write_byte_folder_of(folder, QWEN3, seed);
}

/// The same with another network.
pub(crate) fn write_byte_folder_of(folder: &Path, json: &str, seed: u64) {
    let byte_vocab = "\"vocab_size\": 259";
    let json = json
        .replace("\"vocab_size\": 61", byte_vocab)
        .replace("\"vocab_size\": 53", byte_vocab);
    let config = config(&json);
    write_folder(folder, &json, &arrays(&config, seed));
    let mut alphabet: Vec<char> = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet()
        .into_iter()
        .collect();
    alphabet.sort_unstable();
    let letters = alphabet.iter().map(char::to_string);
    let specials = ["<|start|>", "<|end|>", "<|pad|>"].map(str::to_owned);
    let vocab: BTreeMap<String, usize> = specials
        .into_iter()
        .chain(letters)
        .enumerate()
        .map(|(ix, token)| (token, ix))
        .collect();
    let special = |id: u32, content: &str| {
        serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true})
    };
    let byte_level = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false,
        "trim_offsets": true, "use_regex": true});
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "post_processor": null,
        "added_tokens": [special(0, "<|start|>"), special(1, "<|end|>"), special(2, "<|pad|>")],
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": []},
    });
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let texts = serde_json::json!({"eos_token": {"content": "<|end|>"}, "chat_template":
        "{% for message in messages %}<|start|>{{ message.role }}\n{{ message.content }}<|end|>\n\
         {% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"});
    fs::write(folder.join("tokenizer_config.json"), texts.to_string()).unwrap();
}
