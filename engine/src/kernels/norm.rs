//! Root-mean-square norms of rows.

use pulp::{Simd, WithSimd};

use super::rows::shares;
use super::vectors::arch;
use super::{LANES, Lanes, Rows, crew};

/// Numbers that are worth another thread: about ten microseconds.
const GRAIN: usize = 32_768;

/// `x / sqrt(mean(x^2) + eps) * weight` for each row of `weight.len()` numbers.
pub fn rms_norm(input: &Rows<'_>, weight: &[f32], eps: f32, output: &mut [f32]) {
    let width = weight.len();
    assert_eq!(input.width(), width);
    assert_eq!(input.count() * width, output.len());
    let arch = arch();
    let shares = shares(output, width, GRAIN);
    crew::for_each(shares.count(), &|ix| {
        let (first, output) = shares.take(ix);
        for (row, output) in output.chunks_exact_mut(width).enumerate() {
            arch.dispatch(Norm {
                row: input.row(first + row),
                weight,
                eps,
                output,
            });
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
    let arch = arch();
    let sums = shares(sum, width, GRAIN);
    let outputs = shares(output, width, GRAIN);
    crew::for_each(sums.count(), &|ix| {
        let (first, sum) = sums.take(ix);
        let (_, output) = outputs.take(ix);
        let rows = sum
            .chunks_exact_mut(width)
            .zip(output.chunks_exact_mut(width));
        for (row, (sum, output)) in rows.enumerate() {
            arch.dispatch(Sum {
                a: input.row(first + row),
                b: update.row(first + row),
                sum: &mut *sum,
            });
            arch.dispatch(Norm {
                row: sum,
                weight,
                eps,
                output,
            });
        }
    });
}

struct Sum<'a> {
    a: &'a [f32],
    b: &'a [f32],
    sum: &'a mut [f32],
}

impl WithSimd for Sum<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (a, a_rest) = S::as_simd_f32s(self.a);
        let (b, b_rest) = S::as_simd_f32s(self.b);
        let (sums, sum_rest) = S::as_mut_simd_f32s(self.sum);
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum = simd.add_f32s(*a, *b);
        }
        let (a, b) = (
            simd.partial_load_f32s(a_rest),
            simd.partial_load_f32s(b_rest),
        );
        simd.partial_store_f32s(sum_rest, simd.add_f32s(a, b));
    }
}

struct Norm<'a> {
    row: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    output: &'a mut [f32],
}

impl WithSimd for Norm<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let scale = simd.splat_f32s(inverse_rms(simd, self.row, self.eps));
        let (row, row_rest) = S::as_simd_f32s(self.row);
        let (weights, weight_rest) = S::as_simd_f32s(self.weight);
        let (outputs, output_rest) = S::as_mut_simd_f32s(self.output);
        for ((output, x), weight) in outputs.iter_mut().zip(row).zip(weights) {
            *output = simd.mul_f32s(simd.mul_f32s(*x, scale), *weight);
        }
        let x = simd.partial_load_f32s(row_rest);
        let weight = simd.partial_load_f32s(weight_rest);
        simd.partial_store_f32s(output_rest, simd.mul_f32s(simd.mul_f32s(x, scale), weight));
    }
}

/// `1 / sqrt(mean(x^2) + eps)`. Summed in sixteen lanes, in one order for one width, whatever else a
/// step computes and however wide the machine's vectors are.
#[inline(always)]
#[expect(clippy::cast_precision_loss, reason = "widths are exact below 2^24")]
pub(super) fn inverse_rms<S: Simd>(simd: S, row: &[f32], eps: f32) -> f32 {
    let mut lanes: Lanes = [0.0; LANES];
    let (sums, _) = S::as_mut_simd_f32s(&mut lanes);
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        let (chunk, _) = S::as_simd_f32s(chunk);
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum = simd.mul_add_f32s(*x, *x, *sum);
        }
    }
    let rest: f32 = rest.iter().map(|x| x * x).sum();
    let sum = lanes.iter().sum::<f32>() + rest;
    (sum / row.len() as f32 + eps).sqrt().recip()
}
