//! How far a result of single precision may be from that of double precision, whatever the order of
//! its sums and the width of the vectors.
//!
//! The plain code runs once exactly and a few times with noise: each of its results is moved up or down
//! by what rounding may do to a sum of so many terms in single precision (the unit roundoff, times the
//! root of their number, times their magnitudes together). How far the noisy runs stray is how far a
//! kernel may.

/// Half the distance of one to the next number in single precision.
const UNIT: f64 = (f32::EPSILON / 2.0) as f64;
/// Roundings of a function that is approximated, as if they were terms of a sum.
const FUNCTION_TERMS: usize = 16;
const NOISY_RUNS: u64 = 6;
/// A few runs do not show the worst of all: a result may be so many times as far off.
const SAFETY: f64 = 4.0;

/// What plain code passes its results through.
pub(super) struct Rounding {
    /// Absent for the truth.
    signs: Option<u64>,
}

impl Rounding {
    /// A result of so many terms whose magnitudes make `magnitude`.
    pub(super) fn of(&mut self, value: f64, terms: usize, magnitude: f64) -> f64 {
        let Some(word) = &mut self.signs else {
            return value;
        };
        *word ^= *word << 13;
        *word ^= *word >> 7;
        *word ^= *word << 17;
        let sign = if *word & 0x100 == 0 { 1.0 } else { -1.0 };
        value + sign * UNIT * (terms.max(1) as f64).sqrt() * magnitude
    }

    /// The same of a function.
    pub(super) fn near(&mut self, value: f64) -> f64 {
        self.of(value, FUNCTION_TERMS, value.abs())
    }

    pub(super) fn dot(&mut self, left: &[f64], right: &[f64]) -> f64 {
        let products = left.iter().zip(right).map(|(a, b)| a * b);
        let magnitude = products.clone().map(f64::abs).sum();
        self.of(products.sum(), left.len(), magnitude)
    }
}

/// Holds a kernel's result against plain code.
pub(super) fn assert_as_plain(found: &[f32], plainly: impl Fn(&mut Rounding) -> Vec<f64>) {
    let truth = plainly(&mut Rounding { signs: None });
    assert_eq!(truth.len(), found.len());
    let mut furthest = 0.0_f64;
    for seed in 1..=NOISY_RUNS {
        let signs = Some(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let noisy = plainly(&mut Rounding { signs });
        let off = noisy.iter().zip(&truth).map(|(a, b)| (a - b).abs());
        furthest = off.fold(furthest, f64::max);
    }
    let tolerance = SAFETY * furthest;
    for (ix, (truth, found)) in truth.iter().zip(found).enumerate() {
        let off = (truth - f64::from(*found)).abs();
        assert!(
            off <= tolerance,
            "{ix}: {found} is {off:e} from {truth}, which rounding moves by {tolerance:e} at most"
        );
    }
}

pub(super) fn wide(numbers: &[f32]) -> Vec<f64> {
    numbers.iter().copied().map(f64::from).collect()
}
