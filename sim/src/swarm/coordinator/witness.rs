//! The oracles, looking over the control half's shoulder.

use cereus_core::coordinator::{Coordinator, Misuse};
use cereus_core::effect::Effects;
use cereus_core::event::Event;
use cereus_core::exchange::Witness;
use cereus_core::time::Tick;

use super::recording::Recording;
use crate::oracle::{MoneyModel, Origin, Violation, Watch, require};
use crate::swarm::Observer;
use crate::swarm::marks::Marker;

/// See the module. Keeps the first broken law.
pub(super) struct Oracles<'a> {
    pub(super) watch: &'a mut Watch,
    pub(super) money: &'a mut MoneyModel,
    /// Who really speaks. What the first event gives rise to comes from inside.
    pub(super) origin: Option<Origin>,
    pub(super) observer: Option<Observer>,
    pub(super) marker: &'a mut Marker,
    pub(super) recording: Option<&'a mut Recording>,
    pub(super) steps: u64,
    pub(super) verdict: Result<(), Violation>,
}

impl Witness for Oracles<'_> {
    fn before(&mut self, now: Tick, event: &Event<'_>) {
        if let Some(recording) = &mut self.recording {
            recording.before(now, event);
        }
    }

    fn after(
        &mut self,
        now: Tick,
        event: &Event<'_>,
        stepped: Result<(), Misuse>,
        effects: &Effects,
        core: &Coordinator,
    ) {
        self.steps += 1;
        if let Some(observer) = self.observer {
            observer(now, event, effects);
        }
        self.marker.see(event, effects, core);
        if let Some(recording) = &mut self.recording {
            recording.after(effects, core);
        }
        let origin = self.origin.take().unwrap_or(Origin::Inside);
        if self.verdict.is_err() {
            return;
        }
        self.verdict = require(stepped.is_ok(), "INV-16", || {
            format!("{stepped:?} after {event:?}")
        })
        .and_then(|()| {
            self.watch
                .step(now, origin, event, effects, core, self.money)
        });
        core.check();
    }
}
