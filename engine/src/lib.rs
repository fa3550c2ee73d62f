//! The inference engine. See ARCHITECTURE.md.
//!
//! The scheduler, sampling, text bookkeeping and the reading of model configs are pure and always
//! built; so are the runtime, which owns the thread, and the files of blocks that left memory. The
//! feature `mlx` adds the tensors and the text tools that only a real model needs.

pub mod chat;
pub mod disk;
pub mod failure;
pub mod grammar;
#[cfg(feature = "mlx")]
pub mod kernels;
pub mod kv;
#[cfg(feature = "mlx")]
pub mod language;
pub mod model;
pub mod runtime;
pub mod sampling;
pub mod scheduler;
pub mod text;
