//! How long a row may make no progress, and a step may take: pure, time is an argument.
//!
//! The runtime tells what happens to each row and asks who has run out of time; it ends those rows
//! as a cancel does. Each end has a cause with a name of its own, so that a slow consumer, a full machine
//! and a stuck engine are told apart.

use std::collections::BTreeMap;

use cereus_core::time::{Span, Tick};

use super::RowId;

/// Prefill at least this fast, twice over, is what the ceiling leaves time for.
const PREFILL_TOKENS_PER_S_MIN: u64 = 200;
const PREFILL_PASSES: u64 = 2;
const DECODE_TOKENS_PER_S_MIN: u64 = 5;
const CEILING_MARGIN: Span = Span::secs(60);
const CEILING_MAX: Span = Span::secs(1_000_000_000);
const SECOND_US: u64 = 1_000_000;

/// Why a row was ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// It was not admitted in time.
    AdmissionTimeout,
    /// Its consumer did not read for too long.
    BackpressureTimeout,
    Cancelled,
    /// No token came for too long.
    DecodeStall,
    /// Its prompt did not advance for too long.
    PrefillStall,
    /// All together took longer than any honest run of its size.
    SafetyDeadline,
    /// A step did not end.
    Watchdog,
}

impl Cause {
    /// As on the wire.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::AdmissionTimeout => "admission_timeout",
            Self::BackpressureTimeout => "backpressure_timeout",
            Self::Cancelled => "cancelled",
            Self::DecodeStall => "decode_stall",
            Self::PrefillStall => "prefill_stall",
            Self::SafetyDeadline => "safety_deadline",
            Self::Watchdog => "watchdog",
        }
    }
}

/// How long each kind of waiting may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseConfig {
    /// From submission to the first admission.
    pub admission: Span,
    /// Between two pieces of a prompt.
    pub prefill: Span,
    /// Between two tokens.
    pub decode: Span,
    /// While its consumer does not read.
    pub backpressure: Span,
}

impl LeaseConfig {
    /// The published engine's: after two minutes without progress a row gives its room to others.
    pub const REFERENCE: Self = Self {
        admission: Span::secs(120),
        prefill: Span::secs(120),
        decode: Span::secs(120),
        backpressure: Span::secs(120),
    };

    /// The longest that a row of this size may take from submission to end, whatever it waits for.
    #[must_use]
    pub fn ceiling(&self, prompt_tokens: u32, output_tokens_max: u32) -> Span {
        let prefill_us = u64::from(prompt_tokens) * PREFILL_PASSES * SECOND_US;
        let decode_us = u64::from(output_tokens_max) * SECOND_US;
        let work =
            Span(prefill_us / PREFILL_TOKENS_PER_S_MIN + decode_us / DECODE_TOKENS_PER_S_MIN);
        (self.admission + work + CEILING_MARGIN).min(CEILING_MAX)
    }
}

/// What a row must do next, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Progress {
    /// Until then it must be admitted. Goes on while the row is paused.
    Admission(Tick),
    Decode(Clock),
    Prefill(Clock),
}

/// A progress lease stands still while its row is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Clock {
    Running { until: Tick },
    Stopped { left: Span },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Lease {
    progress: Progress,
    /// While the row is paused.
    reads_until: Option<Tick>,
    ceiling: Tick,
}

impl Lease {
    /// Which of its times comes first.
    fn next(&self) -> (Tick, Cause) {
        let running = |clock, cause| match clock {
            Clock::Running { until } => Some((until, cause)),
            Clock::Stopped { .. } => None,
        };
        let progress = match self.progress {
            Progress::Admission(until) => Some((until, Cause::AdmissionTimeout)),
            Progress::Decode(clock) => running(clock, Cause::DecodeStall),
            Progress::Prefill(clock) => running(clock, Cause::PrefillStall),
        };
        let reading = self
            .reads_until
            .map(|until| (until, Cause::BackpressureTimeout));
        let ceiling = (self.ceiling, Cause::SafetyDeadline);
        [progress, reading]
            .into_iter()
            .flatten()
            .fold(
                ceiling,
                |first, other| {
                    if other.0 <= first.0 { other } else { first }
                },
            )
    }
}

/// A row that ran out of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Expired {
    pub row: RowId,
    pub cause: Cause,
}

/// See the module. What is told of a row that is not known is passed over: it ended before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leases {
    config: LeaseConfig,
    rows: BTreeMap<RowId, Lease>,
}

impl Leases {
    #[must_use]
    pub const fn new(config: LeaseConfig) -> Self {
        Self {
            config,
            rows: BTreeMap::new(),
        }
    }

    pub fn submitted(&mut self, now: Tick, id: RowId, prompt_tokens: u32, output_tokens_max: u32) {
        let lease = Lease {
            progress: Progress::Admission(now + self.config.admission),
            reads_until: None,
            ceiling: now + self.config.ceiling(prompt_tokens, output_tokens_max),
        };
        let previous = self.rows.insert(id, lease);
        assert_eq!(previous, None, "a row is submitted once");
    }

    /// The row entered a slot, for the first time or again, or a piece of its prompt was computed.
    pub fn prefilled(&mut self, now: Tick, id: RowId) {
        let until = now + self.config.prefill;
        self.progressed(now, id, until, Progress::Prefill);
    }

    /// The row got a token.
    pub fn decoded(&mut self, now: Tick, id: RowId) {
        let until = now + self.config.decode;
        self.progressed(now, id, until, Progress::Decode);
    }

    /// The row lost what was computed. The admission lease does not come back.
    pub fn preempted(&mut self, now: Tick, id: RowId) {
        self.prefilled(now, id);
    }

    pub fn paused(&mut self, now: Tick, id: RowId) {
        let Some(lease) = self.rows.get_mut(&id) else {
            return;
        };
        lease
            .reads_until
            .get_or_insert(now + self.config.backpressure);
        lease.map_clock(|clock| match clock {
            Clock::Running { until } => Clock::Stopped {
                left: until.since(now),
            },
            Clock::Stopped { .. } => clock,
        });
    }

    pub fn resumed(&mut self, now: Tick, id: RowId) {
        let Some(lease) = self.rows.get_mut(&id) else {
            return;
        };
        lease.reads_until = None;
        lease.map_clock(|clock| match clock {
            Clock::Stopped { left } => Clock::Running { until: now + left },
            Clock::Running { .. } => clock,
        });
    }

    /// The row is gone, for whatever reason.
    pub fn ended(&mut self, id: RowId) {
        self.rows.remove(&id);
    }

    /// Appends the rows whose time is up, in order of their ids, and forgets them.
    pub fn expire(&mut self, now: Tick, out: &mut Vec<Expired>) {
        self.rows.retain(|&row, lease| {
            let (until, cause) = lease.next();
            if until <= now {
                out.push(Expired { row, cause });
            }
            until > now
        });
    }

    /// When the first row runs out of time if nothing happens, and of what.
    #[must_use]
    pub fn next_deadline(&self) -> Option<(Tick, Cause)> {
        self.rows.values().map(Lease::next).min()
    }

    fn progressed(
        &mut self,
        now: Tick,
        id: RowId,
        until: Tick,
        progress: impl FnOnce(Clock) -> Progress,
    ) {
        if let Some(lease) = self.rows.get_mut(&id) {
            lease.progress = progress(match lease.reads_until {
                None => Clock::Running { until },
                Some(_) => Clock::Stopped {
                    left: until.since(now),
                },
            });
        }
    }
}

impl Lease {
    fn map_clock(&mut self, change: impl FnOnce(Clock) -> Clock) {
        self.progress = match self.progress {
            Progress::Admission(until) => Progress::Admission(until),
            Progress::Decode(clock) => Progress::Decode(change(clock)),
            Progress::Prefill(clock) => Progress::Prefill(change(clock)),
        };
    }
}

/// Watches one step at a time. Small and by value: whoever watches is another thread than the one
/// that is stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Watchdog {
    limit: Span,
    since: Option<Tick>,
}

impl Watchdog {
    /// The published engine's. A step that takes longer is held to have hung, and all rows wait for it.
    pub const REFERENCE_LIMIT: Span = Span::secs(30);
    pub const REFERENCE: Self = Self::new(Self::REFERENCE_LIMIT);
    /// How often to look.
    pub const POLL_EVERY: Span = Span::millis(250);

    #[must_use]
    pub const fn new(limit: Span) -> Self {
        Self { limit, since: None }
    }

    pub const fn step_began(&mut self, now: Tick) {
        self.since = Some(now);
    }

    pub const fn step_ended(&mut self) {
        self.since = None;
    }

    /// The step under way has taken too long: the engine is not healthy, and every row ends with
    /// [`Cause::Watchdog`].
    #[must_use]
    pub fn is_stuck(&self, now: Tick) -> bool {
        self.since
            .is_some_and(|since| now.since(since) >= self.limit)
    }
}
