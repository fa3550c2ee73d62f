//! What the coordinator has its provider told: requests, cancels, loads, statuses, challenges.
//! And how a connection ends.

use super::attempts::Attempts;
use super::challenge::Outcome;
use super::machine::{Phase, ProviderLink};
use super::outbox::Lane;
use super::stray::Strays;
use super::{LinkEffect, LinkMisuse, LinkOut, LinkRules};
use crate::event::{AttemptFault, Event, GoneCause, Shown, Trust};
use crate::ids::{AttemptKey, ModelIx, WireId};
use crate::time::Tick;
use crate::wire::messages::{AttestationChallenge, Cancel, LoadModel, TrustStatus};
use crate::wire::{Frame, Text};

impl ProviderLink {
    pub(super) fn on_dispatch(
        &mut self,
        now: Tick,
        attempt: AttemptKey,
        wire: WireId,
        frame: Vec<u8>,
        rules: &LinkRules,
        out: &mut LinkOut,
    ) -> Result<(), LinkMisuse> {
        if self.attempts.find(wire).is_some() {
            return Err(LinkMisuse::WireIdReused);
        }
        if self.attempts.count() >= rules.config.attempts_max {
            self.attempts
                .forget_cancelled(now, rules.config.cancelled_keep);
        }
        // What was ordered before the verdict must not leave after it (INV-07).
        let may_send = self.session().is_some_and(|session| !session.is_distrusted)
            && self.attempts.count() < rules.config.attempts_max;
        let is_queued = may_send
            && self
                .outbox
                .push(Lane::Data, frame, Some(wire), &rules.config)
                .is_ok();
        if is_queued {
            self.attempts.insert(wire, attempt);
        } else {
            self.counts.lane_full += u64::from(may_send);
            out.tell(Event::AttemptFailed {
                conn: self.conn,
                attempt,
                fault: AttemptFault::Unsent,
            });
        }
        Ok(())
    }

    pub(super) fn on_cancel(
        &mut self,
        now: Tick,
        attempt: AttemptKey,
        shown: Shown,
        rules: &LinkRules,
    ) {
        let found = self
            .attempts
            .wire_of(attempt)
            .and_then(|wire| self.attempts.find(wire));
        let Some(carried) = found else {
            return;
        };
        if carried.cancelled_at.is_some() {
            return;
        }
        if self.outbox.withdraw(carried.wire) {
            self.attempts.remove(carried.wire);
            return;
        }
        self.attempts.cancel(carried.wire, now, shown);
        self.send_cancel(carried.wire, rules);
    }

    /// What comes of it the provider says, and the coordinator waits only so long. One that takes no
    /// orders is never told, so its load has failed.
    pub(super) fn on_load(
        &mut self,
        model: ModelIx,
        rules: &LinkRules,
        out: &mut LinkOut,
    ) -> Result<(), LinkMisuse> {
        let spec = rules.catalog.spec(model).ok_or(LinkMisuse::UnknownModel)?;
        let Some(session) = self.session_mut() else {
            return Ok(());
        };
        session.loads_ordered += u32::from(session.takes_commands);
        if !session.takes_commands {
            out.tell(Event::ModelLoadFailed {
                conn: self.conn,
                model,
                draining: false,
            });
            return Ok(());
        }
        let order = LoadModel {
            model_id: Text::from(spec.id.as_str()),
        };
        self.send_message(Lane::Data, &order, rules);
        Ok(())
    }

    pub(super) fn challenge(&mut self, now: Tick, rules: &LinkRules) {
        let conn = self.conn;
        let session = self
            .session_mut()
            .expect("only a registered provider is challenged");
        let asked = session.challenges.begin(now, conn, &rules.config);
        let message = AttestationChallenge {
            nonce: Text::from(asked.nonce.as_str()),
            timestamp: Text::from(asked.timestamp.as_str()),
        };
        let mut frame = Vec::new();
        message.encode(&mut frame);
        if self
            .outbox
            .push(Lane::Control, frame, None, &rules.config)
            .is_err()
        {
            self.counts.lane_full += 1;
            let session = self.session_mut().expect("nothing closed it");
            session.challenges.put_off(now, &rules.config);
        }
    }

    pub(super) fn follow(&mut self, outcome: Outcome, rules: &LinkRules, out: &mut LinkOut) {
        let conn = self.conn;
        match outcome {
            Outcome::Distrusted => self.distrust("challenges failed", rules, out),
            Outcome::GivenUp => {
                let session = self
                    .session_mut()
                    .expect("only a registered provider is judged");
                let reason = session.challenges.given_up_for();
                self.close(1008, reason, GoneCause::Violation, out);
            }
            Outcome::Nothing => {}
            Outcome::Unverified => {
                out.tell(Event::ProviderUnverified { conn });
                let session = self
                    .session_mut()
                    .expect("only a registered provider is judged");
                session.is_told_untrusted = true;
                self.send_trust("untrusted", "challenge failed", rules);
            }
            Outcome::Verified => out.tell(Event::ProviderVerified { conn }),
        }
    }

    /// For good: only a new connection starts again.
    pub(super) fn distrust(&mut self, reason: &'static str, rules: &LinkRules, out: &mut LinkOut) {
        let conn = self.conn;
        let Some(session) = self.session_mut() else {
            return;
        };
        if session.is_distrusted {
            return;
        }
        session.is_distrusted = true;
        session.challenges.stop();
        out.tell(Event::ProviderDistrusted { conn });
        self.send_trust("untrusted", reason, rules);
    }

    pub(super) fn send_trust(
        &mut self,
        status: &'static str,
        reason: &'static str,
        rules: &LinkRules,
    ) {
        let trust = self.session().map_or(Trust::None, |session| session.trust);
        let is_linked = self.session().is_some_and(|session| session.is_linked);
        let message = TrustStatus {
            trust_level: Text::from(trust.name()),
            status: Text::from(status),
            reason: Text::from(reason),
            account_linked: is_linked,
        };
        self.send_message(Lane::Control, &message, rules);
    }

    pub(super) fn send_cancel(&mut self, wire: WireId, rules: &LinkRules) {
        let message = Cancel {
            request_id: Text::from(wire.to_string()),
        };
        self.send_message(Lane::Control, &message, rules);
    }

    pub(super) fn send_message<M: Frame>(&mut self, lane: Lane, message: &M, rules: &LinkRules) {
        let mut frame = Vec::new();
        message.encode(&mut frame);
        self.send(lane, frame, rules);
    }

    /// Best effort: a full lane is counted, and its watchdog ends it soon.
    pub(super) fn send(&mut self, lane: Lane, frame: Vec<u8>, rules: &LinkRules) {
        let is_queued = self.outbox.push(lane, frame, None, &rules.config).is_ok();
        self.counts.lane_full += u64::from(!is_queued);
    }

    pub(super) fn write_next(&mut self, now: Tick, rules: &LinkRules, out: &mut LinkOut) {
        if let Some(departure) = self.outbox.depart(now, &rules.config) {
            out.push(LinkEffect::Write {
                frame: departure.frame,
                deadline: departure.deadline,
            });
        }
    }

    pub(super) fn close(
        &mut self,
        code: u16,
        reason: &'static str,
        cause: GoneCause,
        out: &mut LinkOut,
    ) {
        self.leave(cause, out);
        out.push(LinkEffect::Close { code, reason });
    }

    /// The one way out. The coordinator fails over whatever was in flight when it hears of it.
    pub(super) fn leave(&mut self, cause: GoneCause, out: &mut LinkOut) {
        if self.is_joined() {
            out.tell(Event::ProviderLeft {
                conn: self.conn,
                cause,
            });
        }
        self.phase = Phase::Closed;
        self.outbox.clear();
        self.attempts = Attempts::default();
        self.strays = Strays::default();
    }
}
