//! The network's arithmetic on the CPU, where MLX has no fused kernels of its own: products with
//! weights packed once, experts, norms, gates, and attention straight over the pages of the KV cache.
//!
//! Plain functions over slices of float32, compiled for each width of vector that the machine may
//! have and chosen at run time. They know nothing of MLX; `model::host` puts them into its graph.
//! On a GPU none of this is used.

mod attention;
mod choice;
mod crew;
mod delta;
mod experts;
mod exponential;
mod gate;
mod norm;
mod pages;
mod panels;
mod rotary;
mod rows;
#[cfg(test)]
mod tests;
mod vectors;

pub use attention::{Attention, HeadNorms, Projected, RowSpan, attend};
pub use choice::Weighing;
pub use delta::{Delta, DeltaRows, DeltaSpan, DeltaState};
pub use experts::{Experts, Room, Stored};
pub use gate::{Gate, gated};
pub use norm::{add_rms_norm, rms_norm};
pub use pages::{PAGE_TOKENS, PagePool};
pub use panels::Panels;
pub use rotary::{Pairs, Rotary};
pub use rows::Rows;

/// Float32 numbers in the widest vector that the kernels are written for (AVX-512). Narrower
/// machines take several vectors for the same.
pub const LANES: usize = 16;

type Lanes = [f32; LANES];
