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
    #[error(
        "its weights have quant_method {0}, which this engine does not read; take the original \
         model, or one that was converted for MLX"
    )]
    QuantMethod(String),
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
    #[error(
        "the folder holds no safetensors; a model folder has config.json, tokenizer.json and \
         model.safetensors, or shards of it with their index"
    )]
    NoWeights,
    #[error("{0} is missing; fetch it beside the other shards")]
    ShardMissing(String),
    #[error(
        "{0} is a pointer that Git LFS keeps in the place of the file; run `git lfs pull` in the \
         folder"
    )]
    LfsPointer(String),
    #[error("{0} is {kind}", kind = crate::model::place::foreign_kind(.0))]
    Foreign(String),
    #[error("{0}")]
    Place(#[from] crate::model::place::PlaceError),
    #[error("MLX: {0}")]
    Mlx(String),
}
