//! Models that are kept in memory: loads are ordered, watched, and ordered elsewhere.

use super::Coordinator;
use super::fleet::LoadEnd;
use super::timers::{Armed, Due};
use crate::effect::{Effect, Effects};
use crate::ids::{ConnId, ModelIx};
use crate::slab::Key;
use crate::time::Tick;

impl Coordinator {
    /// After each step: where too few machines have a model in memory, others are told to load it.
    pub(super) fn order_loads(&mut self, now: Tick, out: &mut Effects) {
        while let Some(model) = self.fleet.take_short() {
            if self.is_draining {
                continue;
            }
            while let Some(placed) = self.fleet.place_load(now, model, &self.config) {
                let due = Due::Load(self.fleet.key(placed.provider));
                if self.timers.set(placed.look_at, due) == Armed::NoRoom {
                    // Nobody would notice that it never ended. The next change tries again.
                    let slot = placed.provider;
                    self.fleet.end_load(now, slot, model, LoadEnd::Failed);
                    return;
                }
                self.counts.loads_ordered += 1;
                let conn = placed.conn;
                out.push(Effect::LoadModel { conn, model });
            }
        }
    }

    pub(super) fn on_load_ended(
        &mut self,
        now: Tick,
        conn: ConnId,
        model: ModelIx,
        end: LoadEnd,
        out: &mut Effects,
    ) {
        let Some(slot) = self.known(conn) else { return };
        if !self.fleet.end_load(now, slot, model, end) {
            self.counts.loads_unasked += 1;
            return;
        }
        if let (LoadEnd::Loaded, Some(spec)) = (end, self.config.catalog.spec(model)) {
            self.fleet.debit_load(slot, spec.weights_bytes);
        }
        self.time_loads(slot);
        self.fleet.refresh(slot, &self.config);
        self.fill(now, slot, out);
    }

    pub(super) fn on_load_overdue(&mut self, now: Tick, key: Key) {
        if self.fleet.is_here(key) {
            self.fleet.expire_loads(now, key.slot);
            self.time_loads(key.slot);
            self.fleet.refresh(key.slot, &self.config);
        }
    }

    /// A rest that nobody times is over with the connection.
    fn time_loads(&mut self, slot: u32) {
        let due = Due::Load(self.fleet.key(slot));
        match self.fleet.loads_end_at(slot) {
            Some(at) => drop(self.timers.set(at, due)),
            None => self.timers.clear(due),
        }
    }
}
