//! Why a model folder cannot be served, in words that name the file, the tensor or the key.

use thiserror::Error;

/// A model that cannot be loaded or run.
#[derive(Debug, Error)]
pub enum ModelError {
    #[error("{file}: {cause}")]
    Json { file: String, cause: String },
    #[error("{file} cannot be read: {cause}")]
    Unreadable { file: String, cause: String },
    #[error("{file} is damaged: {cause}")]
    Damaged { file: String, cause: String },
    #[error("model_type {0} is not supported; {supported} are", supported = crate::model::families::SUPPORTED)]
    Family(String),
    #[error("config.json asks for {0}, which is not supported")]
    Unsupported(String),
    #[error("config.json is inconsistent: {0}")]
    Inconsistent(String),
    #[error("tensor {name} is missing; expected shape {expected:?}")]
    TensorMissing { name: String, expected: Vec<i32> },
    #[error("tensor {name} has shape {found:?}; expected {expected:?}")]
    TensorShape {
        name: String,
        expected: Vec<i32>,
        found: Vec<i32>,
    },
    #[error("tensor {name} holds {found}; expected F32, F16 or BF16")]
    TensorType { name: String, found: String },
    #[error("tensor {name} belongs to no part of this model; does config.json fit the weights?")]
    TensorUnknown { name: String },
    #[error("the folder holds no model.safetensors and no model.safetensors.index.json")]
    NoWeights,
    #[error(
        "the folder holds no chat template: neither chat_template.jinja nor one in \
         tokenizer_config.json"
    )]
    NoTemplate,
    #[error("MLX: {0}")]
    Mlx(String),
}
