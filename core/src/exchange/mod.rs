//! What stands between the sockets and the machines: which machine is told what, in which order.
//!
//! Two halves. [`Control`] surrounds the one [`Coordinator`](crate::coordinator::Coordinator): it
//! knows the open requests and the ways to the connections. A [`Connection`] surrounds one
//! [`ProviderLink`](crate::link::ProviderLink): it knows the attempts that travel on it. They share
//! nothing but the requests' relays, and speak to each other in [`Order`]s one way and
//! [`Event`](crate::event::Event)s the other. Each runs in a task of its own, so whatever one tells
//! the other may arrive late; nothing may depend on which of two tasks runs first.
//!
//! Each step appends its effects in causal order and never calls itself: what an effect gives rise to
//! comes after the effects that stand before it. The coordinator's shell, the simulator, the benches
//! and the fuzzers all drive these two, and only move bytes.

mod connection;
mod control;
mod sealing;
#[cfg(test)]
mod tests;

pub use connection::{Connection, ConnectionEffect, ConnectionEvent};
pub use control::{Control, ControlEffect, ControlEvent, Witness};
pub use sealing::RequestKey;

use crate::envelope::SecretKey;
use crate::event::GoneCause;
use crate::ids::{AttemptKey, ModelIx, WireId};
use crate::relay::{AttemptNews, RelayEffect, RelayEvent};
use crate::time::Tick;

/// What the control half tells a connection half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order<R> {
    Cancel {
        attempt: AttemptKey,
    },
    Close {
        cause: GoneCause,
    },
    Dispatch {
        attempt: AttemptKey,
        wire: WireId,
        request: R,
    },
    /// Going away for a deployment.
    Drain,
    LoadModel {
        model: ModelIx,
    },
    /// Say that another process has the machine's identity.
    TellContested,
    /// Say that its machine is lost at work again and again.
    TellLossy,
}

/// What the place where a connection half runs does for it: it keeps the relays and the plaintext of open
/// requests, and it alone has randomness.
pub trait Host {
    /// Names an open request. A half keeps a name as long as it may need the request, and no longer:
    /// the last one to go frees the relay and the plaintext.
    type Request: Clone;

    /// Steps the relay of `request`; answers how `attempt` stands afterwards. What concerns the
    /// consumer is done here; what concerns the attempt is appended to `out`.
    fn step_relay(
        &mut self,
        now: Tick,
        request: &Self::Request,
        attempt: AttemptKey,
        event: RelayEvent<'_>,
        out: &mut Vec<RelayEffect>,
    ) -> AttemptNews;

    /// A secret that nobody had before. `None`: there is no randomness.
    fn secret(&mut self) -> Option<SecretKey>;

    /// Seals the request's body: the whole `inference_request` frame. `None`: there is no randomness,
    /// or the request was denied and its body is gone.
    fn seal(&mut self, request: &Self::Request, wire: WireId, with: &RequestKey)
    -> Option<Vec<u8>>;
}

/// A planted bug of the wiring, to prove that the simulator finds it. Never set outside tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExchangeMischief {
    #[default]
    None,
    /// Nobody hears of the terminal of an attempt that was cancelled.
    UnheardTerminal,
}
