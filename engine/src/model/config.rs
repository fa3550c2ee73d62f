//! `config.json` of a Hugging Face folder, read once into values that cannot be wrong.

use serde::Deserialize;

use super::error::ModelError;

/// Layers above this are a damaged or hostile file: the deepest public dense model has 126.
const LAYERS_MAX: u32 = 1_024;
/// Any width (hidden, vocabulary, feed-forward) above this is a damaged or hostile file.
const WIDTH_MAX: u32 = 16_777_216;

/// Which architecture the folder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Llama,
    Qwen3,
}

/// How rotary frequencies are stretched for contexts longer than those first trained on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    None,
    /// Every position divided by `factor`.
    Linear {
        factor: f32,
    },
    /// Llama 3: long wavelengths stretched, short ones kept, a ramp between.
    Llama3 {
        factor: f32,
        low_freq_factor: f32,
        high_freq_factor: f32,
        original_context_tokens: f32,
    },
}

/// The shape of a model. All sizes are positive and consistent with one another.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub family: Family,
    pub hidden_size: i32,
    pub intermediate_size: i32,
    pub layer_count: i32,
    pub query_heads: i32,
    pub kv_heads: i32,
    pub head_dim: i32,
    pub vocab_size: i32,
    pub context_tokens_max: i32,
    pub rms_norm_eps: f32,
    pub rope_theta: f32,
    pub rope_scaling: RopeScaling,
    pub tied_embeddings: bool,
    pub attention_bias: bool,
    pub mlp_bias: bool,
    /// End-of-sequence tokens that this file names; other files may name more.
    pub eos_ids: Vec<u32>,
}

/// The JSON as written by `transformers`, versions 4 and 5.
#[derive(Deserialize)]
struct Raw {
    model_type: String,
    hidden_size: u32,
    intermediate_size: u32,
    num_hidden_layers: u32,
    num_attention_heads: u32,
    num_key_value_heads: Option<u32>,
    head_dim: Option<u32>,
    vocab_size: u32,
    max_position_embeddings: Option<u32>,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawRope>,
    rope_parameters: Option<RawRope>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default)]
    use_sliding_window: bool,
    hidden_act: Option<String>,
    eos_token_id: Option<EosIds>,
    quantization: Option<serde::de::IgnoredAny>,
    quantization_config: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct RawRope {
    rope_type: Option<String>,
    #[serde(rename = "type")]
    old_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

/// One id or several, as the files have it.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum EosIds {
    One(u32),
    Several(Vec<u32>),
}

impl EosIds {
    pub(crate) fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Several(ids) => ids,
        }
    }
}

/// What a folder without `max_position_embeddings` gets.
const CONTEXT_TOKENS_DEFAULT: u32 = 2_048;
/// What a folder without `rope_theta` gets, as in `transformers`.
const ROPE_THETA_DEFAULT: f64 = 10_000.0;

impl Config {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// The JSON is malformed, the family or a feature of it is not supported, or sizes disagree.
    pub fn from_json(json: &[u8]) -> Result<Self, ModelError> {
        let raw: Raw = serde_json::from_slice(json).map_err(|cause| ModelError::Json {
            file: "config.json".to_owned(),
            cause: cause.to_string(),
        })?;
        raw.into_config()
    }
}

impl Raw {
    fn into_config(self) -> Result<Config, ModelError> {
        let family = match self.model_type.as_str() {
            "llama" => Family::Llama,
            "qwen3" => Family::Qwen3,
            _ => return Err(ModelError::Family(self.model_type)),
        };
        if self.quantization.is_some() || self.quantization_config.is_some() {
            return Err(ModelError::Unsupported("quantised weights".to_owned()));
        }
        if self.use_sliding_window {
            return Err(ModelError::Unsupported("use_sliding_window".to_owned()));
        }
        if let Some(act) = self.hidden_act.as_deref().filter(|&act| act != "silu") {
            return Err(ModelError::Unsupported(format!("hidden_act {act}")));
        }
        let rope = self.rope_parameters.as_ref().or(self.rope_scaling.as_ref());
        let rope_scaling = rope.map_or(Ok(RopeScaling::None), RawRope::scaling)?;
        let rope_theta = rope.and_then(|rope| rope.rope_theta).or(self.rope_theta);

        let layer_count = sized("num_hidden_layers", self.num_hidden_layers, LAYERS_MAX)?;
        let hidden_size = sized("hidden_size", self.hidden_size, WIDTH_MAX)?;
        let query_heads = sized("num_attention_heads", self.num_attention_heads, WIDTH_MAX)?;
        let kv_heads = self.num_key_value_heads.unwrap_or(self.num_attention_heads);
        let kv_heads = sized("num_key_value_heads", kv_heads, WIDTH_MAX)?;
        if query_heads % kv_heads != 0 {
            return Err(ModelError::Inconsistent(format!(
                "num_attention_heads {query_heads} is no multiple of num_key_value_heads {kv_heads}"
            )));
        }
        let head_dim = self
            .head_dim
            .unwrap_or(self.hidden_size / self.num_attention_heads);
        let head_dim = sized("head_dim", head_dim, WIDTH_MAX)?;
        if head_dim % 2 != 0 {
            return Err(ModelError::Inconsistent(format!(
                "head_dim {head_dim} is odd; rotary positions pair the components"
            )));
        }
        if query_heads.checked_mul(head_dim).is_none() {
            return Err(ModelError::Inconsistent(
                "num_attention_heads times head_dim is out of range".to_owned(),
            ));
        }
        let context = self
            .max_position_embeddings
            .unwrap_or(CONTEXT_TOKENS_DEFAULT);
        Ok(Config {
            family,
            hidden_size,
            intermediate_size: sized("intermediate_size", self.intermediate_size, WIDTH_MAX)?,
            layer_count,
            query_heads,
            kv_heads,
            head_dim,
            vocab_size: sized("vocab_size", self.vocab_size, WIDTH_MAX)?,
            context_tokens_max: sized("max_position_embeddings", context, WIDTH_MAX)?,
            rms_norm_eps: positive("rms_norm_eps", self.rms_norm_eps)?,
            rope_theta: positive("rope_theta", rope_theta.unwrap_or(ROPE_THETA_DEFAULT))?,
            rope_scaling,
            tied_embeddings: self.tie_word_embeddings,
            attention_bias: self.attention_bias,
            mlp_bias: self.mlp_bias,
            eos_ids: self.eos_token_id.map(EosIds::into_vec).unwrap_or_default(),
        })
    }
}

impl RawRope {
    fn scaling(&self) -> Result<RopeScaling, ModelError> {
        let kind = self.rope_type.as_deref().or(self.old_type.as_deref());
        match kind {
            None | Some("default") => Ok(RopeScaling::None),
            Some("linear") => Ok(RopeScaling::Linear {
                factor: demanded("factor", self.factor)?,
            }),
            Some("llama3") => {
                let low = demanded("low_freq_factor", self.low_freq_factor)?;
                let high = demanded("high_freq_factor", self.high_freq_factor)?;
                if high <= low {
                    return Err(ModelError::Inconsistent(
                        "rope high_freq_factor is not above low_freq_factor".to_owned(),
                    ));
                }
                Ok(RopeScaling::Llama3 {
                    factor: demanded("factor", self.factor)?,
                    low_freq_factor: low,
                    high_freq_factor: high,
                    original_context_tokens: demanded(
                        "original_max_position_embeddings",
                        self.original_max_position_embeddings,
                    )?,
                })
            }
            Some(other) => Err(ModelError::Unsupported(format!("rope scaling {other}"))),
        }
    }
}

fn sized(key: &str, value: u32, max: u32) -> Result<i32, ModelError> {
    if value == 0 || value > max {
        return Err(ModelError::Inconsistent(format!(
            "{key} is {value}, not within 1..={max}"
        )));
    }
    i32::try_from(value).map_err(|_| ModelError::Inconsistent(format!("{key} is out of range")))
}

/// Narrows to the precision that the tensors use.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a config's numbers fit f32 by design"
)]
fn positive(key: &str, value: f64) -> Result<f32, ModelError> {
    let narrow = value as f32;
    if narrow.is_finite() && narrow > 0.0 {
        return Ok(narrow);
    }
    Err(ModelError::Inconsistent(format!(
        "{key} is {value}, not a positive number"
    )))
}

fn demanded(key: &str, value: Option<f64>) -> Result<f32, ModelError> {
    let value =
        value.ok_or_else(|| ModelError::Inconsistent(format!("rope scaling lacks {key}")))?;
    positive(key, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(extra: &str) -> String {
        format!(
            r#"{{"model_type":"llama","hidden_size":64,"intermediate_size":128,
                "num_hidden_layers":2,"num_attention_heads":4,"vocab_size":32,
                "rms_norm_eps":1e-5{extra}}}"#
        )
    }

    #[test]
    fn absent_keys_take_the_values_that_transformers_gives_them() {
        let config = Config::from_json(json("").as_bytes()).unwrap();
        assert_eq!(config.kv_heads, 4);
        assert_eq!(config.head_dim, 16);
        assert!((config.rope_theta - 10_000.0).abs() < f32::EPSILON);
        assert_eq!(config.rope_scaling, RopeScaling::None);
        assert!(!config.tied_embeddings);
    }

    #[test]
    fn one_end_token_and_several_are_both_read() {
        let one = Config::from_json(json(r#","eos_token_id":7"#).as_bytes()).unwrap();
        let several = Config::from_json(json(r#","eos_token_id":[7,9]"#).as_bytes()).unwrap();
        assert_eq!(one.eos_ids, [7]);
        assert_eq!(several.eos_ids, [7, 9]);
    }

    #[test]
    fn rope_parameters_of_both_generations_are_read() {
        let old = json(
            r#","rope_theta":500000.0,"rope_scaling":{"rope_type":"llama3","factor":8.0,
               "low_freq_factor":1.0,"high_freq_factor":4.0,
               "original_max_position_embeddings":8192}"#,
        );
        let new = json(
            r#","rope_parameters":{"rope_theta":500000.0,"rope_type":"llama3","factor":8.0,
               "low_freq_factor":1.0,"high_freq_factor":4.0,
               "original_max_position_embeddings":8192}"#,
        );
        let old = Config::from_json(old.as_bytes()).unwrap();
        assert_eq!(old, Config::from_json(new.as_bytes()).unwrap());
        assert!(matches!(old.rope_scaling, RopeScaling::Llama3 { .. }));
    }

    #[test]
    fn a_config_that_cannot_be_served_says_why() {
        let table = [
            (json(r#","num_key_value_heads":3"#), "num_key_value_heads"),
            (json(r#","head_dim":15"#), "head_dim 15 is odd"),
            (
                json(r#","num_key_value_heads":0"#),
                "num_key_value_heads is 0",
            ),
            (json(r#","quantization":{"bits":4}"#), "quantised weights"),
            (
                json(r#","rope_scaling":{"rope_type":"yarn"}"#),
                "rope scaling yarn",
            ),
            (json(r#","rope_scaling":{"rope_type":"llama3"}"#), "lacks"),
            (json(r#","hidden_act":"gelu""#), "hidden_act gelu"),
            (json("").replace("\"llama\"", "\"mamba\""), "mamba"),
            (json("").replace("1e-5", "-1"), "rms_norm_eps"),
            (
                json("").replace("\"vocab_size\":32", "\"vocab_size\":0"),
                "vocab_size is 0",
            ),
            ("{".to_owned(), "config.json"),
        ];
        for (json, expected) in table {
            let error = Config::from_json(json.as_bytes()).unwrap_err().to_string();
            assert!(
                error.contains(expected),
                "{error} should speak of {expected}"
            );
        }
    }
}
