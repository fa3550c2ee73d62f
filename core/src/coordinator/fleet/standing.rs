//! What a machine's conduct is worth: the faults that it has not made good, and the bar that they
//! bring. It belongs to the machine and not to a connection (INV-13).

use serde::{Deserialize, Serialize};

use crate::time::{Span, Tick};

/// Faults that were not made good, from which on each further one bars the machine.
pub(crate) const FAULTS_TO_BAR: u8 = 3;
/// More are not counted, so that a machine that was repaired can work itself out of its past.
const FAULTS_MAX: u8 = 8;
const BAR: Span = Span::secs(30);
const BAR_MAX: Span = Span::secs(600);

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Standing {
    faults: u8,
    /// `Tick::ZERO` while there is no bar.
    barred_until: Tick,
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

    /// Nothing that would have to be remembered.
    pub(super) fn is_spotless(self) -> bool {
        self == Self::default()
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
