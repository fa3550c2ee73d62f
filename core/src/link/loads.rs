//! Models that were ordered into memory and have not been heard of: an order is not repeated meanwhile.

use crate::ids::ModelIx;
use crate::time::Tick;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Ordered,
    /// Not to be ordered again yet.
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Load {
    model: ModelIx,
    until: Tick,
    phase: Phase,
}

/// At most one entry for each model; the catalogue bounds it.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Loads {
    list: Vec<Load>,
}

impl Loads {
    /// Whether an order may go out now.
    pub(super) fn may_order(&self, now: Tick, model: ModelIx) -> bool {
        !self
            .list
            .iter()
            .any(|load| load.model == model && load.until > now)
    }

    pub(super) fn ordered(&mut self, model: ModelIx, until: Tick) {
        self.note(model, until, Phase::Ordered);
    }

    pub(super) fn refused(&mut self, model: ModelIx, until: Tick) {
        self.note(model, until, Phase::Refused);
    }

    /// Takes a live order back; `false`: nobody asked for this.
    pub(super) fn settle(&mut self, now: Tick, model: ModelIx) -> bool {
        let found = self.list.iter().position(|load| {
            load.model == model && load.phase == Phase::Ordered && load.until > now
        });
        found.map(|ix| self.list.remove(ix)).is_some()
    }

    fn note(&mut self, model: ModelIx, until: Tick, phase: Phase) {
        self.list.retain(|load| load.model != model);
        self.list.push(Load {
            model,
            until,
            phase,
        });
    }
}
