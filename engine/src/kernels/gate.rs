//! The middle of a gated feed-forward layer: of two products of the same input, one passes
//! through an activation and is multiplied with the other.

use pulp::{Simd, WithSimd};

use super::exponential::exp;
use super::rows::shares;
use super::vectors::arch;
use super::{Rows, crew};

/// Numbers that are worth another thread: about ten microseconds.
const GRAIN: usize = 16_384;
/// How steep the gate of gpt-oss is.
const CLIPPED_SLOPE: f32 = 1.702;
/// Twice the square root of 2 / pi.
const GELU_SLOPE: f32 = 1.595_769_2;
const GELU_CUBE: f32 = 0.044_715;

/// What becomes of a gate's number and of the one beside it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gate {
    /// `silu(gate) * up`.
    Silu,
    /// `gelu(gate) * up`, by the approximation with a hyperbolic tangent.
    GeluTanh,
    /// `gate * sigmoid(1.702 gate) * (up + 1)` of both clipped to the limit.
    SwigluClipped { limit: f32 },
}

/// Puts each row of `up` through the gate beside it.
///
/// # Panics
/// The three do not have the same number of rows of one width.
pub fn gated(gate: Gate, gates: &Rows<'_>, ups: &Rows<'_>, output: &mut [f32]) {
    let width = gates.width();
    assert_eq!((gates.count(), width), (ups.count(), ups.width()));
    assert_eq!(gates.count() * width, output.len());
    let arch = arch();
    let shares = shares(output, width, GRAIN);
    crew::for_each(shares.count(), &|ix| {
        let (first, output) = shares.take(ix);
        for (row, output) in output.chunks_exact_mut(width.max(1)).enumerate() {
            let (gates, ups) = (gates.row(first + row), ups.row(first + row));
            arch.dispatch(Gated {
                gate,
                gates,
                ups,
                output,
            });
        }
    });
}

struct Gated<'a> {
    gate: Gate,
    gates: &'a [f32],
    ups: &'a [f32],
    output: &'a mut [f32],
}

impl WithSimd for Gated<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (gates, gate_rest) = S::as_simd_f32s(self.gates);
        let (ups, up_rest) = S::as_simd_f32s(self.ups);
        let (outputs, output_rest) = S::as_mut_simd_f32s(self.output);
        for ((output, gate), up) in outputs.iter_mut().zip(gates).zip(ups) {
            *output = self.gate.of(simd, *gate, *up);
        }
        let gate = simd.partial_load_f32s(gate_rest);
        let up = simd.partial_load_f32s(up_rest);
        simd.partial_store_f32s(output_rest, self.gate.of(simd, gate, up));
    }
}

impl Gate {
    // A function, always inlined: a closure would be compiled for the common denominator of CPUs,
    // without this machine's wide vectors.
    #[inline(always)]
    pub(super) fn of<S: Simd>(self, simd: S, gate: S::f32s, up: S::f32s) -> S::f32s {
        match self {
            Self::Silu => simd.mul_f32s(sigmoid_times(simd, gate, gate), up),
            Self::GeluTanh => {
                let square = simd.mul_f32s(gate, gate);
                let slope = simd.mul_add_f32s(
                    square,
                    simd.splat_f32s(GELU_SLOPE * GELU_CUBE),
                    simd.splat_f32s(GELU_SLOPE),
                );
                // (1 + tanh x) / 2 is the sigmoid of 2 x.
                simd.mul_f32s(sigmoid_times(simd, simd.mul_f32s(slope, gate), gate), up)
            }
            Self::SwigluClipped { limit } => {
                let high = simd.splat_f32s(limit);
                let gate = simd.min_f32s(gate, high);
                let up = simd.max_f32s(simd.min_f32s(up, high), simd.splat_f32s(-limit));
                let steep = simd.mul_f32s(gate, simd.splat_f32s(CLIPPED_SLOPE));
                let up = simd.add_f32s(up, simd.splat_f32s(1.0));
                simd.mul_f32s(sigmoid_times(simd, steep, gate), up)
            }
        }
    }
}

/// `sigmoid(x) * y`.
#[inline(always)]
pub(super) fn sigmoid_times<S: Simd>(simd: S, x: S::f32s, y: S::f32s) -> S::f32s {
    let share = simd.add_f32s(simd.splat_f32s(1.0), exp(simd, simd.neg_f32s(x)));
    simd.div_f32s(y, share)
}
