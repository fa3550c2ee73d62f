//! The coordinator's end of one provider connection: bytes to facts, orders to bytes.
//!
//! A [`ProviderLink`] knows one socket. It decides what a frame means, whom the socket proved to be,
//! which frame is written next, and when silence or a stalled write ends it. It never opens a sealed
//! chunk: it hands it to the attempt's relay. Driven by a connection's task, by the simulator and by
//! the fuzzer.

mod attempts;
mod challenge;
mod farewell;
mod fault;
mod inbound;
mod join;
mod liveness;
mod machine;
mod orders;
mod outbox;
mod reports;
mod stock;
mod stray;

use crate::config::Catalog;
use crate::draw::Seed;
use crate::event::{Event, GoneCause, Shown, Usage, UsageParts};
use crate::ids::{AccountId, AttemptKey, ModelIx, WireId};
use crate::time::{Span, Tick};
use crate::wire::Text;
use crate::wire::proof::Posture;

pub use fault::fault_of;
pub use machine::{LinkCounts, ProviderLink};

/// Why a connection is closed whose registration names an earning key that nobody holds. Providers
/// compare it.
pub const EARN_KEY_UNKNOWN: &str = "earning key unknown";
/// Why a connection is closed whose machine works on another one, again and again; the one that stays
/// is told too. Providers compare it.
pub const IDENTITY_CONTESTED: &str =
    "another provider uses this identity: give each its own data folder";
/// What a machine is told that is lost at work again and again, once it is back. Providers compare it.
pub const LOST_AT_WORK: &str = "lost at work again and again: most likely the system ends the provider for \
    want of memory, so it gets one request at a time for a while";
/// What a machine is told that can serve nothing of what is sold. Providers compare it.
pub const NOTHING_SOLD: &str = "none of the models that it can serve is sold here";

/// What every link of a coordinator is told at birth, each value with its unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// Challenge nonces follow from it: a secret of this process.
    pub seed: Seed,
    /// Wall-clock seconds since 1970 at [`Tick::ZERO`]: challenges carry a date.
    pub unix_s_at_zero: u64,
    pub posture: Posture,
    /// Largest frame that is read.
    pub frame_size_max: usize,
    /// Largest frame that is read before the provider has registered.
    pub register_size_max: usize,
    /// How long a connection may take from the upgrade to its registration.
    pub register_wait_max: Span,
    pub stale_after: Span,
    pub sweep_every: Span,
    /// Stale sweeps in a row that end a connection.
    pub strikes_max: u8,
    pub challenge_every: Span,
    pub challenge_reply_max: Span,
    /// Failed challenges in a row after which nothing is routed there.
    pub challenge_failures_max: u8,
    /// Unanswered challenges in a row that end a connection.
    pub challenge_timeouts_max: u8,
    /// Frames waiting in the control lane.
    pub control_frames_max: usize,
    /// Frames waiting in the data lane.
    pub data_frames_max: usize,
    /// Bytes waiting in both lanes together.
    pub queued_bytes_max: usize,
    pub control_write_max: Span,
    /// Bytes a second that a write must make; a slower one counts as stalled.
    pub write_bytes_per_s_min: u64,
    pub data_write_min: Span,
    pub data_write_max: Span,
    /// Attempts that one connection may carry, cancelled ones included.
    pub attempts_max: usize,
    /// How long a cancelled attempt is remembered without a terminal.
    pub cancelled_keep: Span,
    /// Between two cancels of an id that nobody knows.
    pub stray_cancel_every: Span,
    /// Unknown ids that are remembered.
    pub stray_ids_max: usize,
}

impl LinkConfig {
    /// What a coordinator holds its providers to; "Limits and timeouts" in `docs/protocol.md` says why.
    #[must_use]
    pub const fn reference(seed: Seed, unix_s_at_zero: u64, posture: Posture) -> Self {
        Self {
            seed,
            unix_s_at_zero,
            posture,
            frame_size_max: crate::wire::limits::TO_COORDINATOR_SIZE_MAX,
            register_size_max: crate::wire::limits::REGISTER_SIZE_MAX,
            register_wait_max: Span::secs(10),
            stale_after: Span::secs(90),
            sweep_every: Span::secs(30),
            strikes_max: 2,
            challenge_every: Span::secs(5 * 60),
            challenge_reply_max: Span::secs(30),
            challenge_failures_max: 3,
            challenge_timeouts_max: 6,
            control_frames_max: 64,
            data_frames_max: 128,
            // Three frames of the largest size; the reference bounds the count only.
            queued_bytes_max: 3 * crate::wire::limits::TO_PROVIDER_SIZE_MAX,
            control_write_max: Span::secs(5),
            write_bytes_per_s_min: 2 * 1024 * 1024,
            data_write_min: Span::secs(5),
            data_write_max: Span::secs(30),
            // No machine runs more than 24 at once on each of three slots; the rest are cancelled
            // attempts whose terminal is still on its way.
            attempts_max: 1_024,
            cancelled_keep: Span::secs(60),
            stray_cancel_every: Span::secs(10),
            stray_ids_max: 4_096,
        }
    }
}

/// What a link looks things up in. One for all links of a coordinator; the caller may pass newer
/// rules with each step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkRules {
    pub config: LinkConfig,
    pub catalog: Catalog,
    pub owners: Owners,
}

/// Whose provider tokens are whose: by their SHA-256, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    by_token: Vec<([u8; 32], AccountId)>,
}

impl Owners {
    /// `entries` are SHA-256 digests of tokens and the accounts that earn.
    #[must_use]
    pub fn new(mut entries: Vec<([u8; 32], AccountId)>) -> Self {
        entries.sort_unstable();
        Self { by_token: entries }
    }

    #[must_use]
    pub fn digest(token: &str) -> [u8; 32] {
        use sha2::Digest as _;
        sha2::Sha256::digest(token.as_bytes()).into()
    }

    fn find(&self, token: &str) -> Option<AccountId> {
        let wanted = Self::digest(token);
        let ix = self
            .by_token
            .partition_point(|(digest, _)| *digest < wanted);
        let (digest, account) = self.by_token.get(ix)?;
        (*digest == wanted).then_some(*account)
    }
}

/// Something happened to the connection, or somebody wants something sent on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent<'f> {
    /// The coordinator gave this attempt up (`Effect::CancelAttempt`), of which so much was relayed.
    CancelRequested {
        attempt: AttemptKey,
        shown: Shown,
    },
    /// The rules of this step, and of those that follow, have another catalogue.
    CatalogChanged,
    /// The attempt's relay could not open what we delivered, so its provider did not seal it with the
    /// agreed key: a violation.
    ChunkRefused {
        wire: WireId,
    },
    /// The shell ends the connection: draining, or a send that failed.
    CloseRequested {
        code: u16,
        reason: &'static str,
    },
    /// A whole `inference_request` frame, sealed to [`ProviderLink::sealing_key`].
    DispatchRequested {
        attempt: AttemptKey,
        wire: WireId,
        frame: Vec<u8>,
    },
    /// The coordinator wants the connection gone (`Effect::Disconnect`).
    DisconnectRequested {
        cause: GoneCause,
    },
    FrameReceived(&'f [u8]),
    /// Another connection proves this machine's identity again and again (`Effect::TellContested`).
    IdentityContested,
    /// The coordinator wants a model in memory (`Effect::LoadModel`).
    LoadRequested {
        model: ModelIx,
    },
    /// The machine's connections are lost at work again and again (`Effect::TellLossy`).
    LossesSeen,
    /// The socket is gone, with the peer's close code when it sent one.
    SocketClosed {
        code: Option<u16>,
    },
    /// The time that `next_wake` named has come, or not: a spurious wake is harmless.
    Woke,
    /// The last `Write` is on the wire.
    WriteFinished,
}

/// What the shell does for the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEffect {
    /// Close the socket and forget the link; nothing follows.
    Close { code: u16, reason: &'static str },
    /// The attempt's terminal. The coordinator hears of it with what was relayed: the relay knows it,
    /// or the cancel told it.
    Completed {
        attempt: AttemptKey,
        wire: WireId,
        usage: Usage,
        parts: UsageParts,
        shown_when_cancelled: Option<Shown>,
    },
    /// An event for the coordinator. An `AttemptFailed` among them ends the attempt's relay.
    Tell(Event<'static>),
    /// Write this frame, alone, as one text message; then say `WriteFinished`. Past `deadline` the
    /// link gives the connection up.
    Write { frame: Vec<u8>, deadline: Tick },
}

/// A sealed piece of an answer, for the relay of `attempt`: sender, identity and form are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk<'f> {
    pub attempt: AttemptKey,
    pub wire: WireId,
    /// Base64 of nonce, tag and ciphertext, sealed by [`ProviderLink::sealing_key`].
    pub ciphertext: Text<'f>,
}

/// A reused buffer of effects. Drain it after every step, in order.
#[derive(Clone, Debug, Default)]
pub struct LinkOut {
    pub list: Vec<LinkEffect>,
}

impl LinkOut {
    pub fn clear(&mut self) {
        self.list.clear();
    }

    fn push(&mut self, effect: LinkEffect) {
        self.list.push(effect);
    }

    fn tell(&mut self, event: Event<'static>) {
        self.list.push(LinkEffect::Tell(event));
    }
}

/// Why a link wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkWake {
    ChallengeDue,
    ChallengeOverdue,
    RegisterOverdue,
    ReportDue,
    Sweep,
    WriteOverdue,
}

impl LinkWake {
    pub const ALL: [Self; 6] = [
        Self::ChallengeDue,
        Self::ChallengeOverdue,
        Self::RegisterOverdue,
        Self::ReportDue,
        Self::Sweep,
        Self::WriteOverdue,
    ];
}

/// The shell broke the contract. The state is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkMisuse {
    /// `WriteFinished` while nothing was being written.
    NothingWritten,
    /// A model index outside the catalogue.
    UnknownModel,
    /// The wire id is in use on this connection.
    WireIdReused,
}

#[cfg(test)]
mod tests;
