//! The control plane: who is here, who may enter, who serves, who pays.

use crate::config::Config;
use crate::effect::Effects;
use crate::event::Event;
use crate::time::Tick;

/// Why the coordinator wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WakeReason {
    AcceptOverdue,
    ChallengeExpired,
    FirstContentOverdue,
    IdleOverdue,
    QueueOverdue,
}

/// The shell broke the contract. The state is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misuse {
    /// `Persisted` ran ahead of what was posted.
    PersistedUnposted,
    /// Time went back.
    TimeWentBack,
    /// A model index outside the catalogue.
    UnknownModel,
    /// The connection id was used before.
    ConnReused,
    /// An account was opened twice.
    AccountReopened,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Coordinator {
    config: Config,
}

impl Coordinator {
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config }
    }

    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// One thing happened; here is all that follows. `out` is appended to, in causal order.
    pub fn step(
        &mut self,
        _now: Tick,
        _event: &Event<'_>,
        _out: &mut Effects,
    ) -> Result<(), Misuse> {
        Ok(())
    }

    /// The next moment at which `Event::Woke` should come, and why. An early or spurious wake is
    /// harmless.
    #[must_use]
    pub fn next_wake(&self) -> Option<(Tick, WakeReason)> {
        None
    }

    /// Equal digests mean: the same events, the same effects, the same state.
    #[must_use]
    pub fn digest(&self) -> u128 {
        0
    }
}
