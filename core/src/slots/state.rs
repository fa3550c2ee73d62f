//! The states of a slot as a heartbeat shows them, and which of them may follow one another.

/// The state of a model that is or was in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SlotState {
    /// Its engine is dead or suspect.
    Crashed,
    /// Loaded, and nothing runs.
    Idle,
    /// Its weights were dropped; it comes back when asked for.
    IdleShutdown,
    /// Loading, recovering, or on its way out.
    Reloading,
    /// Loaded, and at least one request runs.
    Running,
}

impl SlotState {
    pub const ALL: [Self; 5] = [
        Self::Crashed,
        Self::Idle,
        Self::IdleShutdown,
        Self::Reloading,
        Self::Running,
    ];

    /// The word of the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Crashed => "crashed",
            Self::Idle => "idle",
            Self::IdleShutdown => "idle_shutdown",
            Self::Reloading => "reloading",
            Self::Running => "running",
        }
    }

    #[must_use]
    pub const fn is_warm(self) -> bool {
        match self {
            Self::Idle | Self::Running => true,
            Self::Crashed | Self::IdleShutdown | Self::Reloading => false,
        }
    }
}

/// Whether a slot that showed `from` may show `to` next; `None` is a model without a slot.
///
/// A model is loaded, idles and runs in turn, is dropped when idle for long, and is reloaded after a crash.
/// Besides, a load may come to nothing, an engine may die with nothing running, and a suspect one may go on
/// after all.
pub(super) const fn may_follow(from: Option<SlotState>, to: Option<SlotState>) -> bool {
    use SlotState::{Crashed, Idle, IdleShutdown, Reloading, Running};
    let Some(from) = from else {
        return matches!(to, Some(Reloading));
    };
    match from {
        Crashed => matches!(to, Some(Idle | Reloading | Running)),
        Idle => matches!(to, Some(Crashed | IdleShutdown | Running)),
        IdleShutdown => matches!(to, Some(Reloading)),
        Reloading => matches!(to, None | Some(Idle)),
        Running => matches!(to, Some(Crashed | Idle)),
    }
}
