//! The state machine of one provider's socket, from its first byte to its close: its events,
//! one by one, to the part that each concerns.

use std::borrow::Cow;

use super::attempts::Attempts;
use super::challenge::Challenges;
use super::farewell::farewell;
use super::join::Session;
use super::liveness::{Liveness, Pulse};
use super::outbox::Outbox;
use super::stray::Strays;
use super::{
    Chunk, IDENTITY_CONTESTED, LOST_AT_WORK, LinkConfig, LinkEvent, LinkMisuse, LinkOut, LinkRules,
    LinkWake,
};
use crate::digest::Mix;
use crate::envelope::PublicKey;
use crate::event::{Event, GoneCause, Trust};
use crate::ids::{AccountId, AttemptKey, ConnId, MachineId, WireId};
use crate::time::Tick;

/// Bytes of a frame of somebody who has nothing to answer.
const IDLE_SIZE_MAX: usize = 1 << 20;

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
    pub loads_unasked: u64,
    /// Models of which no note was taken: they are not served, also should they be sold.
    pub models_unnoted: u64,
    pub registers_repeated: u64,
    pub stray_chunks: u64,
    /// Answers to challenges without a signature over their status.
    pub unsigned_statuses: u64,
    pub unexpected_terminals: u64,
}

#[derive(Clone, Debug, Hash)]
pub(super) enum Phase {
    Opening {
        /// When its patience ends.
        register_by: Tick,
    },
    Joined(Box<Session>),
    Closed,
}

/// See the module above. Cheap to make: it allocates when its provider registers.
#[derive(Clone, Debug, Hash)]
pub struct ProviderLink {
    pub(super) conn: ConnId,
    pub(super) owner: AccountId,
    pub(super) phase: Phase,
    pub(super) liveness: Liveness,
    pub(super) outbox: Outbox,
    pub(super) attempts: Attempts,
    pub(super) strays: Strays,
    pub(super) counts: LinkCounts,
}

impl ProviderLink {
    /// A socket that was just accepted. `owner` earns unless a provider token says otherwise.
    #[must_use]
    pub fn new(now: Tick, conn: ConnId, owner: AccountId, config: &LinkConfig) -> Self {
        Self {
            conn,
            owner,
            phase: Phase::Opening {
                register_by: now + config.register_wait_max,
            },
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
            LinkEvent::CancelRequested { attempt, shown } => {
                self.on_cancel(now, attempt, shown, rules);
            }
            LinkEvent::CatalogChanged => self.on_catalog(rules, out),
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
            LinkEvent::IdentityContested => {
                if self.is_joined() {
                    self.send_trust("online", IDENTITY_CONTESTED, rules);
                }
            }
            LinkEvent::LoadRequested { model } => self.on_load(model, rules, out)?,
            LinkEvent::LossesSeen => {
                if self.is_joined() {
                    self.send_trust("online", LOST_AT_WORK, rules);
                }
            }
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
        let (session, register_by) = match &self.phase {
            Phase::Closed => return None,
            Phase::Joined(session) => (Some(session), None),
            Phase::Opening { register_by } => (None, Some(*register_by)),
        };
        let challenges = session.map(|session| &session.challenges);
        let due = challenges.and_then(Challenges::due_at);
        let overdue = challenges.and_then(Challenges::overdue_at);
        let report = session.and_then(|session| session.reports.due_at());
        let stalled = self.outbox.write_deadline();
        [
            due.map(|at| (at, LinkWake::ChallengeDue)),
            overdue.map(|at| (at, LinkWake::ChallengeOverdue)),
            register_by.map(|at| (at, LinkWake::RegisterOverdue)),
            report.map(|at| (at, LinkWake::ReportDue)),
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

    /// It takes requests of a sealed session.
    #[must_use]
    pub fn takes_sessions(&self) -> bool {
        self.session().is_some_and(|session| session.takes_sessions)
    }

    #[must_use]
    pub fn machine(&self) -> Option<MachineId> {
        Some(self.session()?.machine)
    }

    /// The first of the models that the provider has and nobody sells here, for a log.
    #[must_use]
    pub fn unsold(&self) -> &[String] {
        self.session().map_or(&[], |session| session.stock.unsold())
    }

    /// How well the registration proved the machine's identity.
    #[must_use]
    pub fn trust(&self) -> Option<Trust> {
        Some(self.session()?.trust)
    }

    /// The id on the wire of an attempt between its dispatch and its terminal.
    #[must_use]
    pub fn wire_of(&self, attempt: AttemptKey) -> Option<WireId> {
        self.attempts.wire_of(attempt)
    }

    /// Largest frame that is read now: little of somebody who has nothing to answer.
    #[must_use]
    pub fn frame_size_max(&self, config: &LinkConfig) -> usize {
        if self.attempts.count() > 0 {
            return config.frame_size_max;
        }
        match self.is_joined() {
            true => config.frame_size_max.min(IDLE_SIZE_MAX),
            false => config.register_size_max,
        }
    }

    /// Attempts between dispatch and terminal, cancelled ones included.
    #[must_use]
    pub fn attempts_count(&self) -> usize {
        self.attempts.count()
    }

    pub(super) fn session(&self) -> Option<&Session> {
        match &self.phase {
            Phase::Joined(session) => Some(session),
            Phase::Opening { .. } | Phase::Closed => None,
        }
    }

    pub(super) fn session_mut(&mut self) -> Option<&mut Session> {
        match &mut self.phase {
            Phase::Joined(session) => Some(session),
            Phase::Opening { .. } | Phase::Closed => None,
        }
    }

    fn on_woke(&mut self, now: Tick, rules: &LinkRules, out: &mut LinkOut) {
        let is_past = |at: Option<Tick>| at.is_some_and(|at| at <= now);
        if is_past(self.outbox.write_deadline()) {
            let (code, reason) = farewell(GoneCause::WriteStalled);
            self.close(code, reason, GoneCause::WriteStalled, out);
            return;
        }
        if let Phase::Opening { register_by } = self.phase
            && register_by <= now
        {
            self.close(1008, "no registration", GoneCause::Silent, out);
            return;
        }
        if self.liveness.sweep(now, &rules.config) == Pulse::Silent {
            let (code, reason) = farewell(GoneCause::Silent);
            self.close(code, reason, GoneCause::Silent, out);
            return;
        }
        let conn = self.conn;
        let Some(session) = self.session_mut() else {
            return;
        };
        if let Some((report, slots)) = session.reports.due(now) {
            out.tell(Event::ProviderReported {
                conn,
                report,
                slots: Cow::Owned(slots),
            });
        }
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
}
