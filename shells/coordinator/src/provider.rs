//! One provider's connection: its WebSocket around a [`ProviderLink`], and the relays of the answers
//! that travel on it.
//!
//! This task owns the link and reads; a second one writes, a frame at a time, so that a slow peer
//! stalls neither reading nor the clock that gives it up.

mod socket;

use std::collections::HashMap;
use std::sync::Arc;

use cereus_core::envelope::{BoxKey, NONCE_SIZE, PublicKey, SecretKey};
use cereus_core::event::{AttemptFault, Ending, Event};
use cereus_core::ids::{AttemptKey, ConnId, WireId};
use cereus_core::link::{Chunk, LinkEffect, LinkEvent, LinkOut, LinkRules, ProviderLink};
use cereus_core::relay::{RelayEffect, RelayEvent};
use cereus_core::time::{Span, Tick};
use cereus_core::wire::messages::encode_inference_request;
use orion::util::secure_rand_bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;

use crate::answer::Answer;
use crate::app::App;
use crate::control::{Notice, Order};
use crate::fingerprint::fingerprint;
use crate::receipts::Sealing;
use socket::{Heard, Socket};

/// Orders that may wait for this task; the coordinator lets go of a connection that has more.
const ORDERS_MAX: usize = 1_024;
/// How long an attempt that was cancelled is remembered, as the link does.
const CANCELLED_KEEP: Span = Span::secs(60);

/// Serves one provider until its connection ends.
pub(crate) async fn serve<S>(app: Arc<App>, socket: WebSocketStream<S>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let conn = app.fresh_conn();
    let rules = app.link_rules();
    let (orders_in, mut orders) = mpsc::channel(ORDERS_MAX);
    let mut connection = Connection {
        link: ProviderLink::new(app.clock.now(), conn, app.unlinked, &rules.config),
        app,
        conn,
        rules,
        out: LinkOut::default(),
        relay_out: Vec::new(),
        carried: HashMap::new(),
        orders_in: Some(orders_in),
        socket: Socket::start(socket),
    };
    tracing::debug!(conn = conn.0, "a provider connects");
    while !connection.link.is_closed() {
        let wake = connection
            .next_wake()
            .map(|at| connection.app.clock.instant(at));
        let wake_at = wake.unwrap_or_else(tokio::time::Instant::now);
        // Cancel safe: receiving from a channel or a stream and sleeping lose nothing.
        tokio::select! {
            heard = connection.socket.hear() => connection.heard(heard).await,
            order = orders.recv() => connection.ordered(order).await,
            () = tokio::time::sleep_until(wake_at), if wake.is_some() => connection.woke().await,
        }
    }
    connection.socket.end().await;
    tracing::debug!(conn = conn.0, "a provider's connection ended");
}

struct Connection {
    app: Arc<App>,
    conn: ConnId,
    link: ProviderLink,
    rules: Arc<LinkRules>,
    out: LinkOut,
    relay_out: Vec<RelayEffect>,
    carried: HashMap<AttemptKey, Carried>,
    /// Given to the coordinator when the provider registers.
    orders_in: Option<mpsc::Sender<Order>>,
    socket: Socket,
}

/// An attempt that travels on this connection.
struct Carried {
    answer: Arc<Answer>,
    wire: WireId,
    cancelled_at: Option<Tick>,
    /// When its relay wants to be woken.
    wake_at: Option<Tick>,
}

impl Connection {
    fn next_wake(&self) -> Option<Tick> {
        let relays = self.carried.values().filter_map(|carried| carried.wake_at);
        self.link
            .next_wake()
            .map(|(at, _)| at)
            .into_iter()
            .chain(relays)
            .min()
    }

    async fn heard(&mut self, heard: Heard) {
        match heard {
            Heard::Frame(frame) => {
                if !self.link.is_joined() {
                    // A key made a moment ago may earn.
                    self.rules = self.app.link_rules();
                }
                let now = self.app.clock.now();
                let rules = Arc::clone(&self.rules);
                let event = LinkEvent::FrameReceived(frame.as_bytes());
                let chunk = match self.link.step(now, event, &rules, &mut self.out) {
                    Ok(chunk) => chunk,
                    Err(misuse) => {
                        tracing::error!(?misuse, "the link refused a frame");
                        None
                    }
                };
                self.carry_out().await;
                if let Some(chunk) = chunk {
                    self.relay(now, &chunk).await;
                }
            }
            Heard::TooLarge => {
                let event = LinkEvent::CloseRequested {
                    code: 1009,
                    reason: "frame too large",
                };
                self.step(event).await;
            }
            Heard::Closed { code } => self.step(LinkEvent::SocketClosed { code }).await,
            Heard::Written => self.step(LinkEvent::WriteFinished).await,
        }
    }

    async fn ordered(&mut self, order: Option<Order>) {
        let Some(order) = order else {
            // The coordinator has let go of this connection.
            let event = LinkEvent::CloseRequested {
                code: 1001,
                reason: "let go",
            };
            self.step(event).await;
            return;
        };
        match order {
            Order::Cancel { attempt } => {
                let now = self.app.clock.now();
                if let Some(carried) = self.carried.get_mut(&attempt) {
                    carried.cancelled_at = Some(now);
                    let event = RelayEvent::AttemptCancelled { attempt };
                    carried.answer.step(now, event, &mut self.relay_out);
                }
                self.step(LinkEvent::CancelRequested { attempt }).await;
                self.forget_cancelled(now);
            }
            Order::Close { cause } => self.step(LinkEvent::DisconnectRequested { cause }).await,
            Order::Dispatch {
                attempt,
                wire,
                answer,
            } => {
                self.dispatch(attempt, wire, answer).await;
            }
            Order::Drain => {
                let event = LinkEvent::CloseRequested {
                    code: 1001,
                    reason: "drain:deploy",
                };
                self.step(event).await;
            }
            Order::LoadModel { model } => self.step(LinkEvent::LoadRequested { model }).await,
        }
    }

    async fn woke(&mut self) {
        let now = self.app.clock.now();
        self.step(LinkEvent::Woke).await;
        let due = |carried: &Carried| carried.wake_at.is_some_and(|at| at <= now);
        let due: Vec<AttemptKey> = self
            .carried
            .iter()
            .filter(|(_, it)| due(it))
            .map(|(key, _)| *key)
            .collect();
        for attempt in due {
            if let Some(carried) = self.carried.get_mut(&attempt) {
                carried
                    .answer
                    .step(now, RelayEvent::Woke, &mut self.relay_out);
                carried.wake_at = carried.answer.next_wake();
            }
            self.follow_relay().await;
        }
    }

    /// Seals the request to this provider's key under a fresh one of our own.
    async fn dispatch(&mut self, attempt: AttemptKey, wire: WireId, answer: Arc<Answer>) {
        let Some(sealed) = self
            .link
            .sealing_key()
            .and_then(|key| Sealed::new(key, wire, &answer))
        else {
            let fault = AttemptFault::Unsent;
            self.tell(Event::AttemptFailed {
                conn: self.conn,
                attempt,
                fault,
            })
            .await;
            return;
        };
        answer.sealed_with(sealed.sealing);
        let sealer = sealed.provider.text();
        let began = RelayEvent::AttemptBegan {
            attempt,
            key: sealed.key,
            sealer,
        };
        answer.step(self.app.clock.now(), began, &mut self.relay_out);
        let carried = Carried {
            answer,
            wire,
            cancelled_at: None,
            wake_at: None,
        };
        self.carried.insert(attempt, carried);
        self.step(LinkEvent::DispatchRequested {
            attempt,
            wire,
            frame: sealed.frame,
        })
        .await;
    }

    async fn relay(&mut self, now: Tick, chunk: &Chunk<'_>) {
        let Some(carried) = self.carried.get_mut(&chunk.attempt) else {
            return;
        };
        let event = RelayEvent::SealedCame {
            attempt: chunk.attempt,
            ciphertext: &chunk.ciphertext,
        };
        carried.answer.step(now, event, &mut self.relay_out);
        carried.wake_at = carried.answer.next_wake();
        self.follow_relay().await;
    }

    /// What a relay had to say about its attempt.
    async fn follow_relay(&mut self) {
        let conn = self.conn;
        let effects = std::mem::take(&mut self.relay_out);
        let is_breach = effects.iter().any(|effect| {
            matches!(
                effect,
                RelayEffect::AttemptFailed {
                    fault: AttemptFault::Encryption,
                    ..
                }
            )
        });
        for effect in effects {
            match effect {
                RelayEffect::AttemptStarted { attempt } => {
                    self.tell(Event::AttemptStarted { conn, attempt }).await;
                }
                RelayEffect::AttemptProgressed { attempt, shown } => {
                    self.tell(Event::AttemptProgressed {
                        conn,
                        attempt,
                        shown,
                    })
                    .await;
                }
                RelayEffect::AttemptCompleted {
                    attempt,
                    usage,
                    shown,
                    ending,
                } => {
                    if ending == Ending::Cut
                        && let Some(carried) = self.carried.get_mut(&attempt)
                    {
                        carried.cancelled_at = Some(self.app.clock.now());
                    }
                    let completed = Event::AttemptCompleted {
                        conn,
                        attempt,
                        usage,
                        shown,
                        ending,
                    };
                    self.tell(completed).await;
                }
                RelayEffect::AttemptFailed { attempt, .. } if is_breach => {
                    // The link cancels, distrusts and tells the coordinator.
                    if let Some(carried) = self.carried.remove(&attempt) {
                        self.step(LinkEvent::ChunkRefused { wire: carried.wire })
                            .await;
                    }
                }
                RelayEffect::AttemptFailed { attempt, fault } => {
                    if let Some(carried) = self.carried.get_mut(&attempt) {
                        carried.cancelled_at = Some(self.app.clock.now());
                    }
                    self.tell(Event::AttemptFailed {
                        conn,
                        attempt,
                        fault,
                    })
                    .await;
                }
                RelayEffect::Cancel { .. } if is_breach => {}
                RelayEffect::Cancel { attempt } => {
                    self.step(LinkEvent::CancelRequested { attempt }).await;
                }
                RelayEffect::Close
                | RelayEffect::Open
                | RelayEffect::Readable
                | RelayEffect::Refuse { .. } => {
                    unreachable!("what concerns the consumer stays with the answer")
                }
            }
        }
    }

    /// One event for the link that carries no chunk.
    async fn step(&mut self, event: LinkEvent<'static>) {
        let now = self.app.clock.now();
        if let Err(misuse) = self.link.step(now, event, &self.rules, &mut self.out) {
            tracing::error!(?misuse, "the link refused an event");
        }
        Box::pin(self.carry_out()).await;
    }

    async fn carry_out(&mut self) {
        let effects = std::mem::take(&mut self.out.list);
        for effect in effects {
            match effect {
                LinkEffect::Close { code, reason } => self.socket.close(code, reason),
                LinkEffect::Completed {
                    attempt,
                    usage,
                    parts,
                    wire: _,
                } => {
                    if let Some(carried) = self.carried.remove(&attempt) {
                        let event = RelayEvent::Completed {
                            attempt,
                            usage,
                            parts,
                        };
                        carried
                            .answer
                            .step(self.app.clock.now(), event, &mut self.relay_out);
                        self.follow_relay().await;
                    }
                }
                LinkEffect::Tell(event) => self.told(event).await,
                // The link watches the deadline itself.
                LinkEffect::Write { frame, .. } => self.socket.write(frame),
            }
        }
    }

    /// The link has an event for the coordinator.
    async fn told(&mut self, event: Event<'static>) {
        match &event {
            Event::ProviderJoined {
                machine,
                trust,
                models,
                ..
            } => {
                tracing::info!(
                    conn = self.conn.0,
                    machine = %format_args!("{:032x}", machine.0),
                    ?trust,
                    models = models.len(),
                    "provider joined"
                );
                if let Some(orders) = self.orders_in.take() {
                    let conn = self.conn;
                    let _ = self
                        .app
                        .control
                        .send(Notice::Joined {
                            conn,
                            orders,
                            event,
                        })
                        .await;
                }
                return;
            }
            Event::ProviderVerified { conn } => {
                tracing::info!(conn = conn.0, "provider passed its challenge");
            }
            Event::ProviderDistrusted { conn } => {
                tracing::warn!(conn = conn.0, "provider is not trusted any more");
            }
            Event::ProviderLeft { conn, cause } => {
                tracing::info!(conn = conn.0, ?cause, "provider left");
            }
            Event::AttemptFailed { attempt, fault, .. } => {
                let (attempt, fault) = (*attempt, *fault);
                if let Some(carried) = self.carried.remove(&attempt) {
                    self.end_relay(&carried.answer, attempt, fault);
                }
            }
            _ => {}
        }
        let has_left = matches!(event, Event::ProviderLeft { .. });
        self.tell(event).await;
        if has_left {
            for (attempt, carried) in std::mem::take(&mut self.carried) {
                self.end_relay(&carried.answer, attempt, AttemptFault::Internal);
            }
        }
    }

    /// The coordinator knows already: only the relay's side of the attempt ends.
    fn end_relay(&self, answer: &Answer, attempt: AttemptKey, fault: AttemptFault) {
        let mut known = Vec::new();
        let event = RelayEvent::Errored { attempt, fault };
        answer.step(self.app.clock.now(), event, &mut known);
    }

    async fn tell(&self, event: Event<'static>) {
        // Closed only when the coordinator has ended.
        let _ = self.app.control.send(Notice::Happened(event)).await;
    }

    fn forget_cancelled(&mut self, now: Tick) {
        self.carried
            .retain(|_, carried| match carried.cancelled_at {
                Some(at) => now.since(at) < CANCELLED_KEEP,
                None => true,
            });
    }
}

/// A request sealed for one attempt.
struct Sealed {
    provider: PublicKey,
    key: BoxKey,
    frame: Vec<u8>,
    sealing: Sealing,
}

impl Sealed {
    fn new(provider: PublicKey, wire: WireId, answer: &Answer) -> Option<Self> {
        let mut secret = [0; 32];
        let mut nonce = [0; NONCE_SIZE];
        secure_rand_bytes(&mut secret).ok()?;
        secure_rand_bytes(&mut nonce).ok()?;
        let own = SecretKey::from_bytes(secret);
        let key = own.agree(&provider).ok()?;
        let mut scratch = Vec::new();
        let mut ciphertext = String::new();
        key.seal_text(nonce, answer.body(), &mut scratch, &mut ciphertext);
        let sealer = own.public();
        let mut frame = Vec::new();
        let sealer_text = sealer.text();
        encode_inference_request(
            wire,
            sealer_text.as_str(),
            &ciphertext,
            answer.scope(),
            &mut frame,
        );
        let sealing = Sealing {
            provider_key: fingerprint(&provider.0),
            session_key: fingerprint(&sealer.0),
        };
        Some(Self {
            provider,
            key,
            frame,
            sealing,
        })
    }
}
