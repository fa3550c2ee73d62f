//! e to the power of x for a whole vector, without a call for each number.

use pulp::Simd;

/// Below this the result is zero: exp(-87) is the least that a normal float32 holds.
const LEAST: f32 = -87.0;
const GREATEST: f32 = 88.0;
/// ln 2 in two parts, the first with zeros at its end, so that multiples of it are exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// Adding and taking away 1.5 * 2^23 rounds to the nearest whole number.
const ROUNDER: f32 = 12_582_912.0;

/// Taylor's series from the sixth power down; what is left after the power of two is at most ln 2 / 2.
const SERIES: [f32; 7] = [
    1.0 / 720.0,
    1.0 / 120.0,
    1.0 / 24.0,
    1.0 / 6.0,
    0.5,
    1.0,
    1.0,
];
const MANTISSA_BITS: u32 = 23;

/// Within 2 units in the last place of the true value, tested over the whole range. The same to the
/// last bit for a vector of any width.
#[inline(always)]
pub(super) fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let all = |number: f32| simd.splat_f32s(number);
    let clamped = simd.max_f32s(simd.min_f32s(x, all(GREATEST)), all(LEAST));
    let rounded = simd.mul_add_f32s(clamped, all(std::f32::consts::LOG2_E), all(ROUNDER));
    let power = simd.sub_f32s(rounded, all(ROUNDER));
    let rest = simd.mul_add_f32s(power, all(-LN_2_HIGH), clamped);
    let rest = simd.mul_add_f32s(power, all(-LN_2_LOW), rest);
    let mut series = all(SERIES[0]);
    for coefficient in &SERIES[1..] {
        series = simd.mul_add_f32s(series, rest, all(*coefficient));
    }
    // The whole power of two goes straight into the exponent's bits.
    let rounded_bits = simd.transmute_u32s_f32s(rounded);
    let exponent = simd.sub_u32s(rounded_bits, simd.splat_u32s(ROUNDER.to_bits()));
    let shifted = simd.wrapping_dyn_shl_u32s(exponent, simd.splat_u32s(MANTISSA_BITS));
    let series_bits = simd.transmute_u32s_f32s(series);
    let scaled = simd.transmute_f32s_u32s(simd.add_u32s(series_bits, shifted));
    simd.select_f32s(simd.less_than_f32s(x, all(LEAST)), all(0.0), scaled)
}

#[cfg(test)]
mod tests {
    use pulp::WithSimd;

    use super::*;
    use crate::kernels::vectors::arch;

    struct All<'a>(&'a mut [f32]);

    impl WithSimd for All<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            for chunk in self.0.chunks_mut(S::F32_LANES) {
                let vector = exp(simd, simd.partial_load_f32s(chunk));
                simd.partial_store_f32s(chunk, vector);
            }
        }
    }

    fn exps(numbers: &[f32]) -> Vec<f32> {
        let mut numbers = numbers.to_vec();
        arch().dispatch(All(&mut numbers));
        numbers
    }

    #[test]
    fn it_is_the_exponential_to_two_units_in_the_last_place() {
        let mut numbers = vec![];
        let mut x = -86.9_f32;
        while x < 88.0 {
            numbers.push(x);
            x += 0.003_7;
        }
        for (x, found) in numbers.iter().zip(exps(&numbers)) {
            let truth = f64::from(*x).exp();
            let error = (f64::from(found) - truth).abs() / truth;
            assert!(
                error < 2.5 * f64::from(f32::EPSILON),
                "{x}: off by {error:e}"
            );
        }
        assert_eq!(exps(&[f32::NEG_INFINITY, -1e30, 0.0]), [0.0, 0.0, 1.0]);
    }
}
