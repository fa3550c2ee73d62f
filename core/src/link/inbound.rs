//! A provider's frames: each is read, checked against what this connection has shown so far,
//! and told to the coordinator as a fact.

use std::borrow::Cow;

use super::attempts::Carried;
use super::challenge::{Outcome, judge};
use super::fault::{Ended, fault_of};
use super::join::Session;
use super::machine::{Phase, ProviderLink};
use super::outbox::Lane;
use super::stock::Stock;
use super::{Chunk, EARN_KEY_UNKNOWN, LinkEffect, LinkOut, LinkRules, NOTHING_SOLD};
use crate::event::{AttemptFault, Event, GoneCause, Trust};
use crate::ids::WireId;
use crate::time::Tick;
use crate::wire::messages::{
    AttestationResponse, DesiredModels, Heartbeat, InferenceComplete, InferenceError,
    LoadModelStatus, Register,
};
use crate::wire::{ChunkFrame, DecodeError, ToCoordinator, machine_spec};

impl ProviderLink {
    pub(super) fn on_frame<'f>(
        &mut self,
        now: Tick,
        frame: &'f [u8],
        rules: &LinkRules,
        out: &mut LinkOut,
    ) -> Option<Chunk<'f>> {
        if frame.len() > self.frame_size_max(&rules.config) {
            self.close(1009, "frame too large", GoneCause::Violation, out);
            return None;
        }
        let message = match ToCoordinator::decode(frame) {
            Ok(message) => message,
            Err(DecodeError::TypeUnknown) => {
                self.counts.frames_unknown += 1;
                return None;
            }
            Err(DecodeError::TypeUnreadable | DecodeError::Malformed(_)) => {
                self.counts.frames_malformed += 1;
                return None;
            }
        };
        if let ToCoordinator::Register(register) = &message {
            self.on_register(now, register, rules, out);
            return None;
        }
        if !self.is_joined() {
            self.counts.frames_before_register += 1;
            return None;
        }
        match message {
            ToCoordinator::Chunk(chunk) => return self.on_chunk(now, chunk, rules, out),
            ToCoordinator::Accepted(accepted) => self.on_accepted(&accepted.request_id, out),
            ToCoordinator::AttestationResponse(answer) => self.on_answer(&answer, rules, out),
            ToCoordinator::Complete(complete) => self.on_complete(&complete, out),
            ToCoordinator::Error(error) => self.on_error(&error, out),
            ToCoordinator::Heartbeat(heartbeat) => self.on_heartbeat(now, &heartbeat, rules, out),
            ToCoordinator::LoadModelStatus(status) => {
                self.on_load_status(&status, rules, out);
            }
            ToCoordinator::ModelsUpdate(update) => {
                let stock = Stock::new(&update.models, &rules.catalog);
                self.counts.models_unnoted += stock.unnoted();
                let session = self.session_mut().expect("checked above");
                session.stock = stock;
                self.restocked(rules, out);
            }
            // These change nothing: nobody here pushes code challenges, so an answer answers none,
            // and news of a prefetch are for people only.
            ToCoordinator::CodeAttestationResponse(_)
            | ToCoordinator::Later
            | ToCoordinator::PrefetchModelStatus(_) => self.counts.frames_later += 1,
            ToCoordinator::Register(_) => unreachable!("handled above"),
        }
        None
    }

    /// What was not sold may be sold now, and the other way round; the provider need not say again
    /// what it has.
    pub(super) fn on_catalog(&mut self, rules: &LinkRules, out: &mut LinkOut) {
        let Some(session) = self.session_mut() else {
            return;
        };
        if session.stock.sort(&rules.catalog) {
            self.restocked(rules, out);
        }
    }

    fn restocked(&mut self, rules: &LinkRules, out: &mut LinkOut) {
        let session = self
            .session()
            .expect("only a registered provider has stock");
        let models = session.stock.sold().to_vec();
        if models.is_empty() {
            self.send_trust("online", NOTHING_SOLD, rules);
        }
        out.tell(Event::ProviderRestocked {
            conn: self.conn,
            models: Cow::Owned(models),
        });
    }

    fn on_register(
        &mut self,
        now: Tick,
        register: &Register<'_>,
        rules: &LinkRules,
        out: &mut LinkOut,
    ) {
        if self.is_joined() {
            self.counts.registers_repeated += 1;
            return;
        }
        let is_linked = !register.auth_token.is_empty();
        if is_linked {
            // The key is unknown. To serve on would be to work for nobody without knowing it, so the
            // connection ends. A key that was made a moment ago is known when the provider comes back.
            let Some(owner) = rules.owners.find(&register.auth_token) else {
                self.close(1008, EARN_KEY_UNKNOWN, GoneCause::Violation, out);
                return;
            };
            self.owner = owner;
        }
        let session = Session::new(now, self.conn, register, &rules.catalog, &rules.config);
        out.tell(Event::ProviderJoined {
            conn: self.conn,
            machine: session.machine,
            owner: self.owner,
            trust: session.trust,
            spec: machine_spec(register, session.can_seal),
            models: Cow::Owned(session.stock.sold().to_vec()),
        });
        let (trust, takes_desired_models) = (session.trust, session.takes_desired_models);
        let is_idle = session.stock.sold().is_empty();
        self.counts.models_unnoted += session.stock.unnoted();
        self.phase = Phase::Joined(Box::new(session));
        self.liveness.heard(now);
        if is_idle {
            self.send_trust("online", NOTHING_SOLD, rules);
        } else if trust != Trust::None || is_linked {
            self.send_trust("online", "", rules);
        }
        if takes_desired_models {
            self.send_message(Lane::Data, &DesiredModels::default(), rules);
        }
        self.challenge(now, rules);
    }

    fn on_heartbeat(
        &mut self,
        now: Tick,
        heartbeat: &Heartbeat<'_>,
        rules: &LinkRules,
        out: &mut LinkOut,
    ) {
        self.liveness.heard(now);
        self.attempts
            .forget_cancelled(now, rules.config.cancelled_keep);
        let conn = self.conn;
        let session = self
            .session_mut()
            .expect("only a registered provider is heard");
        let mut slots = Vec::new();
        let report = heartbeat.to_reports(&rules.catalog, session.stock.sold(), &mut slots);
        if let Some((report, slots)) = session.reports.came(now, (report, slots)) {
            out.tell(Event::ProviderReported {
                conn,
                report,
                slots: Cow::Owned(slots),
            });
        }
    }

    fn on_chunk<'f>(
        &mut self,
        now: Tick,
        chunk: ChunkFrame<'f>,
        rules: &LinkRules,
        out: &mut LinkOut,
    ) -> Option<Chunk<'f>> {
        let wire = WireId::parse(&chunk.request_id);
        let Some(carried) = wire.and_then(|wire| self.attempts.find(wire)) else {
            self.on_stray(now, wire, rules);
            return None;
        };
        if let Some(cancelled_at) = carried.cancelled_at {
            self.counts.late_chunks += 1;
            // A cancel can get lost in a full lane, or overtake the request that it cancels.
            if now.since(cancelled_at) >= rules.config.stray_cancel_every {
                self.attempts.cancel(carried.wire, now, carried.shown);
                self.send_cancel(carried.wire, rules);
            }
            return None;
        }
        let session = self.session().expect("attempts are carried by a session");
        let sealed = chunk.encrypted_data.filter(|sealed| {
            chunk.data.is_empty()
                && session.sealing_key.is_some()
                && *sealed.ephemeral_public_key == *session.sealing_text
        });
        let Some(sealed) = sealed else {
            self.on_violation(carried, rules, out);
            return None;
        };
        Some(Chunk {
            attempt: carried.key,
            wire: carried.wire,
            ciphertext: sealed.ciphertext,
        })
    }

    /// An id that is none of ours was never dispatched, so there is nothing to cancel.
    fn on_stray(&mut self, now: Tick, wire: Option<WireId>, rules: &LinkRules) {
        self.counts.stray_chunks += 1;
        if let Some(wire) = wire
            && self.strays.should_cancel(now, wire, &rules.config)
        {
            self.send_cancel(wire, rules);
        }
    }

    /// Plaintext, a foreign key or a box that does not open: the request ends, and the provider gets
    /// no other, since it cannot be trusted with a prompt. The failure goes first: were the connection's
    /// end told before it, it would be taken for a loss and the machine for innocent.
    pub(super) fn on_violation(&mut self, carried: Carried, rules: &LinkRules, out: &mut LinkOut) {
        self.attempts.remove(carried.wire);
        out.tell(Event::AttemptFailed {
            conn: self.conn,
            attempt: carried.key,
            fault: AttemptFault::Encryption,
        });
        self.send_cancel(carried.wire, rules);
        self.distrust("encryption contract broken", rules, out);
    }

    fn on_accepted(&mut self, id: &str, out: &mut LinkOut) {
        let carried = WireId::parse(id).and_then(|wire| self.attempts.find(wire));
        if let Some(carried) = carried
            && carried.cancelled_at.is_none()
        {
            out.tell(Event::AttemptAccepted {
                conn: self.conn,
                attempt: carried.key,
            });
        }
    }

    fn on_complete(&mut self, complete: &InferenceComplete<'_>, out: &mut LinkOut) {
        let Some(carried) = self.end(&complete.request_id) else {
            return;
        };
        out.push(LinkEffect::Completed {
            attempt: carried.key,
            wire: carried.wire,
            usage: complete.usage.usage(),
            parts: complete.usage.parts(),
            shown_when_cancelled: carried.cancelled_at.map(|_| carried.shown),
        });
    }

    fn on_error(&mut self, error: &InferenceError<'_>, out: &mut LinkOut) {
        let Some(carried) = self.end(&error.request_id) else {
            return;
        };
        let ended = match carried.cancelled_at {
            Some(_) => Ended::Cancelled,
            None => Ended::ByItself,
        };
        out.tell(Event::AttemptFailed {
            conn: self.conn,
            attempt: carried.key,
            fault: fault_of(error, ended),
        });
    }

    /// The attempt's one terminal. A second one, or one for an unknown id, ends nothing.
    fn end(&mut self, id: &str) -> Option<Carried> {
        let carried = WireId::parse(id).and_then(|wire| self.attempts.remove(wire));
        if carried.is_none() {
            self.counts.unexpected_terminals += 1;
        }
        carried
    }

    /// No more results are passed on than loads were ordered: a stranger's word costs nobody a step.
    fn on_load_status(
        &mut self,
        status: &LoadModelStatus<'_>,
        rules: &LinkRules,
        out: &mut LinkOut,
    ) {
        let conn = self.conn;
        let Some(model) = rules.catalog.find(&status.model_id) else {
            return;
        };
        let event = match status.status.as_str() {
            "succeeded" => Event::ModelLoaded { conn, model },
            "failed" => Event::ModelLoadFailed {
                conn,
                model,
                draining: status.error.as_str() == LoadModelStatus::DRAINING,
            },
            // It has begun: the end is what matters.
            _ => return,
        };
        let session = self
            .session_mut()
            .expect("only a registered provider is heard");
        match session.loads_ordered.checked_sub(1) {
            None => self.counts.loads_unasked += 1,
            Some(left) => {
                session.loads_ordered = left;
                out.tell(event);
            }
        }
    }

    fn on_answer(
        &mut self,
        answer: &AttestationResponse<'_>,
        rules: &LinkRules,
        out: &mut LinkOut,
    ) {
        let config = &rules.config;
        let session = self
            .session_mut()
            .expect("only a registered provider is heard");
        let Some(asked) = session.challenges.take(&answer.nonce) else {
            self.counts.challenge_answers_unknown += 1;
            return;
        };
        let attested = session.attested.as_ref();
        let verdict = judge(
            answer,
            &asked,
            &session.sealing_text,
            attested,
            config.posture,
        );
        let outcome = session.challenges.judged(verdict, config);
        let is_forgiven = outcome == Outcome::Verified && session.is_told_untrusted;
        session.is_told_untrusted &= !is_forgiven;
        self.counts.unsigned_statuses += u64::from(answer.status_signature.is_empty());
        self.follow(outcome, rules, out);
        if is_forgiven {
            self.send_trust("online", "", rules);
        }
    }
}
