//! The process's one clock: turns the system's monotonic time into ticks for the core.

use std::time::{Duration, Instant};

use cereus_core::time::Tick;

/// Ticks since the process began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    pub(crate) fn now(self) -> Tick {
        Tick(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// The same moment for tokio's timers; too far away counts as a year.
    pub(crate) fn instant(self, tick: Tick) -> tokio::time::Instant {
        const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);
        let after = Duration::from_micros(tick.0);
        (self.origin + after.min(self.origin.elapsed() + YEAR)).into()
    }
}
