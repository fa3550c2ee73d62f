//! The gated feed-forward's middle.

use pulp::{Arch, Simd, WithSimd};

use super::exponential::exp;
use super::rows::shares;
use super::{Rows, crew};

/// Numbers that are worth another thread: about ten microseconds.
const GRAIN: usize = 16_384;

/// `silu(gate) * up`.
pub fn swiglu(gate: &Rows<'_>, up: &Rows<'_>, output: &mut [f32]) {
    let width = gate.width();
    assert_eq!((gate.count(), width), (up.count(), up.width()));
    assert_eq!(gate.count() * width, output.len());
    let arch = Arch::new();
    let shares = shares(output, width, GRAIN);
    crew::for_each(shares.count(), &|ix| {
        let (first, output) = shares.take(ix);
        for (row, output) in output.chunks_exact_mut(width.max(1)).enumerate() {
            let (gate, up) = (gate.row(first + row), up.row(first + row));
            arch.dispatch(Swiglu { gate, up, output });
        }
    });
}

struct Swiglu<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    output: &'a mut [f32],
}

impl WithSimd for Swiglu<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (gates, gate_rest) = S::as_simd_f32s(self.gate);
        let (ups, up_rest) = S::as_simd_f32s(self.up);
        let (outputs, output_rest) = S::as_mut_simd_f32s(self.output);
        for ((output, gate), up) in outputs.iter_mut().zip(gates).zip(ups) {
            *output = gated(simd, *gate, *up);
        }
        let gate = simd.partial_load_f32s(gate_rest);
        let up = simd.partial_load_f32s(up_rest);
        simd.partial_store_f32s(output_rest, gated(simd, gate, up));
    }
}

// A closure would be compiled without the machine's vectors.
#[inline(always)]
fn gated<S: Simd>(simd: S, gate: S::f32s, up: S::f32s) -> S::f32s {
    let share = simd.add_f32s(simd.splat_f32s(1.0), exp(simd, simd.neg_f32s(gate)));
    simd.mul_f32s(simd.div_f32s(gate, share), up)
}
