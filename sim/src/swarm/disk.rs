//! The coordinator's disk: group commits that take their time, stall and fail, and a process that dies
//! with one under way. What is on it is in [`Log`]; this is when.

use cereus_core::effect::Transfer;
use cereus_core::time::{Span, Tick};

use super::log::{Kept, Log};
use super::plan::{Damage, Plan};
use crate::stream::Stream;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    min: Span,
    spread: Span,
    news_max: Span,
    stream: Stream,
    posted: Vec<Transfer>,
    writing: Option<Vec<Transfer>>,
    /// Numbers that the coordinator has not heard of are on the disk.
    unheard: u32,
    stalled_until: Tick,
    fails_next: bool,
    pub(super) log: Log,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// All up to this number is there, and the coordinator hears of it after that time.
    Done {
        up_to: u64,
        heard_after: Span,
    },
    Failed {
        up_to: u64,
    },
}

impl Disk {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            min: plan.disk_min,
            spread: plan.disk_spread,
            news_max: plan.disk_news_max,
            stream: Stream::new(plan.seed, "disk"),
            posted: Vec::new(),
            writing: None,
            unheard: 0,
            stalled_until: Tick::ZERO,
            fails_next: false,
            log: Log::default(),
        }
    }

    pub(super) fn post(&mut self, transfer: Transfer) {
        self.posted.push(transfer);
    }

    pub(super) fn stall(&mut self, until: Tick) {
        self.stalled_until = self.stalled_until.max(until);
    }

    pub(super) const fn fail_next(&mut self) {
        self.fails_next = true;
    }

    /// Begins the next write, if none is under way and something waits. Returns when it ends.
    pub(super) fn begin(&mut self, now: Tick) -> Option<Tick> {
        if self.writing.is_some() || self.posted.is_empty() {
            return None;
        }
        self.writing = Some(core::mem::take(&mut self.posted));
        let took = self.min + Span(self.stream.below(self.spread.0 + 1));
        Some(now.max(self.stalled_until) + took)
    }

    pub(super) fn written(&mut self) -> Written {
        let batch = self.writing.take().expect("a write was under way");
        let up_to = batch.last().expect("no batch is empty").seq;
        if core::mem::take(&mut self.fails_next) {
            self.keep_some(batch);
            return Written::Failed { up_to };
        }
        self.log.append(batch, Kept::Whole);
        self.unheard += 1;
        let heard_after = Span(self.stream.below(self.news_max.0 + 1));
        Written::Done { up_to, heard_after }
    }

    pub(super) const fn heard(&mut self) {
        self.unheard = self.unheard.saturating_sub(1);
    }

    /// The process that posted is gone; its successor numbers from elsewhere.
    pub(super) fn crash(&mut self) {
        self.posted.clear();
        self.unheard = 0;
        if let Some(batch) = self.writing.take() {
            self.keep_some(batch);
        }
    }

    pub(super) fn damage(&mut self, damage: Damage) {
        let part = self.stream.word();
        self.log.damage(damage, part);
    }

    /// Faults are over: from now on it is quick.
    pub(super) fn heal(&mut self) {
        self.stalled_until = Tick::ZERO;
        self.min = Span::millis(1);
        self.spread = Span::millis(3);
        self.news_max = Span::millis(1);
        self.fails_next = false;
    }

    pub(super) const fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.writing.is_none() && self.posted.is_empty() && self.unheard == 0
    }

    /// A write that did not return: all of it may be there, some, or nothing.
    fn keep_some(&mut self, batch: Vec<Transfer>) {
        let part = self.stream.word();
        match self.stream.below(3) {
            0 => {}
            1 => self.log.append(batch, Kept::Torn { part }),
            _ => self.log.append(batch, Kept::Whole),
        }
    }
}
