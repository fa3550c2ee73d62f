//! What must hold after every simulated step, judged from outside.
//!
//! Each oracle is a model of its own, fed with what went in and what came out; none looks into the
//! core's state. [`Watch`] asks them all.

mod fleet;
mod money;
mod requests;
mod shadow;
mod terminals;
#[cfg(test)]
mod tests;

use cereus_core::coordinator::Coordinator;
use cereus_core::effect::{Effect, Effects};
use cereus_core::event::Event;
use cereus_core::ids::ConnId;
use cereus_core::time::Tick;
use thiserror::Error;

pub use fleet::{ANSWERED_FOR, FleetModel};
pub use money::MoneyModel;
pub use requests::RequestModel;
pub use shadow::Shadow;
pub use terminals::Terminals;

/// A broken law.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{law}: {what}")]
pub struct Violation {
    /// Number of the invariant.
    pub law: &'static str,
    pub what: String,
}

/// Says that `law` is broken unless `holds`.
pub fn require(
    holds: bool,
    law: &'static str,
    what: impl FnOnce() -> String,
) -> Result<(), Violation> {
    if holds {
        return Ok(());
    }
    Err(Violation { law, what: what() })
}

/// Who really spoke: the simulator knows, whatever the event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Connection(ConnId),
    Inside,
}

/// All oracles over one life of a coordinator.
#[derive(Clone, Debug)]
pub struct Watch {
    pub fleet: FleetModel,
    pub requests: RequestModel,
    shadow: Shadow,
}

impl Watch {
    /// `core` is fresh.
    #[must_use]
    pub fn new(core: &Coordinator) -> Self {
        Self {
            fleet: FleetModel::new(&core.config().limits),
            requests: RequestModel::new(&core.config().limits),
            shadow: Shadow::new(core.clone()),
        }
    }

    /// `event` went into `core`, `out` came out of that one step.
    pub fn step(
        &mut self,
        now: Tick,
        origin: Origin,
        event: &Event<'_>,
        out: &Effects,
        core: &Coordinator,
        money: &mut MoneyModel,
    ) -> Result<(), Violation> {
        let has_force = self.fleet.has_force(origin, event) && self.requests.has_force(event);
        if let Event::Persisted { up_to } = event {
            money.persist(*up_to)?;
        }
        self.fleet.enter(now, origin, event, out);
        self.requests.enter(event)?;
        self.shadow.step(now, event, has_force, out)?;
        for effect in &out.list {
            self.fleet.effect(now, effect)?;
            if let Effect::Post { transfer } = effect {
                money.post(&out.transfers[*transfer as usize])?;
            }
            self.requests.effect(effect, out, money, &self.fleet)?;
        }
        self.fleet.require_open(now, origin, event, core)?;
        self.counts(core)
    }

    /// INV-01, INV-23: as many requests and connections as the models know.
    fn counts(&self, core: &Coordinator) -> Result<(), Violation> {
        let providers = core.gauges().providers;
        require(providers == self.fleet.count(), "INV-23", || {
            format!(
                "the core knows {providers} connections, {} are alive",
                self.fleet.count()
            )
        })?;
        let counts = core.counts();
        let ended = counts.finished + counts.refused + counts.failed;
        require(counts.arrived == self.requests.arrived(), "INV-01", || {
            format!(
                "{} arrived, the core counts {}",
                self.requests.arrived(),
                counts.arrived
            )
        })?;
        require(ended == self.requests.ended(), "INV-01", || {
            format!("{} ended, the core counts {ended}", self.requests.ended())
        })
    }

    /// After everything has ended.
    pub fn quiescent(&self, core: &Coordinator, money: &MoneyModel) -> Result<(), Violation> {
        require(self.requests.open() == 0, "INV-15", || {
            format!("{} requests never ended", self.requests.open())
        })?;
        require(core.gauges().requests == 0, "INV-15", || {
            format!("the core keeps {} requests", core.gauges().requests)
        })?;
        require(core.books().held().0 == 0, "INV-04", || {
            format!(
                "the core holds {} after all has ended",
                core.books().held().0
            )
        })?;
        money.quiescent()
    }
}
