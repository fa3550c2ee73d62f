//! When the machine's owner lets it serve: the schedule, and what the clock said last.

use crate::schedule::{LocalTime, Schedule};
use crate::time::{Span, Tick};

/// Longest time between two looks at the wall clock. People set it and machines sleep, so how long it is
/// to the next window is not trusted for longer than this.
pub(super) const CHECK_EVERY: Span = Span::secs(3_600);

/// Of a machine that does not always serve.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Duty {
    schedule: Schedule,
    pub(super) is_on: IsOn,
    pub(super) check_at: Tick,
    /// Running jobs may finish until then; set while the socket is to be left for the hours' sake.
    pub(super) rest_at: Option<Tick>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum IsOn {
    /// Nobody has looked at the clock.
    Unknown,
    No,
    Yes,
}

impl Duty {
    /// Looks at the clock at the first wake.
    pub(super) fn new(now: Tick, schedule: &Schedule) -> Option<Self> {
        (!schedule.is_always()).then(|| Self {
            schedule: schedule.clone(),
            is_on: IsOn::Unknown,
            check_at: now,
            rest_at: None,
        })
    }

    /// Whether the machine may serve now.
    pub(super) fn look(&mut self, now: Tick, local: LocalTime) -> bool {
        let until_change = self.schedule.until_change(local).unwrap_or(CHECK_EVERY);
        self.check_at = now + until_change.min(CHECK_EVERY);
        self.schedule.is_active_at(local)
    }
}
