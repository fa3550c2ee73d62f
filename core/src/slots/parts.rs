//! What a machine keeps of each model and each request, and of the load and the unload under way.

use super::health::Health;
use super::state::SlotState;
use super::{BuildIx, Eviction, Refusal};
use crate::time::{Span, Tick};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Build {
    pub(super) phase: Phase,
    /// The state that heartbeats last showed of it, so that a change is reported once.
    pub(super) shown: Option<SlotState>,
    pub(super) in_flight: u32,
    pub(super) used_at: Tick,
    pub(super) grant_bytes: u64,
    pub(super) load_time: Span,
    pub(super) recovered_at: Option<Tick>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    Cold(Past),
    /// Its weights are coming in, or are in and not yet measured.
    Loading,
    /// Its engine was given up and its weights are gone; it is to be loaded again.
    Recovering,
    Resident(Health),
    Unloading(Departure),
}

/// Why a model is not in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Past {
    NeverLoaded,
    ShutDown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Departure {
    /// The load succeeded and left too little memory for keys and values to serve with.
    Discarded,
    /// It makes room for another model, or nobody used it for long.
    Dropped,
    /// Its engine was dead, or suspect for too long.
    Lost,
    /// Its unload takes longer than [`super::UNLOAD_WAIT_MAX`]: its memory counts as taken, and the
    /// others go on without it.
    Overdue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Job {
    pub(super) build: BuildIx,
    pub(super) stage: Stage,
    pub(super) is_accepted: bool,
    /// Order of arrival.
    pub(super) seq: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    Running { since: Tick, has_token: bool },
    Waiting { until: Tick },
}

/// A model that is to be loaded and waits until no other load is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Want {
    pub(super) build: BuildIx,
    pub(super) eviction: Eviction,
    /// Somebody other than a request waits for the outcome.
    pub(super) owes_answer: bool,
}

/// The one load that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Work {
    pub(super) want: Want,
    pub(super) stage: LoadStage,
    pub(super) is_cache_cleared: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum LoadStage {
    /// Waits to hear how much is free.
    Asking,
    Clearing,
    Discarding(Refusal),
    Evicting,
    Filling {
        since: Tick,
    },
    /// The weights are in; the next measurement says whether enough is left for keys and values.
    Guarding,
}

/// The unload that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leaving {
    pub(super) build: BuildIx,
    pub(super) overdue_at: Tick,
}
