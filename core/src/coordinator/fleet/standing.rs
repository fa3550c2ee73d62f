//! What a machine's conduct is worth: the faults that it has not made good, the bar that they bring,
//! and by how much it is later than its own figures say. It belongs to the machine and not to a
//! connection (INV-13).

use serde::{Deserialize, Serialize};

use crate::time::{Span, Tick};

/// Faults that were not made good, from which on each further one bars the machine.
pub(crate) const FAULTS_TO_BAR: u8 = 3;
/// More are not counted, so that a machine that was repaired can work itself out of its past.
const FAULTS_MAX: u8 = 8;
const BAR: Span = Span::secs(30);
const BAR_MAX: Span = Span::secs(600);
/// What networks take, and a step that is under way: no forecast counts it, and no machine is late
/// because of it.
const LATE_ALLOWED: Span = Span::millis(250);
/// No single answer counts for more.
const LATE_MAX_US: u64 = 60_000_000;
/// The newest answer weighs one quarter.
const LATE_SHIFT: u32 = 2;
/// A sixteenth is forgotten with each report, so that who was slow once is tried again: half in
/// about a minute.
const LATE_FADE_SHIFT: u32 = 4;
/// Lateness that is worth remembering of a machine that is gone.
const LATE_WORTH_US: u32 = 2_000_000;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Standing {
    faults: u8,
    /// `Tick::ZERO` while there is no bar.
    barred_until: Tick,
    /// By how much its answers come later than what it says of its speed lets expect.
    late_us: u32,
}

impl Standing {
    /// It failed through a fault of its own, which brings it at least to so many. Each fault beyond
    /// the third doubles the bar.
    pub(super) fn fault(&mut self, now: Tick, faults_min: u8) {
        self.faults = (self.faults + 1).max(faults_min).min(FAULTS_MAX);
        if self.faults < FAULTS_TO_BAR {
            return;
        }
        let doublings = u32::from(self.faults - FAULTS_TO_BAR);
        self.barred_until = now + Span((BAR.0 << doublings).min(BAR_MAX.0));
    }

    /// It did what it was asked: one fault is made good, and a bar ends.
    pub(super) fn success(&mut self) {
        self.faults = self.faults.saturating_sub(1);
        self.barred_until = Tick::ZERO;
    }

    /// Ends a bar whose time is up.
    pub(super) fn serve(&mut self, now: Tick) {
        if self.barred_until <= now {
            self.barred_until = Tick::ZERO;
        }
    }

    /// When the bar ends, if there is one.
    pub(crate) fn barred_until(self) -> Option<Tick> {
        (self.barred_until > Tick::ZERO).then_some(self.barred_until)
    }

    /// An answer took `actual` where its machine's own figures let expect `expected`.
    pub(super) fn took(&mut self, expected: Span, actual: Span) {
        let allowed = expected.0.saturating_add(LATE_ALLOWED.0);
        let late_us = actual.0.saturating_sub(allowed).min(LATE_MAX_US);
        let old_us = u64::from(self.late_us);
        let new_us = old_us - (old_us >> LATE_SHIFT) + (late_us >> LATE_SHIFT);
        self.late_us = u32::try_from(new_us).expect("at most a minute");
    }

    /// Time passes: from report to report what was measured counts less.
    pub(super) fn fade(&mut self) {
        self.late_us -= self.late_us.div_ceil(1 << LATE_FADE_SHIFT);
    }

    pub(super) fn late_us(self) -> u32 {
        self.late_us
    }

    pub(super) fn has_faults(self) -> bool {
        self.faults > 0
    }

    /// It was barred, and has not shown since that it can do what it is asked.
    pub(super) fn is_on_probation(self) -> bool {
        self.faults >= FAULTS_TO_BAR && self.barred_until == Tick::ZERO
    }

    /// Nothing that would have to be remembered.
    pub(super) fn is_spotless(self) -> bool {
        self.faults == 0 && self.late_us < LATE_WORTH_US
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_doubles_with_each_fault_and_stays_bounded() {
        let mut standing = Standing::default();
        let now = Tick(1_000_000);
        let mut bars = Vec::new();
        for _ in 0..10 {
            standing.fault(now, 1);
            bars.push(standing.barred_until().map(|until| until.since(now)));
        }
        let secs = |s| Some(Span::secs(s));
        assert_eq!(bars[..2], [None, None]);
        assert_eq!(bars[2..7], [30, 60, 120, 240, 480].map(secs));
        assert_eq!(bars[7..], [secs(600); 3]);
    }

    #[test]
    fn what_was_measured_counts_beside_what_is_claimed_and_fades() {
        let mut standing = Standing::default();
        let claimed = Span::millis(100);
        standing.took(claimed, Span::millis(340));
        assert_eq!(standing.late_us(), 0, "a network takes its time");
        for _ in 0..20 {
            standing.took(claimed, Span::millis(2_350));
        }
        assert!((1_900_000..=2_000_000).contains(&standing.late_us()));
        for _ in 0..200 {
            standing.fade();
        }
        assert_eq!(standing.late_us(), 0, "it is tried again");
    }

    #[test]
    fn a_success_ends_the_bar_and_makes_one_fault_good() {
        let mut standing = Standing::default();
        for _ in 0..4 {
            standing.fault(Tick(1), 1);
        }
        standing.success();
        assert_eq!(standing.barred_until(), None);
        standing.fault(Tick(1), 1);
        assert!(standing.barred_until().is_some(), "three are still open");
        for _ in 0..4 {
            standing.success();
        }
        assert!(standing.is_spotless());
    }
}
