//! Who could take a request for one model right now, ordered by expected wait.
//!
//! Candidates sit in 64 buckets by the logarithm of their wait; a bit mask names the buckets in use.
//! Placing, moving and removing are O(1), and a choice looks at a handful of entries that lie side by
//! side, so it costs the same at 100 and at 100,000 machines.

use serde::{Deserialize, Serialize};

use crate::digest::Mix;
use crate::ids::MachineId;
use crate::lookup::LookupKey;
use crate::traits::Traits;

pub(crate) const BUCKETS: usize = 64;

/// A machine's identity folded to eight bytes, so that two candidates share a cache line.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub(crate) struct MachineTag(pub(crate) u64);

impl MachineTag {
    /// Stands where no machine is named yet.
    pub(crate) const NOBODY: Self = Self(0);

    pub(crate) fn of(machine: MachineId) -> Self {
        Self(Mix::of(&machine) as u64)
    }
}

impl LookupKey for MachineTag {
    fn bits(self) -> u128 {
        u128::from(self.0)
    }
}

/// What a choice needs to know of one machine, side by side in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Candidate {
    /// Names the machine, whatever its connection.
    pub(crate) machine: MachineTag,
    /// Place of the offer in the fleet.
    pub(crate) offer: u32,
    /// Expected time to first content, the request's own prefill aside.
    pub(crate) wait_us: u32,
    pub(crate) prefill_us_per_ktok: u32,
    /// Free token budget; `u32::MAX` when the machine reports none.
    pub(crate) room_tokens: u32,
    /// Requests that it runs already.
    pub(crate) load: u32,
    pub(crate) has: Traits,
}

const _: () = assert!(
    size_of::<Candidate>() <= 32,
    "two candidates share a cache line"
);

/// Where a candidate sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) bucket: u8,
    pub(crate) ix: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Pool {
    buckets: Vec<Vec<Candidate>>,
    occupied: u64,
    /// Candidates that have nothing to do.
    idle_count: u32,
}

impl Pool {
    pub(crate) fn new() -> Self {
        Self {
            buckets: vec![Vec::new(); BUCKETS],
            occupied: 0,
            idle_count: 0,
        }
    }

    pub(crate) fn put(&mut self, bucket: u8, candidate: Candidate) -> Place {
        let entries = &mut self.buckets[usize::from(bucket)];
        let ix = u32::try_from(entries.len()).expect("a pool holds at most providers_max");
        entries.push(candidate);
        self.occupied |= 1 << bucket;
        self.idle_count += u32::from(candidate.load == 0);
        Place { bucket, ix }
    }

    pub(crate) fn replace(&mut self, place: Place, candidate: Candidate) {
        let entry = &mut self.buckets[usize::from(place.bucket)][place.ix as usize];
        self.idle_count += u32::from(candidate.load == 0);
        self.idle_count -= u32::from(entry.load == 0);
        *entry = candidate;
    }

    /// Takes a candidate out. The offer returned, if any, now sits at `place`.
    pub(crate) fn take(&mut self, place: Place) -> Option<u32> {
        let entries = &mut self.buckets[usize::from(place.bucket)];
        let taken = entries.swap_remove(place.ix as usize);
        self.idle_count -= u32::from(taken.load == 0);
        if entries.is_empty() {
            self.occupied &= !(1 << place.bucket);
        }
        entries.get(place.ix as usize).map(|moved| moved.offer)
    }

    /// Buckets in use, shortest wait first.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = &[Candidate]> {
        let mut left = self.occupied;
        core::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let bucket = left.trailing_zeros();
            left &= left - 1;
            Some(self.buckets[bucket as usize].as_slice())
        })
    }

    pub(crate) fn at(&self, place: Place) -> &Candidate {
        &self.buckets[usize::from(place.bucket)][place.ix as usize]
    }

    pub(crate) const fn idle_count(&self) -> u32 {
        self.idle_count
    }

    pub(crate) fn count(&self) -> usize {
        self.buckets.iter().map(Vec::len).sum()
    }
}

/// Four buckets an octave, from half a millisecond to a minute.
pub(crate) fn bucket_of(wait_us: u64) -> u8 {
    const FIRST: u64 = 512;
    let scaled = wait_us.max(FIRST);
    let octave = 63 - scaled.leading_zeros();
    let quarter = (scaled >> (octave - 2)) & 3;
    let ix = (u64::from(octave) - 9) * 4 + quarter;
    u8::try_from(ix.min(BUCKETS as u64 - 1)).expect("fewer than 256 buckets")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_wait_never_sits_in_an_earlier_bucket() {
        let mut last = 0;
        for wait in (0..200_000_000u64).step_by(997) {
            let bucket = bucket_of(wait);
            assert!(bucket >= last);
            last = bucket;
        }
        assert_eq!(bucket_of(0), 0);
        assert_eq!(usize::from(bucket_of(u64::MAX)), BUCKETS - 1);
    }
}
