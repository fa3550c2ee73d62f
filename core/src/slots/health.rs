//! Whether a loaded model's engine still works. It is suspect when several requests wait for a first token,
//! the oldest of them for long, and no step was made meanwhile: a slow engine steps, a stuck one does not.

use super::{EngineSign, RECOVERY_WAIT, WEDGE_JOBS, WEDGE_WAIT};
use crate::time::Tick;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Health {
    steps: u64,
    pub(super) stepped_at: Tick,
    sign: EngineSign,
    suspect_since: Option<Tick>,
}

impl Health {
    pub(super) const fn new(now: Tick) -> Self {
        Self {
            steps: 0,
            stepped_at: now,
            sign: EngineSign::Alive,
            suspect_since: None,
        }
    }

    pub(super) fn watch(&mut self, now: Tick, sign: EngineSign, steps: u64) {
        if self.steps != steps {
            self.steps = steps;
            self.stepped_at = now;
        }
        if sign == EngineSign::Dead {
            self.sign = sign;
        }
    }

    /// `silent` are the moments at which requests without a first token were handed over.
    pub(super) fn suspect(&mut self, now: Tick, silent: impl Iterator<Item = Tick>) {
        let (mut count, mut oldest) = (0, now);
        for since in silent {
            count += 1;
            oldest = oldest.min(since);
        }
        let is_suspect = count >= WEDGE_JOBS
            && now.since(oldest) >= WEDGE_WAIT
            && now.since(self.stepped_at) >= WEDGE_WAIT;
        self.suspect_since = is_suspect.then(|| self.suspect_since.unwrap_or(now));
    }

    pub(super) fn is_dead(&self) -> bool {
        self.sign == EngineSign::Dead
    }

    pub(super) const fn is_suspect(&self) -> bool {
        self.suspect_since.is_some()
    }

    pub(super) fn is_crashed(&self) -> bool {
        self.is_dead() || self.is_suspect()
    }

    /// Nothing more is to be hoped from it.
    pub(super) fn is_lost(&self, now: Tick) -> bool {
        let is_out_of_patience = self
            .suspect_since
            .is_some_and(|since| now.since(since) >= RECOVERY_WAIT);
        self.is_dead() || is_out_of_patience
    }
}
