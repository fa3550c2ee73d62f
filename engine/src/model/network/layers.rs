//! The arithmetic between matrix products, each a function that training can differentiate. A
//! machine with a faster way to compute one replaces it here, and nowhere else.

use std::sync::Arc;

use mlx_rs::error::Exception;
use mlx_rs::ops::{clip, minimum, sigmoid, tanh};
use mlx_rs::{Array, fast, nn};

use super::checkpoint::Layout;
use crate::kernels::{self, Gate, Rows};
use crate::model::config::Activation;
use crate::model::host;

/// How steep gpt-oss's gate is.
const SWIGLU_SLOPE: f32 = 1.702;

/// The square root of two over pi, and what the cube has a share of.
const GELU_SLOPE: f32 = 0.797_884_6;
const GELU_CUBE: f32 = 0.044_715;

/// A root-mean-square norm over the last axis.
#[derive(Clone, Debug)]
pub(in crate::model) struct Norm {
    /// Absent where a norm only scales to one.
    pub(in crate::model) weight: Option<Array>,
    pub(in crate::model) eps: f32,
    /// The weight once more, for the CPU's own kernels; absent where MLX computes.
    pub(in crate::model) on_host: Option<Arc<[f32]>>,
}

pub(in crate::model) fn norm(norm: &Norm, state: &Array) -> Result<Array, Exception> {
    let Some(weight) = norm.on_host.clone() else {
        return fast::rms_norm(state, norm.weight.as_ref(), norm.eps);
    };
    let eps = norm.eps;
    let kernel = move |inputs: &[Rows<'_>], outputs: &mut [&mut [f32]]| {
        kernels::rms_norm(&inputs[0], &weight, eps, outputs[0]);
    };
    host::apply_one(&[state], state.shape(), kernel)
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
    let Some(weight) = next.on_host.clone() else {
        let state = state.add(found)?;
        let normed = norm(next, &state)?;
        return Ok(Normed { state, normed });
    };
    let eps = next.eps;
    let shape = state.shape();
    let kernel = move |inputs: &[Rows<'_>], outputs: &mut [&mut [f32]]| {
        let [sum, normed] = outputs else {
            unreachable!("two outputs are asked for");
        };
        kernels::add_rms_norm(&inputs[0], &inputs[1], &weight, eps, sum, normed);
    };
    let made = host::apply(&[state, found], &[shape, shape], kernel)?;
    let [state, normed] = made.try_into().expect("as many arrays as shapes");
    Ok(Normed { state, normed })
}

/// `act(gate) * up`.
pub(in crate::model) fn gated(
    activation: Activation,
    layout: Layout,
    gate: &Array,
    up: &Array,
) -> Result<Array, Exception> {
    if layout == Layout::Packed {
        let kind = on_host(activation);
        let kernel = move |inputs: &[Rows<'_>], outputs: &mut [&mut [f32]]| {
            kernels::gated(kind, &inputs[0], &inputs[1], outputs[0]);
        };
        return host::apply_one(&[gate, up], gate.shape(), kernel);
    }
    match activation {
        Activation::Silu => nn::silu(gate)?.multiply(up),
        Activation::GeluTanh => gelu_tanh(gate)?.multiply(up),
        Activation::SwigluClipped { limit } => {
            let high = like(gate, limit)?;
            let gate = minimum(gate, &high)?;
            let up = clip(up, (&like(up, -limit)?, &high))?;
            let share = sigmoid(scaled(&gate, SWIGLU_SLOPE)?)?;
            up.add(like(&up, 1.0)?)?.multiply(gate.multiply(share)?)
        }
    }
}

/// The Gaussian error linear unit by a hyperbolic tangent, in the type of what comes in: that of
/// `mlx_rs::nn` multiplies by numbers of single precision, and the state behind it would be so too.
fn gelu_tanh(x: &Array) -> Result<Array, Exception> {
    let inner = x.add(scaled(&x.square()?.multiply(x)?, GELU_CUBE)?)?;
    let share = tanh(scaled(&inner, GELU_SLOPE)?)?.add(like(x, 1.0)?)?;
    scaled(x, 0.5)?.multiply(share)
}

/// The CPU's own kernel of it.
pub(super) fn on_host(activation: Activation) -> Gate {
    match activation {
        Activation::Silu => Gate::Silu,
        Activation::GeluTanh => Gate::GeluTanh,
        Activation::SwigluClipped { limit } => Gate::SwigluClipped { limit },
    }
}

/// `state * sigmoid(gate)`.
pub(in crate::model) fn gated_by_sigmoid(state: &Array, gate: &Array) -> Result<Array, Exception> {
    state.multiply(sigmoid(gate)?)
}

/// A norm whose output is scaled by `silu(gate)`, in single precision.
pub(in crate::model) fn norm_gated_by_silu(
    weights: &Norm,
    state: &Array,
    gate: &Array,
) -> Result<Array, Exception> {
    let normed = norm(weights, state)?.as_type::<f32>()?;
    let gate = nn::silu(gate.as_type::<f32>()?)?;
    gate.multiply(normed)?.as_dtype(state.dtype())
}

pub(in crate::model) fn scaled(state: &Array, factor: f32) -> Result<Array, Exception> {
    state.multiply(like(state, factor)?)
}

/// Squeezes logits into -cap..cap.
pub(in crate::model) fn softcapped(logits: &Array, cap: f32) -> Result<Array, Exception> {
    scaled(&tanh(logits.divide(like(logits, cap)?)?)?, cap)
}

/// A number of the same type: one of single precision would widen what it meets.
fn like(array: &Array, number: f32) -> Result<Array, Exception> {
    Array::from_f32(number).as_dtype(array.dtype())
}
