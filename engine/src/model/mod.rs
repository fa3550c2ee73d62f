//! Models of the Llama and Qwen3 families on MLX: config, weights, network, cached keys and
//! values. Knows nothing of requests, text or time; the runtime calls it, and so does training.

mod cache;
mod config;
mod error;
mod folder;
mod forward;
mod rope;
mod weights;

pub use cache::{Output, RowCache, RowStep};
pub(crate) use config::EosIds;
pub use config::{Config, Family, RopeScaling};
pub use error::ModelError;
pub(crate) use folder::{read_json, read_json_if_any};
pub use forward::Model;
pub use weights::{TensorShape, tensor_shapes};
