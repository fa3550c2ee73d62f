//! The provider's state machine: its events, one by one, to the part that each concerns.
//! Sockets come and go, frames are read, timers fire.

use super::backoff::{Backoff, Ending};
use super::duty::Duty;
use super::jobs::Jobs;
use super::reply::{Sealer, WireRefusal, send};
use super::session::{Departure, Open, Pulse, Session};
use super::{
    AgentConfig, AgentCounts, AgentEffect, AgentEvent, AgentOut, AgentWake, Notice, SessionId,
    earlier,
};
use crate::digest::Mix;
use crate::link::{EARN_KEY_UNKNOWN, IDENTITY_CONTESTED};
use crate::time::Tick;

/// Close code of a planned goodbye: what ran has not failed.
const GOING_AWAY: u16 = 1001;
/// Close code of a broken rule; the reason says which.
const POLICY: u16 = 1008;

/// See the module.
#[derive(Debug)]
pub struct Agent {
    pub(super) config: AgentConfig,
    pub(super) session: Session,
    pub(super) session_last: SessionId,
    pub(super) backoff: Backoff,
    pub(super) jobs: Jobs,
    /// The challenge that is being signed; a newer one replaces it.
    pub(super) challenge: Option<Challenge>,
    /// Set once the process was asked to end.
    pub(super) drain_until: Option<Tick>,
    /// `None` when the machine always serves.
    pub(super) duty: Option<Duty>,
    pub(super) counts: AgentCounts,
}

#[derive(Clone, Debug)]
pub(super) struct Challenge {
    pub(super) session: SessionId,
    pub(super) nonce: String,
}

impl Agent {
    /// Dials at the first wake, or asks for the time if it does not always serve.
    #[must_use]
    pub fn new(now: Tick, config: AgentConfig) -> Self {
        let key_text = config.secret.public().text();
        let sealer = Sealer::new(key_text, config.nonce_prefix);
        let duty = Duty::new(now, &config.schedule);
        let session = match duty {
            Some(_) => Session::Resting,
            None => Session::Waiting { dial_at: now },
        };
        Self {
            config,
            session,
            session_last: SessionId(0),
            backoff: Backoff::new(),
            jobs: Jobs::new(sealer),
            challenge: None,
            drain_until: None,
            duty,
            counts: AgentCounts::default(),
        }
    }

    /// One thing happened; here is all that follows. `out` is appended to, in causal order.
    pub fn step(&mut self, now: Tick, event: AgentEvent<'_>, out: &mut AgentOut) {
        if self.session == Session::Stopped {
            return;
        }
        match event {
            AgentEvent::CloseReceived {
                session,
                code,
                reason,
            } => self.on_close(now, session, code, reason, out),
            AgentEvent::Connected { session, register } => {
                self.on_connected(now, session, register, out);
            }
            AgentEvent::DialFailed { session } => self.on_dial_failed(now, session, out),
            AgentEvent::DrainBegan => self.on_drain_began(now, out),
            AgentEvent::FrameReceived { session, frame } => self.on_frame(session, frame, out),
            AgentEvent::JobEnded { job, end } => {
                if !self.jobs.on_ended(job, end, out) {
                    self.counts.stale_events += 1;
                }
                self.go_when_free(now, out);
            }
            AgentEvent::JobSaid { job, piece } => {
                if !self.jobs.on_said(job, &piece, out) {
                    self.counts.stale_events += 1;
                }
            }
            AgentEvent::JobTaken { job } => {
                if !self.jobs.on_taken(job, out) {
                    self.counts.stale_events += 1;
                }
            }
            AgentEvent::LocalTimeRead { local } => self.on_local_time(now, local, out),
            AgentEvent::Measured { heartbeat } => self.on_measured(*heartbeat, out),
            AgentEvent::ModelHashed { build, hash } => {
                let hashes = &mut self.config.facts.model_hashes;
                hashes.insert(build.to_owned(), hash.to_owned());
            }
            AgentEvent::ModelLoadFailed { build, why } => {
                self.send_load_status(build, "failed", &why.to_string(), out);
            }
            AgentEvent::ModelLoaded { build } => {
                self.send_load_status(build, "succeeded", "", out);
            }
            AgentEvent::ModelsChanged { update } => {
                // Without a session nothing is sent: the next registration lists the models anyway.
                if let Some(session) = self.open_id() {
                    send(out, session, |bytes| bytes.extend_from_slice(update));
                }
            }
            AgentEvent::PongReceived { session } => match self.open(session) {
                Some(open) => open.pong(now),
                None => self.counts.stale_events += 1,
            },
            AgentEvent::Signed {
                signature,
                status_signature,
            } => self.on_signed(signature, status_signature, out),
            AgentEvent::SocketClosed { session } => {
                if self.open(session).is_some() {
                    self.lose(now, out);
                } else if matches!(self.session, Session::Dialling { id, .. } if id == session) {
                    self.on_dial_failed(now, session, out);
                } else {
                    self.counts.stale_events += 1;
                }
            }
            AgentEvent::Woke => self.on_woke(now, out),
        }
    }

    /// The next moment at which `Woke` should come, and why. An early or spurious wake is harmless.
    #[must_use]
    pub fn next_wake(&self) -> Option<(Tick, AgentWake)> {
        if self.is_stopped() {
            return None;
        }
        let mut wake = self.session.next_wake();
        let of_duty = self.duty.as_ref().map(|duty| duty.check_at);
        for (at, why) in [
            (self.drain_until, AgentWake::DrainOverdue),
            (of_duty, AgentWake::ClockDue),
            (self.rest_at(), AgentWake::RestOverdue),
        ] {
            if let Some(at) = at {
                wake = earlier(wake, (at, why));
            }
        }
        wake
    }

    /// The key to register, as text.
    #[must_use]
    pub fn key_text(&self) -> &str {
        self.jobs.key_text()
    }

    #[must_use]
    pub const fn counts(&self) -> AgentCounts {
        self.counts
    }

    /// Jobs whose terminal somebody waits for.
    #[must_use]
    pub fn live_jobs(&self) -> usize {
        self.jobs.live_count()
    }

    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.session == Session::Stopped
    }

    /// Equal digests mean: the same state, as far as the future can tell.
    #[must_use]
    pub fn digest(&self) -> u128 {
        use core::hash::Hash;
        let mut mix = Mix::default();
        self.session.hash(&mut mix);
        self.session_last.hash(&mut mix);
        self.backoff.hash(&mut mix);
        self.jobs.hash(&mut mix);
        let challenge = self.challenge.as_ref();
        challenge.map(|c| (c.session, &c.nonce)).hash(&mut mix);
        self.drain_until.hash(&mut mix);
        self.duty.hash(&mut mix);
        self.counts.hash(&mut mix);
        mix.end_wide()
    }

    pub(super) fn open(&mut self, session: SessionId) -> Option<&mut Open> {
        match &mut self.session {
            Session::Open(open) if open.id == session => Some(open),
            Session::Dialling { .. }
            | Session::Open(_)
            | Session::Resting
            | Session::Stopped
            | Session::Waiting { .. } => None,
        }
    }

    pub(super) fn open_id(&self) -> Option<SessionId> {
        match &self.session {
            Session::Open(open) => Some(open.id),
            Session::Dialling { .. }
            | Session::Resting
            | Session::Stopped
            | Session::Waiting { .. } => None,
        }
    }

    pub(super) fn is_leaving(&self) -> bool {
        let is_sent_away = matches!(&self.session, Session::Open(open) if open.leaving.is_some());
        is_sent_away || self.drain_until.is_some() || self.rest_at().is_some()
    }

    fn on_connected(&mut self, now: Tick, session: SessionId, register: &[u8], out: &mut AgentOut) {
        if !matches!(self.session, Session::Dialling { id, .. } if id == session) {
            self.counts.stale_events += 1;
            out.push(AgentEffect::Abandon { session });
            return;
        }
        self.counts.sessions += 1;
        self.session = Session::Open(Open::new(now, session));
        // The registration goes first: a coordinator drops what it hears from nobody.
        send(out, session, |bytes| bytes.extend_from_slice(register));
        // Nobody routes here before the first report: it does not wait for the timer.
        out.push(AgentEffect::Measure);
    }

    fn on_dial_failed(&mut self, now: Tick, session: SessionId, out: &mut AgentOut) {
        if !matches!(self.session, Session::Dialling { id, .. } if id == session) {
            self.counts.stale_events += 1;
            return;
        }
        self.wait(now, Ending::Unaccepted, out);
    }

    fn wait(&mut self, now: Tick, ending: Ending, out: &mut AgentOut) {
        if self.drain_until.is_some() {
            self.stop(out);
            return;
        }
        if let Some(duty) = &mut self.duty {
            duty.rest_at = None;
        }
        if self.is_off_duty() {
            self.rest(out);
            return;
        }
        let wait = self.backoff.wait(self.config.seed, ending);
        if ending == Ending::Unaccepted && self.backoff.is_unreachable_now() {
            out.push(AgentEffect::Notice(Notice::Unreachable));
        }
        self.session = Session::Waiting {
            dial_at: now + wait,
        };
    }

    /// The socket is gone.
    fn lose(&mut self, now: Tick, out: &mut AgentOut) {
        let Session::Open(open) = &self.session else {
            return;
        };
        let ending = open.ending(now);
        self.lose_as(now, ending, out);
    }

    fn lose_as(&mut self, now: Tick, ending: Ending, out: &mut AgentOut) {
        self.jobs.orphan_all(out);
        self.challenge = None;
        self.wait(now, ending, out);
    }

    fn stop(&mut self, out: &mut AgentOut) {
        self.jobs.orphan_all(out);
        self.session = Session::Stopped;
        out.push(AgentEffect::Stopped);
    }

    fn on_close(
        &mut self,
        now: Tick,
        session: SessionId,
        code: u16,
        reason: &str,
        out: &mut AgentOut,
    ) {
        let Some(open) = self.open(session) else {
            self.counts.stale_events += 1;
            return;
        };
        let departure = match (code, reason) {
            (GOING_AWAY, "drain:deploy") => Departure::Deploy,
            (GOING_AWAY, "drain:operator") => Departure::SentAway,
            _ => {
                let is_contested = (code, reason) == (POLICY, IDENTITY_CONTESTED);
                if is_contested {
                    out.push(AgentEffect::Notice(Notice::Contested));
                } else if (code, reason) == (POLICY, EARN_KEY_UNKNOWN) {
                    out.push(AgentEffect::Notice(Notice::EarnKeyUnknown));
                }
                let ending = if is_contested {
                    Ending::Contested
                } else {
                    open.ending(now)
                };
                out.push(AgentEffect::Abandon { session });
                self.lose_as(now, ending, out);
                return;
            }
        };
        open.leave(now, departure);
        out.push(AgentEffect::Notice(match departure {
            Departure::Deploy => Notice::CoordinatorDeploys,
            Departure::SentAway => Notice::SentAway,
        }));
        self.go_when_free(now, out);
    }

    fn on_drain_began(&mut self, now: Tick, out: &mut AgentOut) {
        if self.drain_until.is_some() {
            return;
        }
        self.drain_until = Some(now + self.config.drain_wait_max);
        match self.session {
            Session::Dialling { id, .. } => {
                out.push(AgentEffect::Abandon { session: id });
                self.stop(out);
            }
            // Tells the coordinator at once that nothing more fits.
            Session::Open(_) => out.push(AgentEffect::Measure),
            Session::Stopped => {}
            Session::Resting | Session::Waiting { .. } => self.stop(out),
        }
        self.go_when_free(now, out);
    }

    /// Leaves a socket that is to be left, once nobody waits for anything on it.
    pub(super) fn go_when_free(&mut self, now: Tick, out: &mut AgentOut) {
        let Some(session) = self.open_id() else {
            return;
        };
        if !self.is_leaving() || self.jobs.live_count() > 0 {
            return;
        }
        out.push(AgentEffect::Close {
            session,
            code: GOING_AWAY,
            reason: "",
        });
        self.lose(now, out);
    }

    fn on_woke(&mut self, now: Tick, out: &mut AgentOut) {
        self.on_clock_due(now, out);
        let is_over = |until: Option<Tick>| until.is_some_and(|until| until <= now);
        let is_time_up = is_over(self.drain_until) || is_over(self.rest_at());
        match &mut self.session {
            Session::Dialling { id, overdue_at } if *overdue_at <= now => {
                out.push(AgentEffect::Abandon { session: *id });
                self.wait(now, Ending::Unaccepted, out);
            }
            Session::Waiting { dial_at } if *dial_at <= now => {
                self.session_last = SessionId(self.session_last.0 + 1);
                let session = self.session_last;
                self.session = Session::dialling(now, session);
                out.push(AgentEffect::Dial { session });
            }
            Session::Dialling { .. }
            | Session::Resting
            | Session::Stopped
            | Session::Waiting { .. } => {}
            Session::Open(open) => {
                let id = open.id;
                if is_time_up || is_over(open.leaving.as_ref().map(|leaving| leaving.until)) {
                    self.jobs.refuse_all(&WireRefusal::draining(), out);
                    self.go_when_free(now, out);
                    return;
                }
                self.on_timers(now, id, out);
            }
        }
    }

    fn on_timers(&mut self, now: Tick, id: SessionId, out: &mut AgentOut) {
        let Some(open) = self.open(id) else {
            return;
        };
        match open.pulse(now) {
            Pulse::NotDue => {}
            Pulse::Alive => out.push(AgentEffect::Ping { session: id }),
            Pulse::Silent => {
                out.push(AgentEffect::Abandon { session: id });
                self.lose(now, out);
                return;
            }
            Pulse::Suspended => {
                out.push(AgentEffect::Notice(Notice::Suspended));
                out.push(AgentEffect::Abandon { session: id });
                self.jobs.orphan_all(out);
                self.challenge = None;
                self.wait(now, Ending::Suspended, out);
                return;
            }
        }
        if let Some(open) = self.open(id)
            && open.is_heartbeat_due(now)
        {
            out.push(AgentEffect::Measure);
        }
    }
}
