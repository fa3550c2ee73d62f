//! Which models a provider has in memory.
//!
//! [`Slots`] decides what is loaded for a request or an order, which idle model goes for it, what
//! each model may spend on keys and values, and when a model that nobody uses or that no longer
//! answers is dropped. It loads nothing itself: the provider's
//! shell measures, loads and unloads as the effects say, and reports back. At most one load and one
//! unload are under way at any time.

mod gate;
mod grants;
mod health;
mod machine;
mod parts;
mod pressure;
mod refusal;
mod state;

#[cfg(test)]
mod tests;

use crate::memory::{KvRate, MemoryCap, MemoryFacts};
use crate::time::Span;

pub use self::machine::{Slots, SlotsCounts};
pub use self::pressure::{PressureLimits, Strain};
pub use self::refusal::{Others, Refusal};
pub use self::state::SlotState;

/// Models in memory at once, unless the operator says otherwise: each takes from what the others may
/// spend on keys and values.
pub const SLOTS_MAX: u8 = 3;
/// After so long without a request a model leaves the memory: its owner may want it back.
pub const IDLE_WAIT: Span = Span::secs(3_600);
/// A request waits no longer than this for its model: the coordinator, which waits as long for first
/// content, has given up by then.
pub const WAIT_MAX: Span = Span::secs(600);
/// An unload that takes longer than this keeps its memory, and the others go on.
pub const UNLOAD_WAIT_MAX: Span = Span::secs(180);
/// Between two looks at memory and engines.
pub const MEASURE_EVERY: Span = Span::secs(5);
/// Requests without a first token that make a silent engine suspect. One may have a long prompt.
pub const WEDGE_JOBS: usize = 3;
/// For so long the oldest of them has waited and no step was made.
pub const WEDGE_WAIT: Span = Span::secs(10);
/// A suspect engine that makes no step for this long is given up. On a CPU a single step over a
/// long prompt takes longer than the suspicion needs.
pub const RECOVERY_WAIT: Span = Span::secs(120);
/// A model that is given up again within this time is not loaded again before somebody asks.
pub const RECOVERY_EVERY: Span = Span::secs(600);

/// Position of a model in the provider's own list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BuildIx(pub u16);

/// A request, as its caller names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u128);

/// A model that can be served here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BuildSpec {
    /// Size of the weight files.
    pub weights_bytes: u64,
    /// `None` when nothing is known of it.
    pub kv: Option<KvRate>,
    pub keep: Keep,
    pub offer: Offer,
}

/// Whether a model may serve at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Offer {
    /// Its chat template failed its self-check, so it would fail in front of a consumer.
    Fenced,
    Open,
}

/// Whether a model may leave the memory for want of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Keep {
    Pinned,
    WhileUsed,
}

/// What the machine is told at birth.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SlotsConfig {
    pub cap: MemoryCap,
    pub builds: Vec<BuildSpec>,
    pub slots_max: u8,
    /// Zero: a model stays for ever.
    pub idle_wait: Span,
    /// Requests waiting or running, over all models.
    pub jobs_max: u16,
    pub pressure: PressureLimits,
}

/// What the shell found when it was told to measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Measured {
    pub memory: MemoryFacts,
    /// Bytes for keys and values that the engines have promised to their rows.
    pub reserved_bytes: u64,
    pub strain: Strain,
}

/// Why a load came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LoadFault {
    /// Its files are not those that were announced, or changed while they were read.
    Changed,
    Failed,
}

/// Something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotsEvent {
    /// A request for a model came. `Accept` or `Refuse` follows soon, and after `Accept` in its time
    /// `Ready` or `Refuse`.
    Asked {
        job: JobId,
        build: BuildIx,
    },
    CacheCleared,
    /// The request is over, or nobody waits for it any more.
    JobEnded {
        job: JobId,
    },
    /// The request has its first token.
    JobSpoke {
        job: JobId,
    },
    /// Somebody wants this model in memory. `Loaded` or `LoadRefused` follows.
    LoadAsked {
        build: BuildIx,
        eviction: Eviction,
    },
    /// The answer to `BeginLoad`.
    LoadEnded {
        build: BuildIx,
        fault: Option<LoadFault>,
    },
    /// The answer to `Measure`, after one `Watched` for each loaded model.
    Measured(Measured),
    /// The owner wants the memory back: what nobody uses goes now, and whatever is loaded goes when
    /// nobody uses it any more.
    RestBegan,
    RestEnded,
    /// The answer to `BeginUnload`.
    Unloaded {
        build: BuildIx,
    },
    /// What a loaded model's engine shows of itself.
    Watched {
        build: BuildIx,
        engine: EngineSign,
        steps: u64,
    },
    Woke,
}

/// Whether idle models may go for a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Eviction {
    Allowed,
    /// As at the start of the process: what does not fit beside the others stays out.
    Forbidden,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EngineSign {
    Alive,
    /// Its thread is gone; it will never answer.
    Dead,
}

/// How a model is to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leave {
    /// Its engine does not answer: let go of it without waiting for what it runs.
    Abandoned,
    /// Nothing runs on it.
    Idle,
}

/// What the shell does, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotsEffect {
    /// Tell the job's owner that it is accepted: it runs, or waits for a load for which there is
    /// room. Once for each job, before
    /// `Ready`; a `Refuse` without it comes at once.
    Accept { job: JobId },
    /// Load the model, with so much memory for keys and values; then say `LoadEnded`.
    BeginLoad { build: BuildIx, grant_bytes: u64 },
    /// Drop the model and its engine; then say `Unloaded`.
    BeginUnload { build: BuildIx, leave: Leave },
    /// Give the engine library's spare memory back; then say `CacheCleared`.
    ClearBufferCache,
    /// The model is in memory: the answer to `LoadAsked`, and said of loads for requests as well.
    Loaded { build: BuildIx },
    /// The other answer to `LoadAsked`.
    LoadRefused { build: BuildIx, why: Refusal },
    /// Say `Watched` for each loaded model and then `Measured`, at once.
    Measure,
    /// Run the job: its model is in memory.
    Ready { job: JobId, build: BuildIx },
    /// The job will not run; if it does already, it is to be ended.
    Refuse { job: JobId, why: Refusal },
    /// The state of a slot changed: send a heartbeat soon, so that the coordinator routes by it.
    Report,
    /// The model may spend this much on keys and values from now on.
    SetGrant { build: BuildIx, bytes: u64 },
}

const _: () = assert!(size_of::<SlotsEffect>() <= 64, "effects travel by value");

/// Why the slots want to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SlotsWake {
    IdleDue,
    MeasureDue,
    UnloadOverdue,
    WaitOverdue,
}

impl SlotsWake {
    pub const ALL: [Self; 4] = [
        Self::IdleDue,
        Self::MeasureDue,
        Self::UnloadOverdue,
        Self::WaitOverdue,
    ];
}

/// What a heartbeat says of one model, as far as the slots know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotView {
    pub build: BuildIx,
    pub state: SlotState,
    pub is_suspect: bool,
    pub grant_bytes: u64,
    /// How long its last load took; zero before the first.
    pub load_time: Span,
    /// Since its engine was last seen to make a step, while it is loaded.
    pub since_step: Option<Span>,
}
