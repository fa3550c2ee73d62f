//! The core's steps, kept as far as somebody wants to see them: where two runs part is found by their
//! digests first, and shown by running both again.

use core::fmt::Write as _;
use core::hash::Hash;
use core::ops::Range;

use cereus_core::digest::Mix;
use cereus_core::effect::Effects;
use cereus_core::event::Event;
use cereus_core::time::Tick;

use crate::calibrate::Timings;

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub enum Watch {
    Nothing,
    /// Of each step: eight bytes.
    Digests(Vec<u64>),
    /// Those of these numbers as text.
    Shown {
        wanted: Range<u64>,
        passed: u64,
        lines: Vec<String>,
    },
    /// What a calibration would make of the run's journal.
    Timed(Box<Timings>),
}

impl Watch {
    #[must_use]
    pub const fn shown(wanted: Range<u64>) -> Self {
        Self::Shown {
            wanted,
            passed: 0,
            lines: Vec::new(),
        }
    }

    /// The core handled `event`, and `effects` is all that followed.
    pub fn note(&mut self, now: Tick, event: &Event<'_>, effects: &Effects) {
        match self {
            Self::Nothing => {}
            Self::Digests(digests) => digests.push(digest_of(now, event, effects)),
            Self::Shown {
                wanted,
                passed,
                lines,
            } => {
                if wanted.contains(passed) {
                    lines.push(show(now, event, effects));
                }
                *passed += 1;
            }
            Self::Timed(timings) => timings.note(now, event, effects),
        }
    }
}

/// Of a moment, an event and its effects.
#[must_use]
pub fn digest_of(now: Tick, event: &Event<'_>, effects: &Effects) -> u64 {
    let mut mix = Mix::default();
    now.hash(&mut mix);
    event.hash(&mut mix);
    effects.digest_from(0, &mut mix);
    mix.end()
}

/// An event with its effects below it.
#[must_use]
pub fn show(at: Tick, event: &Event<'_>, effects: &Effects) -> String {
    let mut text = format!("{:>12}.{:06} {event:?}", at.0 / 1_000_000, at.0 % 1_000_000);
    for effect in &effects.list {
        let _ = write!(text, "\n{:>19}   {effect:?}", "");
    }
    text
}

/// The number of the first step that differs, if any: the end of the shorter run is one.
#[must_use]
pub fn first_difference(one: &[u64], other: &[u64]) -> Option<usize> {
    let differs = one.iter().zip(other).position(|(one, other)| one != other);
    let shorter = one.len().min(other.len());
    differs.or_else(|| (one.len() != other.len()).then_some(shorter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_part_at_the_first_step_that_differs_or_at_the_end_of_one() {
        assert_eq!(first_difference(&[1, 2, 3], &[1, 2, 3]), None);
        assert_eq!(first_difference(&[1, 2, 3], &[1, 5, 3]), Some(1));
        assert_eq!(first_difference(&[1, 2, 3], &[1, 2]), Some(2));
        assert_eq!(first_difference(&[], &[]), None);
    }
}
