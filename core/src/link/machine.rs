//! The machine itself: one socket, from its first byte to its close.

use std::borrow::Cow;

use super::attempts::{Attempts, Carried};
use super::challenge::{Challenges, Outcome, judge};
use super::fault::{Ended, fault_of};
use super::join::{Session, inventory};
use super::liveness::{Liveness, Pulse};
use super::outbox::{Lane, Outbox};
use super::stray::Strays;
use super::{Chunk, LinkConfig, LinkEffect, LinkEvent, LinkMisuse, LinkOut, LinkRules, LinkWake};
use crate::digest::Mix;
use crate::envelope::PublicKey;
use crate::event::{AttemptFault, Event, GoneCause, Trust, Usage};
use crate::ids::{AccountId, AttemptKey, ConnId, MachineId, ModelIx, WireId};
use crate::time::Tick;
use crate::wire::messages::{
    AttestationChallenge, AttestationResponse, Cancel, DesiredModels, InferenceComplete,
    InferenceError, LoadModel, LoadModelStatus, Register, TrustStatus,
};
use crate::wire::{ChunkFrame, DecodeError, Frame, Text, ToCoordinator, machine_spec};

/// What happened and changed nothing else. For metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LinkCounts {
    pub challenge_answers_unknown: u64,
    pub challenge_timeouts: u64,
    pub frames_before_register: u64,
    pub frames_later: u64,
    pub frames_malformed: u64,
    pub frames_unknown: u64,
    pub lane_full: u64,
    pub late_chunks: u64,
    pub loads_suppressed: u64,
    pub loads_unasked: u64,
    pub registers_repeated: u64,
    pub stray_chunks: u64,
    /// Answers to challenges without a signature over their status.
    pub unsigned_statuses: u64,
    pub unexpected_terminals: u64,
}

#[derive(Clone, Debug, Hash)]
enum Phase {
    Opening,
    Joined(Box<Session>),
    Closed,
}

/// See the module above. Cheap to make: it allocates when its provider registers.
#[derive(Clone, Debug, Hash)]
pub struct ProviderLink {
    conn: ConnId,
    owner: AccountId,
    phase: Phase,
    liveness: Liveness,
    outbox: Outbox,
    attempts: Attempts,
    strays: Strays,
    counts: LinkCounts,
}

impl ProviderLink {
    /// A socket that was just accepted. `owner` earns unless a provider token says otherwise.
    #[must_use]
    pub fn new(now: Tick, conn: ConnId, owner: AccountId, config: &LinkConfig) -> Self {
        Self {
            conn,
            owner,
            phase: Phase::Opening,
            liveness: Liveness::new(now, config),
            outbox: Outbox::default(),
            attempts: Attempts::default(),
            strays: Strays::default(),
            counts: LinkCounts::default(),
        }
    }

    /// One thing happened; here is all that follows. A chunk for a relay is the answer itself, since
    /// it borrows from the frame; whatever else follows is in `out`, in causal order.
    pub fn step<'f>(
        &mut self,
        now: Tick,
        event: LinkEvent<'f>,
        rules: &LinkRules,
        out: &mut LinkOut,
    ) -> Result<Option<Chunk<'f>>, LinkMisuse> {
        if self.is_closed() {
            return Ok(None);
        }
        let mut chunk = None;
        match event {
            LinkEvent::CancelRequested { attempt } => self.on_cancel(now, attempt, rules),
            LinkEvent::ChunkRefused { wire } => {
                if let Some(carried) = self.attempts.find(wire) {
                    self.on_violation(carried, rules, out);
                }
            }
            LinkEvent::CloseRequested { code, reason } => {
                self.close(code, reason, GoneCause::Closed, out);
            }
            LinkEvent::DispatchRequested {
                attempt,
                wire,
                frame,
            } => {
                self.on_dispatch(now, attempt, wire, frame, rules, out)?;
            }
            LinkEvent::DisconnectRequested { cause } => {
                let (code, reason) = farewell(cause);
                self.close(code, reason, cause, out);
            }
            LinkEvent::FrameReceived(frame) => chunk = self.on_frame(now, frame, rules, out),
            LinkEvent::FrameRequested { lane, frame } => self.send(lane, frame, rules),
            LinkEvent::LoadRequested { model } => self.on_load(now, model, rules)?,
            LinkEvent::SocketClosed { code } => {
                let cause = match code {
                    Some(1000 | 1001) => GoneCause::Closed,
                    Some(_) | None => GoneCause::Lost,
                };
                self.leave(cause, out);
            }
            LinkEvent::Woke => self.on_woke(now, rules, out),
            LinkEvent::WriteFinished => {
                if !self.outbox.arrived() {
                    return Err(LinkMisuse::NothingWritten);
                }
            }
        }
        self.write_next(now, rules, out);
        Ok(chunk)
    }

    /// The next moment at which `Woke` should come, and why.
    #[must_use]
    pub fn next_wake(&self) -> Option<(Tick, LinkWake)> {
        let session = match &self.phase {
            Phase::Closed => return None,
            Phase::Joined(session) => Some(session),
            Phase::Opening => None,
        };
        let challenges = session.map(|session| &session.challenges);
        let due = challenges.and_then(Challenges::due_at);
        let overdue = challenges.and_then(Challenges::overdue_at);
        let stalled = self.outbox.write_deadline();
        [
            due.map(|at| (at, LinkWake::ChallengeDue)),
            overdue.map(|at| (at, LinkWake::ChallengeOverdue)),
            Some((self.liveness.sweep_at(), LinkWake::Sweep)),
            stalled.map(|at| (at, LinkWake::WriteOverdue)),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Equal digests mean equal state.
    #[must_use]
    pub fn digest(&self) -> u128 {
        Mix::of(self)
    }

    #[must_use]
    pub fn conn(&self) -> ConnId {
        self.conn
    }

    #[must_use]
    pub fn counts(&self) -> LinkCounts {
        self.counts
    }

    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.session().is_some()
    }

    /// The key to seal requests to; `None` before `register` and for providers that cannot.
    #[must_use]
    pub fn sealing_key(&self) -> Option<PublicKey> {
        self.session()?.sealing_key
    }

    #[must_use]
    pub fn machine(&self) -> Option<MachineId> {
        Some(self.session()?.machine)
    }

    /// How well the registration proved the machine's identity.
    #[must_use]
    pub fn trust(&self) -> Option<Trust> {
        Some(self.session()?.trust)
    }

    /// Attempts between dispatch and terminal, cancelled ones included.
    #[must_use]
    pub fn attempts_count(&self) -> usize {
        self.attempts.count()
    }

    fn session(&self) -> Option<&Session> {
        match &self.phase {
            Phase::Joined(session) => Some(session),
            Phase::Opening | Phase::Closed => None,
        }
    }

    fn session_mut(&mut self) -> Option<&mut Session> {
        match &mut self.phase {
            Phase::Joined(session) => Some(session),
            Phase::Opening | Phase::Closed => None,
        }
    }

    fn on_frame<'f>(
        &mut self,
        now: Tick,
        frame: &'f [u8],
        rules: &LinkRules,
        out: &mut LinkOut,
    ) -> Option<Chunk<'f>> {
        if frame.len() > rules.config.frame_size_max {
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
                self.on_load_status(now, &status, rules, out);
            }
            ToCoordinator::ModelsUpdate(update) => {
                let models = inventory(&update.models, &rules.catalog);
                let session = self.session_mut().expect("checked above");
                session.inventory.clone_from(&models);
                out.tell(Event::ProviderRestocked {
                    conn: self.conn,
                    models: Cow::Owned(models),
                });
            }
            // Code challenges are pushed by nobody yet; prefetch news are for people only.
            ToCoordinator::CodeAttestationResponse(_)
            | ToCoordinator::Later
            | ToCoordinator::PrefetchModelStatus(_) => self.counts.frames_later += 1,
            ToCoordinator::Register(_) => unreachable!("handled above"),
        }
        None
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
        if let Some(owner) = rules.owners.find(&register.auth_token) {
            self.owner = owner;
        }
        let session = Session::new(now, self.conn, register, &rules.catalog, &rules.config);
        out.tell(Event::ProviderJoined {
            conn: self.conn,
            machine: session.machine,
            owner: self.owner,
            trust: session.trust,
            spec: machine_spec(register, session.can_seal),
            models: Cow::Owned(session.inventory.clone()),
        });
        let (trust, takes_desired_models) = (session.trust, session.takes_desired_models);
        self.phase = Phase::Joined(Box::new(session));
        self.liveness.heard(now);
        if trust != Trust::None {
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
        heartbeat: &crate::wire::messages::Heartbeat<'_>,
        rules: &LinkRules,
        out: &mut LinkOut,
    ) {
        self.liveness.heard(now);
        self.attempts
            .forget_cancelled(now, rules.config.cancelled_keep);
        let session = self.session().expect("only a registered provider is heard");
        let mut slots = Vec::new();
        let report = heartbeat.to_reports(&rules.catalog, &session.inventory, &mut slots);
        out.tell(Event::ProviderReported {
            conn: self.conn,
            report,
            slots: Cow::Owned(slots),
        });
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
                self.attempts.cancel(carried.wire, now);
                self.send_cancel(carried.wire, rules);
            }
            return None;
        }
        let session = self.session().expect("attempts are carried by a session");
        let sealed = chunk.encrypted_data.as_ref().filter(|sealed| {
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
            ciphertext: sealed.ciphertext.clone(),
            frame: chunk,
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
    /// no other (`spec/wire` 6.6). The failure goes first, so that it is not taken for a loss.
    fn on_violation(&mut self, carried: Carried, rules: &LinkRules, out: &mut LinkOut) {
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
        let tokens = |count: i64| u32::try_from(count.max(0)).unwrap_or(u32::MAX);
        out.push(LinkEffect::Completed {
            attempt: carried.key,
            wire: carried.wire,
            usage: Usage {
                prompt_tokens: tokens(complete.usage.prompt_tokens),
                completion_tokens: tokens(complete.usage.completion_tokens),
            },
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

    fn on_dispatch(
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

    fn on_cancel(&mut self, now: Tick, attempt: AttemptKey, rules: &LinkRules) {
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
        self.attempts.cancel(carried.wire, now);
        self.send_cancel(carried.wire, rules);
    }

    fn on_load(&mut self, now: Tick, model: ModelIx, rules: &LinkRules) -> Result<(), LinkMisuse> {
        let spec = rules.catalog.spec(model).ok_or(LinkMisuse::UnknownModel)?;
        let Some(session) = self.session_mut() else {
            return Ok(());
        };
        if !session.takes_commands || !session.loads.may_order(now, model) {
            self.counts.loads_suppressed += 1;
            return Ok(());
        }
        session
            .loads
            .ordered(model, now + rules.config.load_pending_max);
        let order = LoadModel {
            model_id: Text::from(spec.id.as_str()),
        };
        self.send_message(Lane::Data, &order, rules);
        Ok(())
    }

    fn on_load_status(
        &mut self,
        now: Tick,
        status: &LoadModelStatus<'_>,
        rules: &LinkRules,
        out: &mut LinkOut,
    ) {
        let conn = self.conn;
        let session = self
            .session_mut()
            .expect("only a registered provider is heard");
        let Some(model) = rules.catalog.find(&status.model_id) else {
            return;
        };
        let is_terminal = matches!(status.status.as_str(), "succeeded" | "failed");
        if !is_terminal {
            return;
        }
        if !session.loads.settle(now, model) {
            self.counts.loads_unasked += 1;
        } else if status.status.as_str() == "succeeded" {
            out.tell(Event::ModelLoaded { conn, model });
        } else {
            let draining = status.error.as_str() == LoadModelStatus::DRAINING;
            let wait = if draining {
                rules.config.load_draining_wait
            } else {
                rules.config.load_pending_max
            };
            session.loads.refused(model, now + wait);
            out.tell(Event::ModelLoadFailed {
                conn,
                model,
                draining,
            });
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
        self.counts.unsigned_statuses += u64::from(answer.status_signature.is_empty());
        self.follow(outcome, rules, out);
    }

    fn on_woke(&mut self, now: Tick, rules: &LinkRules, out: &mut LinkOut) {
        let is_past = |at: Option<Tick>| at.is_some_and(|at| at <= now);
        if is_past(self.outbox.write_deadline()) {
            let (code, reason) = farewell(GoneCause::WriteStalled);
            self.close(code, reason, GoneCause::WriteStalled, out);
            return;
        }
        if self.liveness.sweep(now, &rules.config) == Pulse::Silent {
            let (code, reason) = farewell(GoneCause::Silent);
            self.close(code, reason, GoneCause::Silent, out);
            return;
        }
        let Some(session) = self.session_mut() else {
            return;
        };
        if is_past(session.challenges.overdue_at()) {
            let outcome = session.challenges.timed_out(&rules.config);
            self.counts.challenge_timeouts += 1;
            self.follow(outcome, rules, out);
        }
        let due_at = self
            .session()
            .and_then(|session| session.challenges.due_at());
        if is_past(due_at) {
            self.challenge(now, rules);
        }
    }

    fn challenge(&mut self, now: Tick, rules: &LinkRules) {
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

    fn follow(&mut self, outcome: Outcome, rules: &LinkRules, out: &mut LinkOut) {
        let conn = self.conn;
        match outcome {
            Outcome::Distrusted => self.distrust("challenges failed", rules, out),
            Outcome::GivenUp => {
                self.close(1008, "challenges unanswered", GoneCause::Violation, out);
            }
            Outcome::Nothing => {}
            Outcome::Unverified => {
                out.tell(Event::ProviderUnverified { conn });
                self.send_trust("untrusted", "challenge failed", rules);
            }
            Outcome::Verified => out.tell(Event::ProviderVerified { conn }),
        }
    }

    /// For good: only a new connection starts again.
    fn distrust(&mut self, reason: &'static str, rules: &LinkRules, out: &mut LinkOut) {
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

    fn send_trust(&mut self, status: &'static str, reason: &'static str, rules: &LinkRules) {
        let trust = self.session().map_or(Trust::None, |session| session.trust);
        let trust_level = match trust {
            Trust::None => "none",
            Trust::SelfSigned => "self_signed",
            Trust::Hardware => "hardware",
        };
        let message = TrustStatus {
            trust_level: Text::from(trust_level),
            status: Text::from(status),
            reason: Text::from(reason),
        };
        self.send_message(Lane::Control, &message, rules);
    }

    fn send_cancel(&mut self, wire: WireId, rules: &LinkRules) {
        let message = Cancel {
            request_id: Text::from(wire.to_string()),
        };
        self.send_message(Lane::Control, &message, rules);
    }

    fn send_message<M: Frame>(&mut self, lane: Lane, message: &M, rules: &LinkRules) {
        let mut frame = Vec::new();
        message.encode(&mut frame);
        self.send(lane, frame, rules);
    }

    /// Best effort: a full lane is counted, and its watchdog ends it soon.
    fn send(&mut self, lane: Lane, frame: Vec<u8>, rules: &LinkRules) {
        let is_queued = self.outbox.push(lane, frame, None, &rules.config).is_ok();
        self.counts.lane_full += u64::from(!is_queued);
    }

    fn write_next(&mut self, now: Tick, rules: &LinkRules, out: &mut LinkOut) {
        if let Some(departure) = self.outbox.depart(now, &rules.config) {
            out.push(LinkEffect::Write {
                frame: departure.frame,
                deadline: departure.deadline,
            });
        }
    }

    fn close(&mut self, code: u16, reason: &'static str, cause: GoneCause, out: &mut LinkOut) {
        self.leave(cause, out);
        out.push(LinkEffect::Close { code, reason });
    }

    /// The one way out. The coordinator fails over whatever was in flight when it hears of it.
    fn leave(&mut self, cause: GoneCause, out: &mut LinkOut) {
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

/// Close code and reason for each cause (`spec/wire` 1.5).
const fn farewell(cause: GoneCause) -> (u16, &'static str) {
    match cause {
        GoneCause::Closed => (1000, ""),
        GoneCause::Lost => (1001, "connection lost"),
        GoneCause::Replaced => (1000, "replaced by a newer connection"),
        GoneCause::Silent => (1008, "no heartbeat"),
        GoneCause::Violation => (1008, "protocol violation"),
        GoneCause::WriteStalled => (1011, "write stalled"),
    }
}
