//! The machines that are known, here or gone. What is remembered of each outlives its connections
//! (INV-13). Bounded: when the table is full the machine that was gone longest is forgotten.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::habits::Habits;
use super::losses::Losses;
use super::pool::MachineTag;
use super::standing::Standing;
use crate::ids::MachineId;
use crate::lookup::Lookup;
use crate::slab::Slab;
use crate::time::{Span, Tick};

/// Handovers of one machine from a working connection to a newer one, within
/// [`HANDOVER_WINDOW`]. More of them are no reconnects: two processes share one identity.
pub(crate) const HANDOVERS_MAX: u8 = 4;
pub(crate) const HANDOVER_WINDOW: Span = Span::secs(60);

/// One machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Record {
    machine: MachineId,
    /// Places of its live providers, oldest first. More than one only while a newer connection has
    /// not proven that it is the machine.
    pub(crate) here: SmallVec<[u32; 2]>,
    pub(crate) standing: Standing,
    pub(crate) habits: Habits,
    pub(crate) losses: Losses,
    handovers: u8,
    handovers_since: Tick,
    left_at: Tick,
}

/// Whether a newer connection may take over from one that works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handover {
    Allowed,
    /// They come too often.
    Contested,
}

/// See the module. A record is named by its place, which its live providers keep.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Memory {
    records: Slab<Record>,
    by_machine: BTreeMap<MachineId, u32>,
    by_tag: Lookup<MachineTag>,
    /// Machines that are gone and not forgotten, the longest gone first.
    gone: BTreeSet<(Tick, MachineId)>,
    count_max: u32,
    /// Room was made by forgetting a machine that had something to answer for.
    has_forgotten: bool,
}

impl Memory {
    /// `count_max` is above the number of machines that can be here at once.
    pub(super) fn new(count_max: u32) -> Self {
        Self {
            records: Slab::with_limit(count_max),
            by_machine: BTreeMap::new(),
            by_tag: Lookup::default(),
            gone: BTreeSet::new(),
            count_max,
            has_forgotten: false,
        }
    }

    /// The machine is here, on the provider at `slot`. Returns the place of its record.
    pub(super) fn arrive(&mut self, now: Tick, machine: MachineId, slot: u32) -> u32 {
        let ix = self.of(now, machine);
        let record = self.records.at_mut(ix);
        self.gone.remove(&(record.left_at, machine));
        record.here.push(slot);
        ix
    }

    /// The record of a machine, here or gone; a new one if there was nothing to remember so far.
    pub(super) fn of(&mut self, now: Tick, machine: MachineId) -> u32 {
        if let Some(&ix) = self.by_machine.get(&machine) {
            return ix;
        }
        self.make_room();
        let record = Record {
            machine,
            here: SmallVec::new(),
            standing: Standing::default(),
            habits: Habits::default(),
            losses: Losses::default(),
            handovers: 0,
            handovers_since: Tick::ZERO,
            left_at: now,
        };
        let key = self.records.insert(record).expect("room was made");
        self.by_machine.insert(machine, key.slot);
        self.by_tag.insert(MachineTag::of(machine), key.slot);
        self.gone.insert((now, machine));
        key.slot
    }

    /// The provider at `slot` is gone. A machine without a connection stays known if there is
    /// anything to remember.
    pub(super) fn leave(&mut self, now: Tick, ix: u32, slot: u32) {
        let record = self.records.at_mut(ix);
        record.here.retain(|other| *other != slot);
        if !record.here.is_empty() {
            return;
        }
        record.left_at = now;
        record.standing.serve(now);
        let is_spotless = record.standing.is_spotless()
            && record.habits.is_spotless()
            && record.losses.is_spotless(now);
        let machine = record.machine;
        if is_spotless {
            self.forget(machine);
        } else {
            self.gone.insert((now, machine));
        }
    }

    /// A newer connection proved itself beside one that works: counts the handover.
    pub(super) fn hand_over(&mut self, now: Tick, ix: u32) -> Handover {
        let record = self.records.at_mut(ix);
        if now.since(record.handovers_since) >= HANDOVER_WINDOW {
            record.handovers = 0;
            record.handovers_since = now;
        }
        if record.handovers >= HANDOVERS_MAX {
            return Handover::Contested;
        }
        record.handovers += 1;
        Handover::Allowed
    }

    /// The connections of a machine, oldest first.
    pub(super) fn here(&self, machine: MachineId) -> &[u32] {
        let ix = self.by_machine.get(&machine);
        ix.map_or(&[], |&ix| self.records.at(ix).here.as_slice())
    }

    /// The same, by the machine's folded identity.
    pub(super) fn here_by_tag(&self, tag: MachineTag) -> &[u32] {
        let ix = self.by_tag.get(tag);
        ix.map_or(&[], |ix| self.records.at(ix).here.as_slice())
    }

    pub(super) fn at(&self, ix: u32) -> &Record {
        self.records.at(ix)
    }

    pub(super) fn at_mut(&mut self, ix: u32) -> &mut Record {
        self.records.at_mut(ix)
    }

    pub(super) fn count(&self) -> usize {
        self.records.count()
    }

    pub(super) const fn count_max(&self) -> u32 {
        self.count_max
    }

    /// `true`, once: a machine that had something to answer for was forgotten.
    pub(super) const fn take_forgotten(&mut self) -> bool {
        core::mem::replace(&mut self.has_forgotten, false)
    }

    pub(super) const fn set_limit(&mut self, count_max: u32) {
        self.count_max = count_max;
        self.records.set_limit(count_max);
    }

    /// A planted bug: a machine without a connection is as if it had never been here.
    pub(crate) fn forget_gone(&mut self, machine: MachineId) {
        let is_gone = self.here(machine).is_empty() && self.by_machine.contains_key(&machine);
        if is_gone {
            self.gone.retain(|(_, other)| *other != machine);
            self.forget(machine);
        }
    }

    fn make_room(&mut self) {
        while self.records.count() >= self.count_max as usize {
            self.forget_longest_gone();
        }
    }

    fn forget_longest_gone(&mut self) {
        let (_, machine) = self
            .gone
            .pop_first()
            .expect("fewer machines are here than are remembered");
        self.forget(machine);
        self.has_forgotten = true;
    }

    fn forget(&mut self, machine: MachineId) {
        let ix = self.by_machine.remove(&machine).expect("it is known");
        self.by_tag.remove(MachineTag::of(machine));
        self.records.remove(self.records.key_at(ix));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_memory_forgets_the_machine_that_was_gone_longest_and_says_so() {
        let mut memory = Memory::new(3);
        for (machine, left_at) in [(1, 20), (2, 10), (3, 30)] {
            let ix = memory.arrive(Tick(1), MachineId(machine), 7);
            assert!(!memory.take_forgotten());
            memory.at_mut(ix).standing.fault(Tick(1), 1);
            memory.leave(Tick(left_at), ix, 7);
        }
        memory.arrive(Tick(40), MachineId(4), 7);
        assert!(memory.take_forgotten() && !memory.take_forgotten());
        let knows = |machine| memory.by_machine.contains_key(&MachineId(machine));
        assert_eq!([1, 2, 3].map(knows), [true, false, true]);
    }

    #[test]
    fn a_spotless_machine_takes_no_place_once_it_is_gone() {
        let mut memory = Memory::new(2);
        let ix = memory.arrive(Tick(1), MachineId(1), 7);
        memory.leave(Tick(5), ix, 7);
        assert_eq!(memory.count(), 0);
    }

    #[test]
    fn who_is_lost_at_work_again_and_again_stays_known_when_it_is_gone() {
        let mut memory = Memory::new(2);
        let ix = memory.arrive(Tick(1), MachineId(1), 7);
        memory.at_mut(ix).losses.lost(Tick(2), 4);
        memory.at_mut(ix).losses.lost(Tick(3), 4);
        memory.leave(Tick(3) + Span::secs(3_600), ix, 7);
        assert_eq!(memory.count(), 1);
    }

    #[test]
    fn handovers_are_counted_in_a_window() {
        let mut memory = Memory::new(2);
        let ix = memory.arrive(Tick(1), MachineId(1), 7);
        let mut at = Tick(1_000);
        for _ in 0..HANDOVERS_MAX {
            assert_eq!(memory.hand_over(at, ix), Handover::Allowed);
            at = at + Span::secs(1);
        }
        assert_eq!(memory.hand_over(at, ix), Handover::Contested);
        let later = at + HANDOVER_WINDOW;
        assert_eq!(memory.hand_over(later, ix), Handover::Allowed);
    }
}
