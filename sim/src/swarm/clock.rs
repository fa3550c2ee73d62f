//! A process's own clock: it runs as the world's does, jumps forward, and never goes back. Where it
//! should, it stands still until time has caught up with it, as the monotonic clocks of systems do.

use cereus_core::time::Tick;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    ahead_us: i64,
    latest: Tick,
    goes_back: bool,
}

impl Clock {
    /// The planted bug: a clock that goes back.
    pub(super) fn going_back() -> Self {
        Self {
            goes_back: true,
            ..Self::default()
        }
    }

    /// What it says when the world's time is `now`.
    pub(super) fn read(&mut self, now: Tick) -> Tick {
        let shown = Tick(now.0.saturating_add_signed(self.ahead_us));
        self.latest = match self.goes_back {
            true => shown,
            false => shown.max(self.latest),
        };
        self.latest
    }

    /// When it will say `at`, in the world's time.
    pub(super) fn world(&self, at: Tick) -> Tick {
        if at == Tick::NEVER {
            return at;
        }
        Tick(at.0.saturating_add_signed(self.ahead_us.saturating_neg()))
    }

    pub(super) fn jump(&mut self, by_us: i64) {
        self.ahead_us = self.ahead_us.saturating_add(by_us);
    }
}
