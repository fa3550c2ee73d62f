//! Percentiles in fixed memory: buckets whose width grows with the value, at most 1 in 128 wide.

use hdrhistogram::Histogram as Buckets;

/// Two digits are exact: 128 buckets for each doubling.
const DIGITS: u8 = 2;

/// See the module. The largest value and the sum are kept beside the buckets, which know neither
/// exactly.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    buckets: Buckets<u32>,
    sum: u128,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        let buckets = Buckets::new_with_bounds(1, u64::MAX, DIGITS);
        Self {
            buckets: buckets.expect("the bounds are in order, and so many digits are supported"),
            sum: 0,
            max: 0,
        }
    }
}

impl Histogram {
    pub fn note(&mut self, value: u64) {
        let noted = self.buckets.record(value);
        noted.expect("the bounds hold every value");
        self.sum += u128::from(value);
        self.max = self.max.max(value);
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.len()
    }

    #[must_use]
    pub const fn max(&self) -> u64 {
        self.max
    }

    /// Rounded down; 0 when empty.
    #[must_use]
    pub fn mean(&self) -> u64 {
        let mean = self.sum / u128::from(self.count().max(1));
        u64::try_from(mean).expect("a mean is at most the largest value")
    }

    /// For each value that was noted, up to a bucket's width, how many are at most as large.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> {
        let steps = self.buckets.iter_recorded();
        steps.scan(0, |sum, step| {
            *sum += step.count_since_last_iteration();
            Some((step.value_iterated_to().min(self.max), *sum))
        })
    }

    /// The least value that this share of the values does not exceed, up to a bucket's width.
    #[must_use]
    pub fn per_mille(&self, share: u32) -> u64 {
        let share = f64::from(share) / 1_000.0;
        self.buckets.value_at_quantile(share).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_bucket_of_the_truth() {
        let mut histogram = Histogram::default();
        (1..=10_000).for_each(|value| histogram.note(value));
        for (share, truth) in [(500, 5_000), (950, 9_500), (990, 9_900), (1_000, 10_000)] {
            let got = histogram.per_mille(share);
            assert!(got >= truth && got - truth <= truth / 128, "{share}: {got}");
        }
        assert_eq!(histogram.mean(), 5_000);
        let (value, below) = histogram.cumulative().nth(200).unwrap();
        assert!(below.abs_diff(value) <= value / 128, "{below} of {value}");
        assert_eq!(histogram.cumulative().last(), Some((10_000, 10_000)));
    }

    #[test]
    fn any_value_is_taken_and_the_largest_is_exact() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.mean(), histogram.per_mille(500)), (0, 0));
        for value in [0, u64::MAX / 3, u64::MAX - 1] {
            histogram.note(value);
            assert_eq!(
                (histogram.max(), histogram.per_mille(1_000)),
                (value, value)
            );
        }
        assert_eq!(histogram.count(), 3);
    }
}
