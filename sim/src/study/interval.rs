//! How sure a mean is: intervals by Student's t, in whole numbers, so that every machine prints the
//! same.

/// 97.5 % quantiles of Student's t by degrees of freedom from 1, in thousandths: what leaves 5 % outside
/// an interval on both sides together.
const T_MILLI: [i128; 30] = [
    12_706, 4_303, 3_182, 2_776, 2_571, 2_447, 2_365, 2_306, 2_262, 2_228, 2_201, 2_179, 2_160,
    2_145, 2_131, 2_120, 2_110, 2_101, 2_093, 2_086, 2_080, 2_074, 2_069, 2_064, 2_060, 2_056,
    2_052, 2_048, 2_045, 2_042,
];
/// The quantile falls towards 1.960: a little too wide is no lie.
const T_BEYOND_MILLI: i128 = 2_042;

/// A mean and how far the truth may lie from it on either side, with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    pub mean: i64,
    /// None of a single value: nothing is known of how it varies.
    pub half_width: Option<i64>,
}

impl Interval {
    /// Of values that chance drew one by one, or of the differences of pairs; `None` of no value.
    #[must_use]
    pub fn of(values: &[i64]) -> Option<Self> {
        let count = i128::try_from(values.len()).expect("fewer than that");
        if count == 0 {
            return None;
        }
        let sum: i128 = values.iter().map(|value| i128::from(*value)).sum();
        let mean = narrow(div_nearest(sum, count));
        if count == 1 {
            return Some(Self {
                mean,
                half_width: None,
            });
        }
        // Deviations from the exact mean, each times the count.
        let squares = values.iter().map(|value| {
            let deviation = i128::from(*value) * count - sum;
            deviation * deviation
        });
        let squares: i128 = squares.sum();
        // The variance of the mean times a million: under the root of it, thousandths.
        let variance = squares.saturating_mul(1_000_000) / (count * count * count * (count - 1));
        let deviation_milli = variance.isqrt();
        let freedom = usize::try_from(count - 2).expect("at least two");
        let quantile = T_MILLI.get(freedom).unwrap_or(&T_BEYOND_MILLI);
        let half = div_nearest(deviation_milli * quantile, 1_000_000);
        Some(Self {
            mean,
            half_width: Some(narrow(half)),
        })
    }

    /// Whether zero lies outside: the values are more than chance.
    #[must_use]
    pub fn is_sure(&self) -> bool {
        self.half_width
            .is_some_and(|half| self.mean.unsigned_abs() > half.unsigned_abs())
    }
}

/// The middle of some values, the lower of two; `None` of no value.
#[must_use]
pub fn median(values: &[i64]) -> Option<i64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let middle = sorted.len().checked_sub(1)? / 2;
    sorted.get(middle).copied()
}

/// Between which of some values the middle of all that chance could draw lies, with 95 % confidence or more:
/// so many from either end that a fair coin falls on one side that seldom. `None`: fewer than six.
#[must_use]
pub fn median_between(values: &[i64]) -> Option<(i64, i64)> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let outside = outside(sorted.len());
    let high = sorted.len().checked_sub(outside)?;
    match outside {
        0 => None,
        _ => Some((sorted[outside - 1], sorted[high])),
    }
}

/// From how many on, counted from the end, one value in forty of a coin's throws lies outside.
fn outside(count: usize) -> usize {
    /// Of more, binomial coefficients leave 128 bits.
    const EXACT_MAX: u32 = 120;
    let throws = u32::try_from(count).unwrap_or(u32::MAX);
    if throws > EXACT_MAX {
        // The normal distribution's 1.96 deviations, each half of the root.
        let wide = (u128::from(throws) * 38_416 / 10_000).isqrt() + 1;
        let wide = usize::try_from(wide).expect("a root is small");
        return count.saturating_sub(wide) / 2;
    }
    let (mut ways, mut sum, mut outside) = (1u128, 0u128, 0);
    for heads in 0..throws {
        sum += ways;
        if 40 * sum > 1 << throws {
            break;
        }
        outside += 1;
        ways = ways * u128::from(throws - heads) / u128::from(heads + 1);
    }
    outside
}

const fn div_nearest(part: i128, whole: i128) -> i128 {
    let half = if part < 0 { -whole / 2 } else { whole / 2 };
    (part + half) / whole
}

fn narrow(value: i128) -> i64 {
    let bound = i128::from(i64::MAX);
    i64::try_from(value.clamp(-bound, bound)).expect("clamped")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ranks that textbooks list: of 6 the first and the last, of 10 the second, of 20 the sixth, of 30
    /// the tenth.
    #[test]
    fn the_middle_lies_between_the_ranks_of_the_sign_test() {
        let ranks = [5, 6, 8, 9, 10, 15, 20, 30, 100].map(outside);
        assert_eq!(ranks, [0, 1, 1, 2, 2, 4, 6, 10, 40]);
        assert_eq!(outside(400), 180, "199.5 less 19.6");
        let values: Vec<i64> = (1..=10).rev().collect();
        assert_eq!(median_between(&values), Some((2, 9)));
        assert_eq!(median_between(&values[..5]), None);
        assert_eq!(median_between(&[]), None);
    }

    /// Gosset's sleep data: differences of ten pairs, mean 1.58, interval 0.70 to 2.46.
    #[test]
    fn the_interval_is_the_textbooks() {
        let tenths = [12, 24, 13, 13, 0, 10, 18, 8, 46, 14];
        let thousandths: Vec<i64> = tenths.iter().map(|tenth| tenth * 100).collect();
        let interval = Interval::of(&thousandths).unwrap();
        assert_eq!(interval.mean, 1_580);
        assert_eq!(interval.half_width, Some(880));
        assert!(interval.is_sure());
    }

    #[test]
    fn equal_values_are_sure_and_a_single_one_is_not() {
        let equal = Interval::of(&[7; 5]).unwrap();
        assert_eq!((equal.mean, equal.half_width), (7, Some(0)));
        assert!(equal.is_sure());
        let zero = Interval::of(&[0; 5]).unwrap();
        assert!(!zero.is_sure());
        let single = Interval::of(&[7]).unwrap();
        assert_eq!(single.half_width, None);
        assert!(!single.is_sure());
        assert_eq!(Interval::of(&[]), None);
    }

    /// 95 of 100 intervals hold the truth, as far as 2,000 can tell.
    #[test]
    fn the_interval_holds_the_truth_as_often_as_it_says() {
        let mut stream = crate::stream::Stream::new(1, "intervals");
        let mut holds = 0;
        for _ in 0..2_000 {
            // Six throws of twelve dice: nearly normal, around 420 tenths.
            let mut throw = || (0..12).map(|_| stream.between(1, 6)).sum::<u64>() * 10;
            let throws: Vec<i64> = (0..6).map(|_| i64::try_from(throw()).unwrap()).collect();
            let interval = Interval::of(&throws).unwrap();
            holds += u32::from((interval.mean - 420).abs() <= interval.half_width.unwrap());
        }
        assert!((1_860..=1_940).contains(&holds), "{holds} of 2,000");
    }

    #[test]
    fn the_middle_is_one_of_the_values() {
        assert_eq!(median(&[5, 1, 9]), Some(5));
        assert_eq!(median(&[5, 1, 9, 7]), Some(5));
        assert_eq!(median(&[]), None);
    }
}
