//! Providers come, prove themselves, report and go.

use super::attempt::Remains;
use super::fleet::NIL;
use super::{Coordinator, Due, Mischief};
use crate::effect::{Alarm, Effect, Effects};
use crate::event::{
    AttemptFault, GoneCause, MachineReport, MachineSpec, SlotReport, SlotState, Trust,
};
use crate::ids::{AccountId, ConnId, MachineId, ModelIx};
use crate::slab::Key;
use crate::time::Tick;

/// Who joins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    pub(super) conn: ConnId,
    pub(super) machine: MachineId,
    pub(super) owner: AccountId,
}

impl Coordinator {
    pub(super) fn on_joined(
        &mut self,
        now: Tick,
        id: Identity,
        trust: Trust,
        spec: MachineSpec,
        models: &[ModelIx],
        out: &mut Effects,
    ) {
        let Identity {
            conn,
            machine,
            owner,
        } = id;
        // The newest connection of a machine wins; its predecessor is named by place, so a late
        // goodbye of the old one cannot touch the new one.
        let older = self
            .fleet
            .machines
            .get(&machine)
            .map_or(NIL, |record| record.live);
        if older != NIL {
            let older_conn = self.fleet.providers.at(older).conn;
            out.push(Effect::Disconnect {
                conn: older_conn,
                cause: GoneCause::Replaced,
            });
            self.remove(now, older, out);
        }
        let Some(slot) = self.fleet.join(conn, machine, owner, trust, spec) else {
            out.push(Effect::Alarm {
                alarm: Alarm::ProvidersFull,
                count: 1,
            });
            out.push(Effect::Disconnect {
                conn,
                cause: GoneCause::Closed,
            });
            return;
        };
        self.fleet.restock(slot, models, &self.config.limits);
        self.fleet.refresh(slot, &self.config);
    }

    pub(super) fn on_restocked(
        &mut self,
        now: Tick,
        conn: ConnId,
        models: &[ModelIx],
        out: &mut Effects,
    ) {
        let Some(slot) = self.known(conn) else { return };
        self.fleet.restock(slot, models, &self.config.limits);
        self.fleet.refresh(slot, &self.config);
        self.fill(now, slot, out);
    }

    pub(super) fn on_verified(&mut self, now: Tick, conn: ConnId, out: &mut Effects) {
        let Some(slot) = self.known(conn) else { return };
        if self.fleet.is_distrusted(slot) {
            return;
        }
        let key = self.fleet.providers.key_at(slot);
        let until = now + self.config.limits.challenge_fresh_max;
        let provider = self.fleet.providers.at_mut(slot);
        provider.is_verified = true;
        self.wheel.cancel(provider.challenge_timer);
        // Without a place on the wheel the provider stays verified until it leaves.
        let timer = self.wheel.arm(until, Due::Provider(key));
        self.fleet.providers.at_mut(slot).challenge_timer = timer.unwrap_or(Key::NONE);
        self.fleet.refresh(slot, &self.config);
        self.fill(now, slot, out);
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
        self.fleet.refresh(slot, &self.config);
        self.fill(now, slot, out);
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
        let timer = self.fleet.providers.at(slot).challenge_timer;
        self.wheel.cancel(timer);
        self.fleet.leave(slot);
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

/// Whether the provider is still there to be told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tell {
    Cancel,
    Nothing,
}
