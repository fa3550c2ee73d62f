//! The inference engine. See ARCHITECTURE.md.
//!
//! The scheduler, sampling and text bookkeeping are pure and always built; the feature `mlx` adds
//! the tensors and the text tools that only a real model needs.

#[cfg(feature = "mlx")]
pub mod model;
pub mod scheduler;
