//! Where a journal is cut, and how much of it is kept.

/// A snapshot's bytes for each entity of the state, roughly.
const SNAPSHOT_BYTES_PER_ENTITY: u64 = 400;
/// A segment is so many times as large as the snapshot at its head, so that snapshots take a small
/// part of the time and the disk, however large the state.
const SEGMENT_TO_SNAPSHOT: u64 = 8;

/// Sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentRules {
    /// A smaller segment is not cut.
    pub size_min: u64,
    /// Of all segments together; the oldest go first.
    pub kept_max: u64,
}

impl SegmentRules {
    /// Half an hour of 3,000 events a second, and a day of 100.
    #[must_use]
    pub const fn reference() -> Self {
        Self {
            size_min: 64 << 20,
            kept_max: 2 << 30,
        }
    }

    /// Whether a segment of `size` bytes is to be closed and the next one begun. `weight` is
    /// [`crate::coordinator::Coordinator::weight`].
    #[must_use]
    pub fn is_full(&self, size: u64, weight: u64) -> bool {
        let snapshot = weight.saturating_mul(SNAPSHOT_BYTES_PER_ENTITY);
        let wanted = snapshot
            .saturating_mul(SEGMENT_TO_SNAPSHOT)
            .max(self.size_min);
        // Two must fit, or nothing would be kept beside the one that grows.
        size >= wanted.min(self.kept_max / 2)
    }

    /// How many of the oldest segments must go, so that those that stay fit. The last one, which is
    /// being written, always stays.
    #[must_use]
    pub fn surplus(&self, sizes_oldest_first: &[u64]) -> usize {
        let mut total: u64 = 0;
        for (ix, size) in sizes_oldest_first.iter().enumerate().rev() {
            total = total.saturating_add(*size);
            if total > self.kept_max {
                return (ix + 1).min(sizes_oldest_first.len() - 1);
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: SegmentRules = SegmentRules {
        size_min: 100,
        kept_max: 1_000_000,
    };

    #[test]
    fn a_segment_grows_with_the_state_and_never_beyond_half_of_what_is_kept() {
        assert!(!RULES.is_full(99, 0));
        assert!(RULES.is_full(100, 0));
        assert!(!RULES.is_full(31_999, 10));
        assert!(RULES.is_full(32_000, 10));
        assert!(RULES.is_full(500_000, u64::MAX));
    }

    #[test]
    fn the_oldest_go_until_the_rest_fits_and_the_newest_always_stays() {
        assert_eq!(RULES.surplus(&[]), 0);
        assert_eq!(RULES.surplus(&[400_000, 300_000, 300_000]), 0);
        assert_eq!(RULES.surplus(&[1, 400_000, 300_000, 300_000]), 1);
        assert_eq!(RULES.surplus(&[400_000, 400_000, 900_000]), 2);
        assert_eq!(RULES.surplus(&[5, 5, 2_000_000]), 2);
        assert_eq!(RULES.surplus(&[2_000_000]), 0);
    }
}
