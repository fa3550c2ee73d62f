//! Percentiles in fixed memory: buckets whose width grows with the value, at most 1 in 128 wide.

/// Values below this have a bucket each; above, each doubling has as many buckets.
const SUB_BUCKETS: u64 = 128;
const SUB_SHIFT: u32 = 7;
const BUCKETS: usize = ((64 - SUB_SHIFT as usize) + 1) * SUB_BUCKETS as usize;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    buckets: Vec<u32>,
    count: u64,
    sum: u128,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: vec![0; BUCKETS],
            count: 0,
            sum: 0,
            max: 0,
        }
    }
}

impl Histogram {
    pub fn note(&mut self, value: u64) {
        self.buckets[bucket(value)] += 1;
        self.count += 1;
        self.sum += u128::from(value);
        self.max = self.max.max(value);
    }

    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    #[must_use]
    pub const fn max(&self) -> u64 {
        self.max
    }

    /// Rounded down; 0 when empty.
    #[must_use]
    pub fn mean(&self) -> u64 {
        let mean = self.sum / u128::from(self.count.max(1));
        u64::try_from(mean).expect("a mean is at most the largest value")
    }

    /// The least value that this share of the values does not exceed, up to a bucket's width.
    #[must_use]
    pub fn per_mille(&self, share: u64) -> u64 {
        let rank = (self.count * share).div_ceil(1_000).max(1);
        let mut seen = 0;
        for (ix, &count) in self.buckets.iter().enumerate() {
            seen += u64::from(count);
            if seen >= rank {
                return highest(ix).min(self.max);
            }
        }
        self.max
    }
}

fn bucket(value: u64) -> usize {
    if value < SUB_BUCKETS {
        return usize::try_from(value).expect("below 128");
    }
    let shift = value.ilog2() - SUB_SHIFT;
    let sub = (value >> shift) - SUB_BUCKETS;
    let ix = (u64::from(shift) + 1) * SUB_BUCKETS + sub;
    usize::try_from(ix).expect("below the number of buckets")
}

/// The largest value of a bucket.
const fn highest(ix: usize) -> u64 {
    let ix = ix as u64;
    if ix < SUB_BUCKETS {
        return ix;
    }
    let shift = ix / SUB_BUCKETS - 1;
    let sub = ix % SUB_BUCKETS + SUB_BUCKETS;
    (sub << shift) + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket() {
        for value in (0..5_000).chain([u64::MAX, u64::MAX / 3, 1 << 40]) {
            let ix = bucket(value);
            assert!(value <= highest(ix));
            assert!(ix == 0 || value > highest(ix - 1));
            assert!(highest(ix) - value <= value / 128);
        }
    }

    #[test]
    fn percentiles_are_within_a_bucket_of_the_truth() {
        let mut histogram = Histogram::default();
        (1..=10_000).for_each(|value| histogram.note(value));
        for (share, truth) in [(500, 5_000), (950, 9_500), (990, 9_900), (1_000, 10_000)] {
            let got = histogram.per_mille(share);
            assert!(got >= truth && got - truth <= truth / 128, "{share}: {got}");
        }
        assert_eq!(histogram.mean(), 5_000);
        assert_eq!(Histogram::default().per_mille(500), 0);
    }
}
