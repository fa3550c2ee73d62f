//! Providers come, prove themselves, report and go.

use super::attempt::Remains;
use super::conduct::Offence;
use super::fleet::{Handover, Identity, Stocked};
use super::timers::{Armed, Due};
use super::{Coordinator, Mischief};
use crate::effect::{Alarm, Effect, Effects};
use crate::event::{AttemptFault, GoneCause, MachineReport, MachineSpec, SlotReport, Trust};
use crate::ids::{ConnId, MachineId, ModelIx};
use crate::slab::Key;
use crate::time::{Span, Tick};
use crate::traits::Traits;

/// Connections that may claim one machine at a time: the one that works, and newcomers that have
/// not proven themselves. The oldest of these makes room for another, so there are enough that who
/// holds the key can prove it while somebody repeats its registration hundreds of times a second.
pub(super) const CONNECTIONS_PER_MACHINE_MAX: usize = 128;

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
        if self.mischief == Mischief::JoinsUnproven {
            self.take_over(now, slot, out);
        }
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
        if !self.fleet.is_proven(slot) {
            self.fleet.prove(slot);
            if self.take_over(now, slot, out) == Handover::Contested {
                return;
            }
            if self.fleet.is_lossy(slot) {
                out.push(Effect::TellLossy { conn });
            }
        }
        let until = now + self.config.limits.challenge_fresh_max;
        let due = Due::Challenge(self.fleet.key(slot));
        // A proof whose age nobody would notice is none.
        let is_timed = self.timers.set(until, due) == Armed::Yes;
        self.fleet.set_verified(slot, is_timed);
        if self.mischief != Mischief::UnopenedGate {
            self.fleet.refresh(slot, &self.config);
        }
        self.fill(now, slot, out);
    }

    /// Closes the older connections of a machine that has proven itself on a newer one. When that
    /// happens too often, two processes share the identity: both are told, and the newer one goes.
    fn take_over(&mut self, now: Tick, slot: u32, out: &mut Effects) -> Handover {
        let machine = self.fleet.id(slot).machine;
        let connections = self.fleet.connections(machine);
        let older: Vec<u32> = connections
            .iter()
            .copied()
            .take_while(|&other| other != slot)
            .collect();
        let working = older.iter().filter(|&&other| self.fleet.is_proven(other));
        let working: Vec<ConnId> = working.map(|&other| self.fleet.id(other).conn).collect();
        if !working.is_empty() && self.fleet.hand_over(now, slot) == Handover::Contested {
            alarm(Alarm::IdentityContested, out);
            out.list
                .extend(working.iter().map(|&conn| Effect::TellContested { conn }));
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
        let is_unproven = |other: &u32| !self.fleet.is_proven(*other);
        // A proven one closed all before it, so at most the first is proven.
        let oldest = connections.iter().copied().find(is_unproven);
        let oldest = oldest.expect("at most one connection of a machine is proven");
        self.disconnect(now, oldest, GoneCause::Replaced, out);
    }

    fn disconnect(&mut self, now: Tick, slot: u32, cause: GoneCause, out: &mut Effects) {
        let conn = self.fleet.id(slot).conn;
        out.push(Effect::Disconnect { conn, cause });
        self.remove(now, slot, cause, out);
    }

    pub(super) fn on_unverified(&mut self, conn: ConnId) {
        let Some(slot) = self.known(conn) else { return };
        self.fleet.set_verified(slot, false);
        self.fleet.refresh(slot, &self.config);
    }

    pub(super) fn on_challenge_expired(&mut self, key: Key) {
        if self.fleet.is_here(key) {
            self.fleet.set_verified(key.slot, false);
            self.fleet.refresh(key.slot, &self.config);
        }
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
        let limits = &self.config.limits;
        if !self
            .fleet
            .report(now, slot, report, slots, accepts_stale, limits)
        {
            self.counts.stale_reports += 1;
            return;
        }
        self.fleet.serve_bar(now, slot);
        if !self.timers.looks_at_reports_of(self.fleet.key(slot)) {
            self.time_report(now, slot);
        }
        self.fleet.refresh(slot, &self.config);
        self.fill(now, slot, out);
    }

    /// One timer a provider: when it fires, it looks at what was reported since.
    fn time_report(&mut self, now: Tick, slot: u32) {
        let due = Due::Report(self.fleet.key(slot));
        let armed = match self.fleet.age(now, slot) {
            Some(until) => self.timers.set(until, due),
            None => {
                self.timers.clear(due);
                return;
            }
        };
        if armed == Armed::NoRoom {
            self.fleet.presume_stale(slot);
        }
    }

    pub(super) fn on_report_aged(&mut self, now: Tick, key: Key) {
        if self.fleet.is_here(key) {
            self.time_report(now, key.slot);
            self.fleet.refresh(key.slot, &self.config);
        }
    }

    /// Nobody in good standing serves these models any more: barred machines may take what waits.
    pub(super) fn fall_back(&mut self, now: Tick, out: &mut Effects) {
        while let Some(model) = self.fleet.take_bare() {
            for slot in self.fleet.last_resort(model) {
                self.fill(now, slot, out);
            }
        }
    }

    pub(super) fn on_left(&mut self, now: Tick, conn: ConnId, cause: GoneCause, out: &mut Effects) {
        let Some(slot) = self.known(conn) else { return };
        self.remove(now, slot, cause, out);
    }

    pub(super) fn on_attested(
        &mut self,
        now: Tick,
        conn: ConnId,
        gives: Traits,
        valid_for: Span,
        out: &mut Effects,
    ) {
        let Some(slot) = self.known(conn) else { return };
        if !self.fleet.attest(slot, gives, now + valid_for) {
            alarm(Alarm::ProofsFull, out);
        }
        self.time_proofs(now, slot);
        self.fleet.refresh(slot, &self.config);
        self.fill(now, slot, out);
    }

    fn time_proofs(&mut self, now: Tick, slot: u32) {
        let due = Due::Proof(self.fleet.key(slot));
        let Some(until) = self.fleet.expire_proofs(now, slot) else {
            self.timers.clear(due);
            return;
        };
        if self.timers.set(until, due) == Armed::NoRoom {
            self.fleet.drop_proofs(slot);
        }
    }

    /// What runs there was sent while the proof held, and goes on.
    pub(super) fn on_proof_expired(&mut self, now: Tick, key: Key) {
        if self.fleet.is_here(key) {
            self.time_proofs(now, key.slot);
            self.fleet.refresh(key.slot, &self.config);
        }
    }

    /// The one way out of the fleet.
    fn remove(&mut self, now: Tick, slot: u32, cause: GoneCause, out: &mut Effects) {
        if self.is_loss(slot, cause) && self.fleet.loses(now, slot) {
            alarm(Alarm::LostAtWork, out);
        }
        if self.attempts.newest_on(slot).is_some() {
            self.strike(now, slot, Offence::Deserted);
        }
        // Closed to new work first, so that what moves on does not come back here.
        self.fleet.distrust(slot);
        self.fleet.refresh(slot, &self.config);
        self.abandon_attempts(now, slot, Tell::Nothing, out);
        self.timers.clear_provider(self.fleet.key(slot));
        let machine = self.fleet.id(slot).machine;
        self.fleet.leave(now, slot);
        if self.mischief == Mischief::ForgetsMachines {
            self.fleet.forget(machine);
        }
    }

    /// Whether the machine itself may have been ended: nobody meant the connection to end, and it was the
    /// machine's own.
    fn is_loss(&self, slot: u32, cause: GoneCause) -> bool {
        match cause {
            GoneCause::Lost => self.fleet.is_proven(slot),
            GoneCause::Closed
            | GoneCause::Contested
            | GoneCause::Replaced
            | GoneCause::Silent
            | GoneCause::Violation
            | GoneCause::WriteStalled => false,
        }
    }

    fn abandon_attempts(&mut self, now: Tick, slot: u32, tell: Tell, out: &mut Effects) {
        while let Some(key) = self.attempts.newest_on(slot) {
            if tell == Tell::Cancel {
                self.send_cancel(key, out);
            }
            let attempt = self.take_attempt(key, Remains::Lingers);
            self.after_fault(now, &attempt, AttemptFault::Unsent, out);
        }
    }

    pub(super) fn known(&mut self, conn: ConnId) -> Option<u32> {
        let found = self.fleet.find(conn);
        self.counts.stale_events += u64::from(found.is_none());
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
