//! What the benches share: a coordinator with a fleet of a given size in a steady state, one answer on
//! its way, and prompts of a known length.

pub mod fleet;
pub mod share;
pub mod stream;
pub mod words;
