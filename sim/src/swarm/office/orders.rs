//! What the core orders, carried out.

use cereus_core::effect::{Effect, Effects};
use cereus_core::envelope::{BoxKey, PublicKey};
use cereus_core::event::{AttemptFault, Event};
use cereus_core::ids::{AttemptKey, ConnId, RequestId, WireId};
use cereus_core::link::{LinkEvent, ProviderLink};
use cereus_core::relay::RelayEvent;
use cereus_core::wire::messages::encode_inference_request;

use super::{Deed, Hands, Office, Sent, Todo, Word, nonce};
use crate::oracle::Origin;

impl Office {
    pub(super) fn carry_out(&mut self, effect: &Effect, out: &Effects, by: &mut Hands<'_>) {
        match *effect {
            Effect::Dispatch {
                request,
                attempt,
                conn,
                wire,
            } => {
                self.dispatch(request, attempt, conn, wire);
            }
            Effect::CancelAttempt { attempt, conn } => {
                if let Some(sent) = self.sent.get(&attempt) {
                    let cancelled = RelayEvent::AttemptCancelled { attempt };
                    self.todo.push_back(Todo::Relay(sent.request, cancelled));
                }
                self.todo
                    .push_back(Todo::Link(conn, LinkEvent::CancelRequested { attempt }));
            }
            Effect::Release { request } => {
                self.todo
                    .push_back(Todo::Relay(request, RelayEvent::Released));
            }
            Effect::Refuse { request, denial } | Effect::Fail { request, denial } => {
                self.todo
                    .push_back(Todo::Relay(request, RelayEvent::Denied { denial }));
            }
            Effect::Finish { request, receipt } => {
                let usage = out.receipts[receipt as usize].usage;
                let completion_tokens = usage.completion_tokens;
                let word = Word::Finished { completion_tokens };
                by.deeds.push(Deed::Word { request, word });
                self.todo
                    .push_back(Todo::Relay(request, RelayEvent::Finished { usage }));
            }
            Effect::Post { transfer } => {
                let seq = out.transfers[transfer as usize].seq;
                by.deeds.push(Deed::Post { seq });
            }
            Effect::Disconnect { conn, cause } => {
                self.todo
                    .push_back(Todo::Link(conn, LinkEvent::DisconnectRequested { cause }));
            }
            Effect::LoadModel { conn, model } => {
                self.todo
                    .push_back(Todo::Link(conn, LinkEvent::LoadRequested { model }));
            }
            Effect::Alarm { .. } | Effect::Drained => {}
        }
    }

    /// Seals the body to the provider and hands both ends their part.
    pub(super) fn dispatch(
        &mut self,
        request: RequestId,
        attempt: AttemptKey,
        conn: ConnId,
        wire: WireId,
    ) {
        let key = self.links.get(&conn).and_then(ProviderLink::sealing_key);
        let shared = key.and_then(|key| self.shared(key).map(|shared| (key, shared)));
        let (Some((key, shared)), Some(answering)) = (shared, self.answers.get(&request)) else {
            let fault = AttemptFault::Unsent;
            let failed = Event::AttemptFailed {
                conn,
                attempt,
                fault,
            };
            return self
                .todo
                .push_back(Todo::Core(Origin::Connection(conn), failed));
        };
        let mut ciphertext = String::new();
        self.nonces += 1;
        let nonce = nonce(self.nonces);
        shared.seal_text(nonce, &answering.lowered, &mut Vec::new(), &mut ciphertext);
        let mut frame = Vec::new();
        encode_inference_request(
            wire,
            self.sealing_text.as_str(),
            &ciphertext,
            "",
            &mut frame,
        );
        let sealer = key.text();
        self.sent.insert(
            attempt,
            Sent {
                request,
                conn,
                wire,
                sealer,
            },
        );
        let began = RelayEvent::AttemptBegan {
            attempt,
            key: shared,
            sealer,
        };
        self.todo.push_back(Todo::Relay(request, began));
        let ordered = LinkEvent::DispatchRequested {
            attempt,
            wire,
            frame,
        };
        self.todo.push_back(Todo::Link(conn, ordered));
    }

    /// The memoised key that this process shares with a provider.
    pub(super) fn shared(&mut self, peer: PublicKey) -> Option<BoxKey> {
        if !self.boxes.contains_key(&peer) {
            let agreed = self.secret.agree(&peer).ok()?;
            self.boxes.insert(peer, agreed);
        }
        self.boxes.get(&peer).cloned()
    }

    pub(super) fn of_attempt(
        &mut self,
        attempt: AttemptKey,
        event: impl FnOnce(ConnId) -> Event<'static>,
    ) {
        if let Some(sent) = self.sent.get(&attempt) {
            let conn = sent.conn;
            self.todo
                .push_back(Todo::Core(Origin::Connection(conn), event(conn)));
        }
    }
}
