//! What the benches share: a coordinator with a fleet of a given size in a steady state.

pub mod fleet;
