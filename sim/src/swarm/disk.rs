//! The coordinator's store: group commits that take their time, stalls, and death with a write under
//! way. What it holds is in [`crate::oracle::MoneyModel`]; this is when.

use cereus_core::time::{Span, Tick};

use super::plan::Plan;
use crate::stream::Stream;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    min: Span,
    spread: Span,
    stream: Stream,
    posted: u64,
    writing: Option<u64>,
    durable: u64,
    stalled_until: Tick,
}

impl Disk {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            min: plan.disk_min,
            spread: plan.disk_spread,
            stream: Stream::new(plan.seed, "disk"),
            posted: 0,
            writing: None,
            durable: 0,
            stalled_until: Tick::ZERO,
        }
    }

    pub(super) fn post(&mut self, seq: u64) {
        self.posted = seq;
    }

    pub(super) fn stall(&mut self, until: Tick) {
        self.stalled_until = self.stalled_until.max(until);
    }

    /// Begins the next write, if none is under way and something waits. Returns when it ends.
    pub(super) fn begin(&mut self, now: Tick) -> Option<Tick> {
        if self.writing.is_some() || self.posted == self.durable {
            return None;
        }
        self.writing = Some(self.posted);
        let took = self.min + Span(self.stream.below(self.spread.0 + 1));
        Some(now.max(self.stalled_until) + took)
    }

    pub(super) fn written(&mut self) -> u64 {
        self.durable = self.writing.take().expect("a write was under way");
        self.durable
    }

    /// The process that posted is gone; its successor numbers from elsewhere.
    pub(super) fn crash(&mut self) {
        self.posted = 0;
        self.durable = 0;
        self.writing = None;
    }

    /// Faults are over: from now on it is quick.
    pub(super) fn heal(&mut self) {
        self.stalled_until = Tick::ZERO;
        self.min = Span::millis(1);
        self.spread = Span::millis(3);
    }

    pub(super) const fn is_quiet(&self) -> bool {
        self.writing.is_none() && self.posted == self.durable
    }
}
