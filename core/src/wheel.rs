//! Timers: a hierarchical wheel, 64 slots by 6 levels at one millisecond.
//!
//! Arming rounds up to the slot, so nothing fires before its deadline and nothing later than one
//! millisecond after it. Cancelling is O(1) and leaves nothing behind.

use serde::{Deserialize, Serialize};

use crate::slab::{Key, Slab};
use crate::time::Tick;

const LEVELS: usize = 6;
const SLOTS: usize = 64;
const SLOT_US: u64 = 1_000;
/// Longest time ahead, in slots of the lowest level; what lies beyond is clipped to it.
const AHEAD_MAX: u64 = (1 << (6 * LEVELS)) - 1;
const NIL: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Timer<T> {
    deadline: Tick,
    seq: u64,
    due_slot: u64,
    /// `level * 64 + slot`.
    place: u16,
    prev: u32,
    next: u32,
    what: T,
}

/// Timers that carry a `T` each.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Wheel<T> {
    now_slot: u64,
    heads: Vec<u32>,
    occupied: [u64; LEVELS],
    timers: Slab<Timer<T>>,
    seq: u64,
    due: Vec<(Tick, u64, T)>,
}

impl<T: Copy> Wheel<T> {
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self {
            now_slot: 0,
            heads: vec![NIL; LEVELS * SLOTS],
            occupied: [0; LEVELS],
            timers: Slab::with_limit(limit),
            seq: 0,
            due: Vec::new(),
        }
    }

    /// From now on. What is armed already stays.
    pub const fn set_limit(&mut self, limit: u32) {
        self.timers.set_limit(limit);
    }

    /// `None` when the wheel is full.
    pub fn arm(&mut self, deadline: Tick, what: T) -> Option<Key> {
        let due_slot = deadline.0.div_ceil(SLOT_US).max(self.now_slot + 1);
        let due_slot = due_slot.min(self.now_slot + AHEAD_MAX);
        self.seq += 1;
        let timer = Timer {
            deadline,
            seq: self.seq,
            due_slot,
            place: 0,
            prev: NIL,
            next: NIL,
            what,
        };
        let key = self.timers.insert(timer)?;
        self.link(key.slot);
        Some(key)
    }

    /// Returns whether the timer was still there.
    pub fn cancel(&mut self, key: Key) -> bool {
        if self.timers.get(key).is_none() {
            return false;
        }
        self.unlink(key.slot);
        self.timers.remove(key);
        true
    }

    /// A moment at or before the next deadline's slot: wake then. An early wake is harmless.
    #[must_use]
    pub fn next_wake(&self) -> Option<(Tick, T)> {
        let (level, slot) = self.next_place()?;
        let head = self.heads[level * SLOTS + slot];
        let wake_slot = self.slot_start(level, slot).max(self.now_slot + 1);
        Some((Tick(wake_slot * SLOT_US), self.timers.at(head).what))
    }

    /// Moves to `now` and appends what is due, ordered by deadline, then by age.
    pub fn expire(&mut self, now: Tick, out: &mut Vec<T>) {
        let target = now.0 / SLOT_US;
        while let Some((level, slot)) = self.next_place() {
            let start = self.slot_start(level, slot);
            if start > target {
                break;
            }
            self.now_slot = self.now_slot.max(start);
            self.empty_slot(level, slot);
        }
        self.now_slot = self.now_slot.max(target);
        self.due
            .sort_unstable_by_key(|&(deadline, seq, _)| (deadline, seq));
        out.extend(self.due.drain(..).map(|(_, _, what)| what));
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.timers.count()
    }

    fn empty_slot(&mut self, level: usize, slot: usize) {
        let mut ix = core::mem::replace(&mut self.heads[level * SLOTS + slot], NIL);
        self.occupied[level] &= !(1 << slot);
        while ix != NIL {
            let timer = *self.timers.at(ix);
            if timer.due_slot <= self.now_slot {
                self.due.push((timer.deadline, timer.seq, timer.what));
                self.timers.remove(self.timers.key_at(ix));
            } else {
                self.link(ix);
            }
            ix = timer.next;
        }
    }

    fn next_place(&self) -> Option<(usize, usize)> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let at = (self.now_slot >> (6 * level)) & 63;
        let ahead = self.occupied[level]
            .rotate_right(at as u32)
            .trailing_zeros();
        Some((level, ((at + u64::from(ahead)) & 63) as usize))
    }

    fn slot_start(&self, level: usize, slot: usize) -> u64 {
        let width = 6 * level as u32;
        let turn = !((1u64 << (width + 6)) - 1);
        let start = (self.now_slot & turn) + ((slot as u64) << width);
        if level == LEVELS - 1 && start < self.now_slot & !((1u64 << width) - 1) {
            start + (1u64 << (width + 6))
        } else {
            start
        }
    }

    fn link(&mut self, ix: u32) {
        let due_slot = self.timers.at(ix).due_slot;
        let differing = (due_slot ^ self.now_slot) | 63;
        let level = ((63 - differing.leading_zeros()) / 6).min(LEVELS as u32 - 1) as usize;
        let slot = ((due_slot >> (6 * level)) & 63) as usize;
        let place = level * SLOTS + slot;
        let head = self.heads[place];
        let timer = self.timers.at_mut(ix);
        timer.place = place as u16;
        timer.prev = NIL;
        timer.next = head;
        if head != NIL {
            self.timers.at_mut(head).prev = ix;
        }
        self.heads[place] = ix;
        self.occupied[level] |= 1 << slot;
    }

    fn unlink(&mut self, ix: u32) {
        let Timer {
            prev, next, place, ..
        } = *self.timers.at(ix);
        if prev == NIL {
            self.heads[usize::from(place)] = next;
        } else {
            self.timers.at_mut(prev).next = next;
        }
        if next != NIL {
            self.timers.at_mut(next).prev = prev;
        }
        if self.heads[usize::from(place)] == NIL {
            self.occupied[usize::from(place) / SLOTS] &= !(1 << (usize::from(place) % SLOTS));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Arm(u64),
        Cancel(usize),
        Advance(u64),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let ahead = prop_oneof![0u64..5_000, 0u64..10_000_000, 0u64..10_000_000_000];
        let op = prop_oneof![
            ahead.clone().prop_map(Op::Arm),
            (0usize..64).prop_map(Op::Cancel),
            ahead.prop_map(Op::Advance),
        ];
        prop::collection::vec(op, 0..120)
    }

    proptest! {
        #[test]
        fn it_fires_exactly_what_a_sorted_list_would(ops in ops()) {
            let mut wheel = Wheel::new(1_000);
            let mut model: Vec<(u64, u64, Key)> = Vec::new();
            let (mut now, mut age) = (0u64, 0u64);
            for op in ops {
                match op {
                    Op::Arm(ahead) => {
                        age += 1;
                        let key = wheel.arm(Tick(now + ahead), age).unwrap();
                        let floor = (now / SLOT_US + 1) * SLOT_US;
                        let fires = ((now + ahead).div_ceil(SLOT_US) * SLOT_US).max(floor);
                        model.push((fires, age, key));
                    }
                    Op::Cancel(ix) if !model.is_empty() => {
                        let (_, _, key) = model.remove(ix % model.len());
                        prop_assert!(wheel.cancel(key));
                        prop_assert!(!wheel.cancel(key));
                    }
                    Op::Cancel(_) => {}
                    Op::Advance(ahead) => {
                        now += ahead;
                        let mut fired = Vec::new();
                        wheel.expire(Tick(now), &mut fired);
                        fired.sort_unstable();
                        let mut expected: Vec<u64> = model
                            .iter().filter(|(fires, _, _)| *fires <= now).map(|&(_, age, _)| age).collect();
                        expected.sort_unstable();
                        model.retain(|(fires, _, _)| *fires > now);
                        prop_assert_eq!(fired, expected);
                    }
                }
                prop_assert_eq!(wheel.count(), model.len());
                let earliest = model.iter().map(|&(fires, _, _)| fires).min();
                match (wheel.next_wake(), earliest) {
                    (None, None) => {}
                    (Some((wake, _)), Some(fires)) => prop_assert!(wake.0 <= fires && wake.0 > now),
                    other => prop_assert!(false, "{other:?}"),
                }
            }
        }
    }
}
