//! Providers come, prove themselves, report and go.

use super::attempt::Remains;
use super::fleet::{Handover, Identity, NIL, Stocked};
use super::{Coordinator, Due, Mischief};
use crate::effect::{Alarm, Effect, Effects};
use crate::event::{
    AttemptFault, GoneCause, MachineReport, MachineSpec, SlotReport, SlotState, Trust,
};
use crate::ids::{ConnId, MachineId, ModelIx};
use crate::slab::Key;
use crate::time::Tick;

/// Connections that may claim one machine at a time: the one that works, and newcomers that have
/// not proven themselves. The oldest of these makes room for another.
const CONNECTIONS_PER_MACHINE_MAX: usize = 4;

impl Coordinator {
    /// A newcomer stands beside the connection that its machine has until it has answered its
    /// challenge: anybody can repeat what a machine said when it registered.
    pub(super) fn on_joined(
        &mut self,
        now: Tick,
        id: Identity,
        trust: Trust,
        spec: MachineSpec,
        models: &[ModelIx],
        out: &mut Effects,
    ) {
        self.make_way(now, id.machine, out);
        let Some(slot) = self.fleet.join(now, id, trust, spec) else {
            alarm(Alarm::ProvidersFull, out);
            out.push(Effect::Disconnect {
                conn: id.conn,
                cause: GoneCause::Closed,
            });
            return;
        };
        self.time_bar(slot);
        self.time_report(now, slot);
        self.stock(slot, models, out);
    }

    pub(super) fn on_restocked(
        &mut self,
        now: Tick,
        conn: ConnId,
        models: &[ModelIx],
        out: &mut Effects,
    ) {
        let Some(slot) = self.known(conn) else { return };
        self.stock(slot, models, out);
        self.fill(now, slot, out);
    }

    fn stock(&mut self, slot: u32, models: &[ModelIx], out: &mut Effects) {
        if self.fleet.restock(slot, models, &self.config.limits) == Stocked::InPart {
            alarm(Alarm::ModelsCut, out);
        }
        self.fleet.refresh(slot, &self.config);
    }

    pub(super) fn on_verified(&mut self, now: Tick, conn: ConnId, out: &mut Effects) {
        let Some(slot) = self.known(conn) else { return };
        if self.fleet.is_distrusted(slot) {
            return;
        }
        if !self.fleet.providers.at(slot).is_proven {
            self.fleet.prove(slot);
            if self.take_over(now, slot, out) == Handover::Contested {
                return;
            }
        }
        let key = self.fleet.providers.key_at(slot);
        let until = now + self.config.limits.challenge_fresh_max;
        let old = self.fleet.providers.at(slot).challenge_timer;
        self.wheel.cancel(old);
        // A proof whose age nobody would notice is none.
        let timer = self.arm(until, Due::Challenge(key));
        let provider = self.fleet.providers.at_mut(slot);
        provider.is_verified = timer.is_some();
        provider.challenge_timer = timer.unwrap_or(Key::NONE);
        self.fleet.refresh(slot, &self.config);
        self.fill(now, slot, out);
    }

    /// Closes the older connections of a machine that has proven itself on a newer one. When that
    /// happens too often, two processes share the identity: the newer one is told and goes.
    fn take_over(&mut self, now: Tick, slot: u32, out: &mut Effects) -> Handover {
        let machine = self.fleet.providers.at(slot).machine;
        let connections = self.fleet.connections(machine);
        let older: Vec<u32> = connections
            .iter()
            .copied()
            .take_while(|&other| other != slot)
            .collect();
        let has_worked = |&other: &u32| self.fleet.providers.at(other).is_proven;
        if older.iter().any(has_worked) && self.fleet.hand_over(now, slot) == Handover::Contested {
            alarm(Alarm::IdentityContested, out);
            self.disconnect(now, slot, GoneCause::Contested, out);
            return Handover::Contested;
        }
        for other in older {
            self.disconnect(now, other, GoneCause::Replaced, out);
        }
        Handover::Allowed
    }

    /// Makes room for one more connection of a machine.
    fn make_way(&mut self, now: Tick, machine: MachineId, out: &mut Effects) {
        let connections = self.fleet.connections(machine);
        if connections.len() < CONNECTIONS_PER_MACHINE_MAX {
            return;
        }
        let is_unproven = |other: &u32| !self.fleet.providers.at(*other).is_proven;
        // A proven one closed all before it, so at most the first is proven.
        let oldest = connections.iter().copied().find(is_unproven);
        let oldest = oldest.expect("at most one connection of a machine is proven");
        self.disconnect(now, oldest, GoneCause::Replaced, out);
    }

    fn disconnect(&mut self, now: Tick, slot: u32, cause: GoneCause, out: &mut Effects) {
        let conn = self.fleet.providers.at(slot).conn;
        out.push(Effect::Disconnect { conn, cause });
        self.remove(now, slot, out);
    }

    pub(super) fn on_unverified(&mut self, conn: ConnId) {
        let Some(slot) = self.known(conn) else { return };
        self.fleet.providers.at_mut(slot).is_verified = false;
        self.fleet.refresh(slot, &self.config);
    }

    pub(super) fn on_challenge_expired(&mut self, key: Key) {
        let Some(provider) = self.fleet.providers.get_mut(key) else {
            return;
        };
        provider.is_verified = false;
        provider.challenge_timer = Key::NONE;
        self.fleet.refresh(key.slot, &self.config);
    }

    /// The verdict is hard: nothing more goes there, and what is there moves on (INV-07).
    pub(super) fn on_distrusted(&mut self, now: Tick, conn: ConnId, out: &mut Effects) {
        let Some(slot) = self.known(conn) else { return };
        self.fleet.distrust(slot);
        self.fleet.refresh(slot, &self.config);
        self.abandon_attempts(now, slot, Tell::Cancel, out);
    }

    pub(super) fn on_reported(
        &mut self,
        now: Tick,
        conn: ConnId,
        report: &MachineReport,
        slots: &[SlotReport],
        out: &mut Effects,
    ) {
        let Some(slot) = self.known(conn) else { return };
        self.counts.reports += 1;
        let accepts_stale = self.mischief == Mischief::StaleReport;
        if !self.fleet.report(now, slot, report, slots, accepts_stale) {
            self.counts.stale_reports += 1;
            return;
        }
        self.fleet.serve_bar(now, slot);
        if self.fleet.providers.at(slot).report_timer == Key::NONE {
            self.time_report(now, slot);
        }
        self.fleet.refresh(slot, &self.config);
        self.fill(now, slot, out);
    }

    /// One timer a provider: when it fires, it looks at what was reported since.
    fn time_report(&mut self, now: Tick, slot: u32) {
        let until = self.fleet.age(now, slot);
        let key = self.fleet.providers.key_at(slot);
        let old = self.fleet.providers.at(slot).report_timer;
        self.wheel.cancel(old);
        let timer = until.and_then(|until| self.arm(until, Due::Report(key)));
        if timer.is_none() {
            self.fleet.presume_stale(slot);
        }
        self.fleet.providers.at_mut(slot).report_timer = timer.unwrap_or(Key::NONE);
    }

    pub(super) fn on_report_aged(&mut self, now: Tick, key: Key) {
        if self.fleet.providers.get(key).is_some() {
            self.time_report(now, key.slot);
            self.fleet.refresh(key.slot, &self.config);
        }
    }

    /// Nobody in good standing serves these models any more: barred machines may take what waits.
    pub(super) fn fall_back(&mut self, now: Tick, out: &mut Effects) {
        while let Some(model) = self.fleet.take_bare() {
            for at in 0..self.fleet.supply(model).last_resort.len() {
                let barred = self.fleet.supply(model).last_resort.get(at).copied();
                let Some(offer) = barred else { break };
                let slot = self.fleet.offers.at(offer).provider;
                self.fill(now, slot, out);
            }
        }
    }

    pub(super) fn on_left(&mut self, now: Tick, conn: ConnId, out: &mut Effects) {
        let Some(slot) = self.known(conn) else { return };
        self.remove(now, slot, out);
    }

    pub(super) fn on_loaded(
        &mut self,
        now: Tick,
        conn: ConnId,
        model: ModelIx,
        state: SlotState,
        out: &mut Effects,
    ) {
        let Some(slot) = self.known(conn) else { return };
        let Some(offer) = self.fleet.offer_of(slot, model) else {
            return;
        };
        self.fleet.loaded(offer, state);
        self.fleet.refresh(slot, &self.config);
        self.fill(now, slot, out);
    }

    /// The one way out of the fleet.
    fn remove(&mut self, now: Tick, slot: u32, out: &mut Effects) {
        // Closed to new work first, so that what moves on does not come back here.
        self.fleet.distrust(slot);
        self.fleet.refresh(slot, &self.config);
        self.abandon_attempts(now, slot, Tell::Nothing, out);
        let provider = self.fleet.providers.at(slot);
        for timer in [
            provider.bar_timer,
            provider.challenge_timer,
            provider.report_timer,
        ] {
            self.wheel.cancel(timer);
        }
        self.fleet.leave(now, slot);
    }

    fn abandon_attempts(&mut self, now: Tick, slot: u32, tell: Tell, out: &mut Effects) {
        loop {
            let first = self.fleet.providers.at(slot).first_attempt;
            if first == NIL {
                return;
            }
            let key = self.attempts.key_at(first);
            if tell == Tell::Cancel {
                self.send_cancel(key, out);
            }
            let attempt = self.take_attempt(key, Remains::Lingers);
            self.after_fault(now, &attempt, AttemptFault::Unsent, out);
        }
    }

    fn known(&mut self, conn: ConnId) -> Option<u32> {
        let found = self.fleet.find(conn);
        if found.is_none() {
            self.counts.stale_events += 1;
        }
        found
    }
}

fn alarm(alarm: Alarm, out: &mut Effects) {
    out.push(Effect::Alarm { alarm, count: 1 });
}

/// Whether the provider is still there to be told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tell {
    Cancel,
    Nothing,
}
