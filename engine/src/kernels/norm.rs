//! Root-mean-square norms of rows.

use pulp::Arch;

use super::{LANES, Lanes, Rows};

/// `x / sqrt(mean(x^2) + eps) * weight` for each row of `weight.len()` numbers.
pub fn rms_norm(input: &Rows<'_>, weight: &[f32], eps: f32, output: &mut [f32]) {
    let width = weight.len();
    assert_eq!(input.width(), width);
    assert_eq!(input.count() * width, output.len());
    let outputs = output.chunks_exact_mut(width);
    Arch::new().dispatch(|| {
        for (row, normed) in input.iter().zip(outputs) {
            normalise(row, weight, eps, normed);
        }
    });
}

/// The sum of two streams, and its norm.
pub fn add_rms_norm(
    input: &Rows<'_>,
    update: &Rows<'_>,
    weight: &[f32],
    eps: f32,
    sum: &mut [f32],
    output: &mut [f32],
) {
    let width = weight.len();
    assert_eq!((input.count(), input.width()), (update.count(), width));
    assert_eq!((update.width(), sum.len()), (width, output.len()));
    assert_eq!(input.count() * width, output.len());
    let sums = sum.chunks_exact_mut(width);
    let outputs = output.chunks_exact_mut(width);
    Arch::new().dispatch(|| {
        for (((a, b), sum), normed) in input.iter().zip(update.iter()).zip(sums).zip(outputs) {
            for ((sum, a), b) in sum.iter_mut().zip(a).zip(b) {
                *sum = a + b;
            }
            normalise(sum, weight, eps, normed);
        }
    });
}

#[inline(always)]
fn normalise(row: &[f32], weight: &[f32], eps: f32, output: &mut [f32]) {
    let scale = inverse_rms(row, eps);
    for ((output, x), weight) in output.iter_mut().zip(row).zip(weight) {
        *output = x * scale * weight;
    }
}

/// `1 / sqrt(mean(x^2) + eps)`. Summed in lanes, in one order for one width, whatever else a step
/// computes.
#[inline(always)]
#[expect(clippy::cast_precision_loss, reason = "widths are exact below 2^24")]
pub(super) fn inverse_rms(row: &[f32], eps: f32) -> f32 {
    let mut lanes: Lanes = [0.0; LANES];
    let mut chunks = row.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = x.mul_add(*x, *lane);
        }
    }
    let rest: f32 = chunks.remainder().iter().map(|x| x * x).sum();
    let sum = lanes.iter().sum::<f32>() + rest;
    (sum / row.len() as f32 + eps).sqrt().recip()
}
