//! The gated feed-forward's middle.

use pulp::Arch;

use super::Rows;
use super::exponential::exp;

/// `silu(gate) * up`.
pub fn swiglu(gate: &Rows<'_>, up: &Rows<'_>, output: &mut [f32]) {
    let width = gate.width();
    assert_eq!((gate.count(), width), (up.count(), up.width()));
    assert_eq!(gate.count() * width, output.len());
    let outputs = output.chunks_exact_mut(width.max(1));
    Arch::new().dispatch(|| {
        for ((gates, ups), outputs) in gate.iter().zip(up.iter()).zip(outputs) {
            for ((output, gate), up) in outputs.iter_mut().zip(gates).zip(ups) {
                *output = gate / (1.0 + exp(-gate)) * up;
            }
        }
    });
}
