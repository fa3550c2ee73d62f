//! Who could take a request for one model right now, by speed and by expected wait.
//!
//! Machines that read prompts about equally fast are a class. Within one, candidates lie on 64 shelves by
//! the logarithm of what keeps a newcomer waiting; bit masks name the classes and shelves in use. Which
//! class is best depends on the length of the prompt, which machine of a class hardly does: so a choice
//! looks at a few entries of each class, and costs the same at 100 and at 100,000 machines.

use serde::{Deserialize, Serialize};

use crate::digest::Mix;
use crate::ids::MachineId;
use crate::lookup::LookupKey;
use crate::traits::Traits;

/// Classes, and shelves of each.
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
    /// For a token of a lone answer.
    pub(crate) step_us: u32,
    /// Free token budget; `u32::MAX` when the machine reports none.
    pub(crate) room_tokens: u32,
    /// Requests that it runs already.
    pub(crate) load: u32,
    pub(crate) has: Traits,
}

const _: () = assert!(
    size_of::<Candidate>() <= 40,
    "three candidates share two cache lines"
);

/// Where a candidate sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) class: u8,
    pub(crate) shelf: u8,
    pub(crate) ix: u32,
}

/// Machines that are about equally fast.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Class {
    /// None before the first machine of the class.
    shelves: Vec<Vec<Candidate>>,
    occupied: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Pool {
    classes: Vec<Class>,
    occupied: u64,
    /// Candidates that have nothing to do.
    idle_count: u32,
}

impl Pool {
    pub(crate) fn new() -> Self {
        Self {
            classes: vec![Class::default(); BUCKETS],
            occupied: 0,
            idle_count: 0,
        }
    }

    pub(crate) fn put(&mut self, candidate: Candidate) -> Place {
        let (class, shelf) = home(&candidate);
        let of_class = &mut self.classes[usize::from(class)];
        if of_class.shelves.is_empty() {
            of_class.shelves = vec![Vec::new(); BUCKETS];
        }
        let entries = &mut of_class.shelves[usize::from(shelf)];
        let ix = u32::try_from(entries.len()).expect("a pool holds at most providers_max");
        entries.push(candidate);
        of_class.occupied |= 1 << shelf;
        self.occupied |= 1 << class;
        self.idle_count += u32::from(candidate.load == 0);
        Place { class, shelf, ix }
    }

    /// Whether a candidate as it is now belongs where it sits.
    pub(crate) fn is_home(place: Place, candidate: &Candidate) -> bool {
        home(candidate) == (place.class, place.shelf)
    }

    pub(crate) fn replace(&mut self, place: Place, candidate: Candidate) {
        let shelves = &mut self.classes[usize::from(place.class)].shelves;
        let entry = &mut shelves[usize::from(place.shelf)][place.ix as usize];
        self.idle_count += u32::from(candidate.load == 0);
        self.idle_count -= u32::from(entry.load == 0);
        *entry = candidate;
    }

    /// Takes a candidate out. The offer returned, if any, now sits at `place`.
    pub(crate) fn take(&mut self, place: Place) -> Option<u32> {
        let class = &mut self.classes[usize::from(place.class)];
        let entries = &mut class.shelves[usize::from(place.shelf)];
        let taken = entries.swap_remove(place.ix as usize);
        let moved = entries.get(place.ix as usize).map(|moved| moved.offer);
        self.idle_count -= u32::from(taken.load == 0);
        if entries.is_empty() {
            class.occupied &= !(1 << place.shelf);
        }
        if class.occupied == 0 {
            self.occupied &= !(1 << place.class);
        }
        moved
    }

    /// Classes in use, by their number, the fastest first.
    pub(crate) fn classes(&self) -> impl Iterator<Item = u8> {
        bits(self.occupied)
    }

    /// Shelves in use of one class, shortest wait first.
    pub(crate) fn shelves(&self, class: u8) -> impl Iterator<Item = &[Candidate]> {
        let class = &self.classes[usize::from(class)];
        bits(class.occupied).map(|shelf| class.shelves[usize::from(shelf)].as_slice())
    }

    /// All candidates.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Candidate> {
        let shelves = self.classes().flat_map(|class| self.shelves(class));
        shelves.flatten()
    }

    pub(crate) fn at(&self, place: Place) -> &Candidate {
        let shelves = &self.classes[usize::from(place.class)].shelves;
        &shelves[usize::from(place.shelf)][place.ix as usize]
    }

    pub(crate) const fn idle_count(&self) -> u32 {
        self.idle_count
    }

    pub(crate) fn count(&self) -> usize {
        let classes = self.classes.iter();
        classes.flat_map(|class| &class.shelves).map(Vec::len).sum()
    }
}

/// Class and shelf of a candidate.
fn home(candidate: &Candidate) -> (u8, u8) {
    let class = bucket_of(u64::from(candidate.prefill_us_per_ktok));
    (class, bucket_of(super::cost::standing_us(candidate)))
}

/// The numbers of the bits that are set, in order.
fn bits(mask: u64) -> impl Iterator<Item = u8> {
    let mut left = mask;
    core::iter::from_fn(move || {
        let bit = left.trailing_zeros();
        left &= left.wrapping_sub(1);
        u8::try_from(bit).ok().filter(|bit| *bit < 64)
    })
}

/// The shortest time of the second bucket; the first holds all that is shorter.
const FIRST: u64 = 512;

/// Four buckets an octave, from half a millisecond to half a minute.
pub(crate) fn bucket_of(wait_us: u64) -> u8 {
    let scaled = wait_us.max(FIRST);
    let octave = 63 - scaled.leading_zeros();
    let quarter = (scaled >> (octave - 2)) & 3;
    let ix = (u64::from(octave) - 9) * 4 + quarter;
    u8::try_from(ix.min(BUCKETS as u64 - 1)).expect("fewer than 256 buckets")
}

/// The shortest time that is in a bucket.
pub(crate) const fn least_of(bucket: u8) -> u64 {
    let (octave, quarter) = (bucket / 4, bucket as u64 % 4);
    if bucket == 0 {
        return 0;
    }
    (FIRST + FIRST / 4 * quarter) << octave
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
        for bucket in 1..64 {
            assert_eq!(bucket_of(least_of(bucket)), bucket);
            assert_eq!(bucket_of(least_of(bucket) - 1), bucket - 1);
        }
        assert_eq!(usize::from(bucket_of(u64::MAX)), BUCKETS - 1);
    }
}
