//! Language models: what their `config.json` says (pure), and with the feature `mlx` the network,
//! its weights and what it remembers. Knows nothing of requests, text or time; the runtime calls
//! it, and so does training.

pub mod config;
mod error;
mod families;
#[cfg(feature = "mlx")]
mod folder;
#[cfg(feature = "mlx")]
mod host;
#[cfg(feature = "mlx")]
mod identity;
#[cfg(feature = "mlx")]
mod network;
mod place;

#[cfg(feature = "mlx")]
pub(crate) use config::EosIds;
pub use config::{Config, Store};
pub use error::ModelError;
pub use families::Family;
#[cfg(feature = "mlx")]
pub use folder::{check_files, check_folder};
#[cfg(feature = "mlx")]
pub(crate) use folder::{read_json, read_json_if_any};
#[cfg(feature = "mlx")]
pub(crate) use identity::identity;
#[cfg(feature = "mlx")]
pub use network::{
    BlockBytes, Layout, Load, Model, Output, PagedCache, PagedStep, QuantisedMatrices, RowCache,
    RowStep, TensorShape, tensor_shapes,
};
pub use place::{ModelPlace, PlaceError};
