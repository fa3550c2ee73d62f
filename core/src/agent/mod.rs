//! The provider's end of the wire.
//!
//! An [`Agent`] decides when to dial and how long to wait, what to say first, which work to take and
//! what becomes of it, when the coordinator is gone and how to leave. It performs nothing itself: the
//! provider's shell dials, writes, signs and runs the engine as the effects say, and reports back.
//! It never lets a word of an answer out unsealed. Driven by the provider's process, by the simulator
//! and by the fuzzer.

mod backoff;
mod duty;
mod frames;
mod hours;
mod jobs;
mod machine;
mod memory;
mod opening;
mod reply;
mod session;

#[cfg(test)]
mod tests;

use core::num::NonZeroU16;
use std::collections::BTreeMap;

use crate::api::{FinishReason, Piece};
use crate::draw::Seed;
use crate::envelope::SecretKey;
use crate::event::{Usage, UsageParts};
use crate::ids::WireId;
use crate::schedule::{LocalTime, Schedule};
use crate::slots::{BuildIx, Refusal};
use crate::time::{Span, Tick};
use crate::wire::messages::Heartbeat;

pub use self::machine::Agent;

/// First wait before dialling again, doubled each time up to [`BACKOFF_MAX`], so that a fleet that has lost
/// its coordinator does not hammer it.
pub const BACKOFF_MIN: Span = Span::secs(1);
pub const BACKOFF_MAX: Span = Span::secs(30);
/// A session that lasted this long starts the doubling anew.
pub const STABLE_SESSION: Span = Span::secs(30);
/// The first wait after a stable session is longer by at most this.
pub const STABLE_SPREAD_MAX: Span = Span::secs(4);
/// Dial, TLS and upgrade together.
pub const DIAL_WAIT_MAX: Span = Span::secs(10);
/// Failures in a row, none of them accepted, after which the operator hears of it once.
pub const UNREACHABLE_FAILURES: u32 = 10;
/// Between two heartbeats: five may be lost before a coordinator takes the last report for too old.
pub const HEARTBEAT_EVERY: Span = Span::secs(5);
/// Between two pings, by which a provider notices that its socket is dead.
pub const PING_EVERY: Span = Span::secs(10);
pub const PONG_WAIT_MAX: Span = Span::secs(30);
/// Between two firings of the ping timer: above it, the process was suspended.
pub const SUSPENSION_GAP: Span = Span::secs(30);
/// Wait after `drain:deploy`: at least this, and at most [`DEPLOY_WAIT_MAX`].
pub const DEPLOY_WAIT_MIN: Span = Span::secs(1);
pub const DEPLOY_WAIT_MAX: Span = Span::secs(5);
/// Wait after the coordinator said that another process has this machine's identity: until somebody
/// has stopped one of the two, coming back would only cut the other's answers.
pub const CONTESTED_WAIT: Span = Span::secs(300);
/// Wait after `drain:operator`.
pub const OPERATOR_WAIT: Span = Span::secs(30);
/// How long running jobs may finish on a socket that the coordinator asked to close.
pub const LEAVE_WAIT_MAX: Span = Span::secs(120);
/// Cancels remembered because their request has not come yet.
pub const EARLY_CANCELS_MAX: usize = 1_024;
/// Requests remembered after their terminal, so that a repeat is not run twice.
pub const ENDED_JOBS_MAX: usize = 1_024;
/// Longest challenge nonce and date that are answered, in bytes.
pub const CHALLENGE_SIZE_MAX: usize = 1_024;
/// What a draining provider answers to requests and to orders to load. Coordinators compare it: such a
/// refusal of an order is no fault, and the order may come again soon.
pub const DRAINING_TEXT: &str = "provider draining for update";

/// What an agent is told at birth.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The jitter of the waits between dials follows from it.
    pub seed: Seed,
    /// What requests are sealed to. A fresh one for each process, so that what was recorded of one cannot
    /// be opened with the key of the next.
    pub secret: SecretKey,
    /// Fresh random bytes for each process. With the counter behind them no nonce comes twice.
    pub nonce_prefix: [u8; 16],
    /// Builds that can be served here.
    pub builds: Vec<String>,
    pub jobs_max: NonZeroU16,
    /// How long running jobs may finish after the process was asked to end, or the owner's hours
    /// were over.
    pub drain_wait_max: Span,
    /// When the owner lets the machine serve.
    pub schedule: Schedule,
    pub facts: Facts,
}

/// What the machine says of itself in each challenge's answer, under its signature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub sip_enabled: Option<bool>,
    pub rdma_disabled: Option<bool>,
    pub secure_boot_enabled: Option<bool>,
    /// SHA-256 of the running program, hexadecimal; empty when unknown.
    pub binary_hash: String,
    /// Build to SHA-256 of its weights.
    pub model_hashes: BTreeMap<String, String>,
}

/// Numbers the sockets of one process, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// How the engine ended a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobEnd {
    Failed(JobFault),
    Finished {
        usage: Usage,
        parts: UsageParts,
        finish: FinishReason,
    },
    /// The agent had it stopped; `usage` is what it had done by then.
    Stopped {
        usage: Usage,
    },
}

/// Why a job failed. Each becomes a status and a word of the wire ("Errors" in `docs/protocol.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobFault {
    /// The request itself: a role, a parameter.
    Client,
    /// The engine broke.
    Internal,
    /// No memory for this prompt now.
    Memory,
    /// Its model is not in memory, or does not answer.
    NotLoaded(Refusal),
    /// The engine's queue is full.
    QueueFull,
    /// The chat template did not take the messages.
    Template,
    /// The prompt is longer than the model's context.
    TooLong,
    /// It waited too long for its turn.
    TurnOverdue,
}

/// Something happened. Events of a socket name the session that [`AgentEffect::Dial`] gave it; those
/// of an older socket take no effect.
#[derive(Clone, Debug)]
pub enum AgentEvent<'a> {
    /// The peer sent a close frame. What it allows us to send may still be sent.
    CloseReceived {
        session: SessionId,
        code: u16,
        reason: &'a str,
    },
    /// The upgrade is complete. `register` is the whole first frame.
    Connected {
        session: SessionId,
        register: &'a [u8],
    },
    DialFailed {
        session: SessionId,
    },
    /// SIGTERM: take nothing more, finish what runs.
    DrainBegan,
    FrameReceived {
        session: SessionId,
        frame: &'a [u8],
    },
    JobEnded {
        job: WireId,
        end: JobEnd,
    },
    JobSaid {
        job: WireId,
        piece: Piece<'a>,
    },
    /// The job runs, or waits for its model, for which there is room.
    JobTaken {
        job: WireId,
    },
    /// The answer to [`AgentEffect::ReadLocalTime`].
    LocalTimeRead {
        local: LocalTime,
    },
    /// The answer to [`AgentEffect::Measure`]. Status, counters and the sequence number are filled in
    /// here.
    Measured {
        heartbeat: Box<Heartbeat<'a>>,
    },
    /// The files of a model were hashed; each further challenge's answer says so.
    ModelHashed {
        build: &'a str,
        hash: &'a str,
    },
    ModelLoadFailed {
        build: &'a str,
        why: Refusal,
    },
    ModelLoaded {
        build: &'a str,
    },
    /// Something else is to be said of the models than at the registration. `update` is the whole
    /// frame.
    ModelsChanged {
        update: &'a [u8],
    },
    PongReceived {
        session: SessionId,
    },
    /// The answer to [`AgentEffect::Sign`]: base64 signatures, empty where there is no key.
    Signed {
        signature: &'a str,
        status_signature: &'a str,
    },
    /// The socket is gone: closed, reset, or a write failed.
    SocketClosed {
        session: SessionId,
    },
    Woke,
}

/// What the shell does for the agent, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentEffect {
    /// Drop the socket without a close frame.
    Abandon { session: SessionId },
    /// Send a close frame after everything before it, then drop the socket.
    Close {
        session: SessionId,
        code: u16,
        reason: &'static str,
    },
    /// Connect; then say `Connected` or `DialFailed` with this session.
    Dial { session: SessionId },
    /// Load this build; then say `ModelLoaded` or `ModelLoadFailed`.
    LoadModel { build: String },
    /// Say `Measured` now.
    Measure,
    /// Tell the operator.
    Notice(Notice),
    /// Send a WebSocket ping.
    Ping { session: SessionId },
    /// Say `LocalTimeRead` now.
    ReadLocalTime,
    /// Outside of the owner's hours: let go of every model.
    Rest,
    /// The owner's hours begin: load what is loaded at a start.
    Rise,
    /// Send one text frame.
    Send { session: SessionId, frame: Vec<u8> },
    /// Sign both texts with the machine's key; then say `Signed`.
    Sign { challenge: Vec<u8>, status: String },
    /// Run this chat completion. `build` is its place in [`AgentConfig::builds`], `body` an
    /// [`crate::api::Request`] that was read already. `scope` says whose prompts it may share a
    /// cache with; nobody's when empty.
    StartJob {
        job: WireId,
        build: BuildIx,
        body: OpenedBody,
        scope: String,
    },
    /// Stop the job soon; `JobEnded` follows in any case.
    StopJob { job: WireId },
    /// The agent has left: the process may end.
    Stopped,
}

/// What an operator may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Notice {
    /// A frame could not be read; it was dropped.
    BadFrame,
    /// The owner's hours are over: what runs may finish.
    HoursEnded,
    /// The coordinator accepted us.
    Joined,
    /// What this machine earns goes to the account of its earning key.
    Linked,
    /// Its connections ended while it worked, again and again: most likely the system ends the process
    /// for want of memory.
    LostAtWork,
    /// None of the models that this machine can serve is sold: it gets no work.
    NothingSold,
    /// Another process has this machine's identity.
    Contested,
    /// Nobody holds the earning key that was named. The coordinator is asked again.
    EarnKeyUnknown,
    /// The coordinator is restarting.
    CoordinatorDeploys,
    /// An operator of the coordinator asked us to go for a while.
    SentAway,
    /// Software differs from what the coordinator knows.
    RuntimeMismatch,
    /// The process slept, or its clock jumped.
    Suspended,
    /// Ten attempts in a row and no coordinator.
    Unreachable,
    /// The coordinator does not trust this machine.
    Untrusted,
}

/// A request's body where it was opened: owned, and not copied again. Prints no prompt.
#[derive(Clone, PartialEq, Eq)]
pub struct OpenedBody {
    /// The box as it came, with the plaintext at its end.
    opened: Vec<u8>,
    from: usize,
}

impl OpenedBody {
    fn at_the_end_of(opened: Vec<u8>, size: usize) -> Self {
        let from = opened.len().saturating_sub(size);
        Self { opened, from }
    }
}

impl OpenedBody {
    /// The body alone, in the buffer that it came in.
    #[must_use]
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.opened.drain(..self.from);
        self.opened
    }
}

impl From<Vec<u8>> for OpenedBody {
    fn from(body: Vec<u8>) -> Self {
        Self {
            opened: body,
            from: 0,
        }
    }
}

impl AsRef<[u8]> for OpenedBody {
    fn as_ref(&self) -> &[u8] {
        self.opened.get(self.from..).unwrap_or_default()
    }
}

impl core::fmt::Debug for OpenedBody {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "OpenedBody({} bytes)", self.as_ref().len())
    }
}

/// A reused buffer of effects. Drain it after every step, in order.
#[derive(Clone, Debug, Default)]
pub struct AgentOut {
    pub list: Vec<AgentEffect>,
}

impl AgentOut {
    pub fn clear(&mut self) {
        self.list.clear();
    }

    fn push(&mut self, effect: AgentEffect) {
        self.list.push(effect);
    }
}

/// Why an agent wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AgentWake {
    ClockDue,
    DialDue,
    DialOverdue,
    DrainOverdue,
    HeartbeatDue,
    LeaveOverdue,
    PingDue,
    RestOverdue,
}

impl AgentWake {
    pub const ALL: [Self; 8] = [
        Self::ClockDue,
        Self::DialDue,
        Self::DialOverdue,
        Self::DrainOverdue,
        Self::HeartbeatDue,
        Self::LeaveOverdue,
        Self::PingDue,
        Self::RestOverdue,
    ];
}

/// What happened so far, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AgentCounts {
    pub sessions: u64,
    pub stale_events: u64,
    pub bad_frames: u64,
    pub jobs_started: u64,
    pub jobs_refused: u64,
    pub duplicate_requests: u64,
    pub early_cancels: u64,
}

/// When something is due, where it is.
fn earlier(a: Option<(Tick, AgentWake)>, b: (Tick, AgentWake)) -> Option<(Tick, AgentWake)> {
    Some(a.map_or(b, |a| a.min(b)))
}
