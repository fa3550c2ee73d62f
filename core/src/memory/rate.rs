//! What one token costs in keys and values, read from a model's `config.json` without loading it. Only
//! layers of full attention count: windows and recurrent states do not grow with the text.

use serde_json::{Map, Value};

/// Two values, K and V, of two bytes each.
const BYTES_PER_COMPONENT: u64 = 4;
const CONFIG_SIZE_MAX: usize = 4 << 20;
const LAYERS_MAX: u64 = 1_024;
const HEADS_MAX: u64 = 1_024;
const HEAD_DIM_MAX: u64 = 2_048;
const CONTEXT_TOKENS_MAX: u64 = 2_097_152;
/// A rate below this is no rate.
const RATE_MIN: u64 = 1_000;
const FALLBACK_RATE_MIN: u64 = 100_000;
/// Weights for each byte of KV and token, of a model that says nothing.
const FALLBACK_WEIGHTS_PER_RATE: u64 = 25_000;
/// Where none of the keys of the context's length is there.
const CONTEXT_TOKENS_DEFAULT: u64 = 2_048;

/// What a config says of its keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KvRate {
    /// Full attention only: what grows with each token.
    pub bytes_per_token: u64,
    pub context_tokens: u64,
}

impl KvRate {
    /// A rate that is likely too high, for a model whose config says nothing of it.
    #[must_use]
    pub const fn fallback(weights_bytes: u64) -> Self {
        let by_weights = weights_bytes / FALLBACK_WEIGHTS_PER_RATE;
        Self {
            bytes_per_token: if by_weights > FALLBACK_RATE_MIN {
                by_weights
            } else {
                FALLBACK_RATE_MIN
            },
            context_tokens: CONTEXT_TOKENS_DEFAULT,
        }
    }
}

/// Reads the rate out of a `config.json`; the fallback when there is none to be read.
#[must_use]
pub fn config_kv_rate(config: &[u8], weights_bytes: u64) -> KvRate {
    let fallback = KvRate::fallback(weights_bytes);
    if config.len() > CONFIG_SIZE_MAX {
        return fallback;
    }
    let Ok(Value::Object(root)) = serde_json::from_slice(config) else {
        return fallback;
    };
    let keys = Keys {
        text: root.get("text_config").and_then(Value::as_object),
        root: &root,
    };
    let context_tokens = keys.context_tokens();
    match keys.bytes_per_token() {
        Some(bytes_per_token) if bytes_per_token >= RATE_MIN => KvRate {
            bytes_per_token,
            context_tokens,
        },
        Some(_) | None => KvRate {
            context_tokens,
            ..fallback
        },
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attention {
    Full,
    /// Bounded, or of constant size: adds nothing for a further token.
    Bounded,
    Unknown,
}

/// The language part's keys, and the whole model's where it lacks one.
struct Keys<'a> {
    text: Option<&'a Map<String, Value>>,
    root: &'a Map<String, Value>,
}

impl Keys<'_> {
    fn value(&self, key: &str) -> Option<&Value> {
        let is_there = |value: &&Value| !value.is_null();
        let in_text = self.text.and_then(|text| text.get(key)).filter(is_there);
        in_text.or_else(|| self.root.get(key).filter(is_there))
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.value(key)?.as_u64()
    }

    fn bytes_per_token(&self) -> Option<u64> {
        let layers = self.number("num_hidden_layers")?.min(LAYERS_MAX);
        let heads = self.number("num_attention_heads");
        let kv_heads = self.number("num_key_value_heads").or(heads)?.min(HEADS_MAX);
        let head_dim = match self.number("head_dim") {
            Some(head_dim) => head_dim,
            None => self.number("hidden_size")?.checked_div(heads?)?,
        };
        let width = kv_heads * head_dim.min(HEAD_DIM_MAX);
        let global_heads = self
            .number("num_global_key_value_heads")
            .map_or(kv_heads, |heads| heads.min(HEADS_MAX));
        let global_dim = self
            .number("global_head_dim")
            .unwrap_or(head_dim)
            .min(HEAD_DIM_MAX);
        let global_width = global_heads * global_dim;
        let shared = self.number("num_kv_shared_layers").unwrap_or(0);
        let cached = layers.saturating_sub(shared);
        // At most 1024 layers of 1024 heads of 2048: far below the end of a u64.
        let per_layer = |layer| match self.attention(layer) {
            Attention::Bounded => 0,
            Attention::Full if self.is_hybrid() => global_width,
            Attention::Full => width,
            Attention::Unknown => width.max(global_width),
        };
        Some((0..cached).map(per_layer).sum::<u64>() * BYTES_PER_COMPONENT)
    }

    /// Layers are of more than one kind, and the full ones have sizes of their own.
    fn is_hybrid(&self) -> bool {
        self.value("layer_types").is_some() || self.number("sliding_window_pattern").is_some()
    }

    fn attention(&self, layer: u64) -> Attention {
        if let Some(Value::Array(types)) = self.value("layer_types") {
            let kind = usize::try_from(layer).ok().and_then(|ix| types.get(ix));
            return match kind.and_then(Value::as_str) {
                Some("full_attention" | "attention" | "global_attention") => Attention::Full,
                Some("linear_attention" | "recurrent" | "sliding_attention") => Attention::Bounded,
                Some(_) | None => Attention::Unknown,
            };
        }
        match self.number("sliding_window_pattern") {
            Some(every) if every > 0 && !(layer + 1).is_multiple_of(every) => Attention::Bounded,
            Some(_) | None => Attention::Full,
        }
    }

    fn context_tokens(&self) -> u64 {
        const NAMES: [&str; 4] = [
            "max_position_embeddings",
            "max_sequence_length",
            "n_positions",
            "seq_length",
        ];
        let named = NAMES.iter().find_map(|name| self.number(name));
        named
            .unwrap_or(CONTEXT_TOKENS_DEFAULT)
            .clamp(1, CONTEXT_TOKENS_MAX)
    }
}
