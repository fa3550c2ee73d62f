//! The arithmetic between matrix products, each a function that training can differentiate. A
//! machine with a faster way to compute one replaces it here, and nowhere else.

use mlx_rs::error::Exception;
use mlx_rs::{Array, fast, nn};

use crate::model::config::Activation;

/// A root-mean-square norm over the last axis.
#[derive(Clone, Debug)]
pub(in crate::model) struct Norm {
    /// Absent where a norm only scales to one.
    pub(in crate::model) weight: Option<Array>,
    pub(in crate::model) eps: f32,
}

pub(in crate::model) fn norm(norm: &Norm, state: &Array) -> Result<Array, Exception> {
    fast::rms_norm(state, norm.weight.as_ref(), norm.eps)
}

/// A layer's state before and after the norm that follows it.
pub(in crate::model) struct Normed {
    pub(in crate::model) state: Array,
    pub(in crate::model) normed: Array,
}

/// Adds what a layer found to the state, and normalises the sum for the next.
pub(in crate::model) fn add_norm(
    next: &Norm,
    state: &Array,
    found: &Array,
) -> Result<Normed, Exception> {
    let state = state.add(found)?;
    let normed = norm(next, &state)?;
    Ok(Normed { state, normed })
}

/// `act(gate) * up`.
pub(in crate::model) fn gated(
    activation: Activation,
    gate: &Array,
    up: &Array,
) -> Result<Array, Exception> {
    match activation {
        Activation::Silu => nn::silu(gate)?.multiply(up),
    }
}
