//! What the benches share: a coordinator with a fleet of a given size in a steady state, and one
//! answer on its way.

pub mod fleet;
pub mod stream;
