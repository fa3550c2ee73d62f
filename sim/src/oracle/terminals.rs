//! The ends of attempts on the wire: what a provider says there, the coordinator hears at once.

use std::collections::BTreeMap;

use cereus_core::event::Event;
use cereus_core::exchange::Order;
use cereus_core::ids::{AttemptKey, ConnId, WireId};
use cereus_core::time::{Span, Tick};
use cereus_core::wire::ToCoordinator;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Carried {
    conn: ConnId,
    attempt: AttemptKey,
    cancelled_at: Option<Tick>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Terminals {
    carried: BTreeMap<WireId, Carried>,
    /// How long a cancelled attempt is remembered.
    keep: Span,
}

impl Terminals {
    #[must_use]
    pub const fn new(keep: Span) -> Self {
        Self {
            carried: BTreeMap::new(),
            keep,
        }
    }

    /// A connection takes an order.
    pub fn ordered<R>(&mut self, now: Tick, conn: ConnId, order: &Order<R>) {
        match *order {
            Order::Cancel { attempt } => {
                let mut carried = self.carried.values_mut();
                if let Some(carried) = carried.find(|carried| carried.attempt == attempt) {
                    carried.cancelled_at.get_or_insert(now);
                }
            }
            Order::Dispatch { attempt, wire, .. } => {
                let carried = Carried {
                    conn,
                    attempt,
                    cancelled_at: None,
                };
                self.carried.insert(wire, carried);
            }
            Order::Close { .. }
            | Order::Drain
            | Order::LoadModel { .. }
            | Order::TellContested
            | Order::TellLossy => {}
        }
    }

    /// The attempt whose end the connection must tell because of this frame, if there is one.
    #[must_use]
    pub fn owed(&self, now: Tick, conn: ConnId, frame: &[u8]) -> Option<AttemptKey> {
        let is_end = [
            &b"{\"type\":\"inference_complete\""[..],
            b"{\"type\":\"inference_error\"",
        ]
        .iter()
        .any(|start| frame.starts_with(start));
        let message = is_end.then(|| ToCoordinator::decode(frame))?.ok()?;
        let id = match &message {
            ToCoordinator::Complete(complete) => &complete.request_id,
            ToCoordinator::Error(error) => &error.request_id,
            ToCoordinator::Accepted(_)
            | ToCoordinator::AttestationResponse(_)
            | ToCoordinator::Chunk(_)
            | ToCoordinator::CodeAttestationResponse(_)
            | ToCoordinator::Heartbeat(_)
            | ToCoordinator::Later
            | ToCoordinator::LoadModelStatus(_)
            | ToCoordinator::ModelsUpdate(_)
            | ToCoordinator::PrefetchModelStatus(_)
            | ToCoordinator::Register(_) => return None,
        };
        let carried = self.carried.get(&WireId::parse(id)?)?;
        let is_remembered = carried
            .cancelled_at
            .is_none_or(|at| now.since(at) < self.keep);
        (carried.conn == conn && is_remembered).then_some(carried.attempt)
    }

    /// A connection tells the coordinator something.
    pub fn told(&mut self, event: &Event<'_>) {
        match event {
            Event::AttemptCompleted { attempt, .. } | Event::AttemptFailed { attempt, .. } => {
                self.carried
                    .retain(|_, carried| carried.attempt != *attempt);
            }
            Event::ProviderLeft { conn, .. } => {
                self.carried.retain(|_, carried| carried.conn != *conn);
            }
            _ => {}
        }
    }
}
