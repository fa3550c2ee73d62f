//! One provider's connection: its WebSocket around the exchange's connection half.
//!
//! One task owns that half and both halves of the socket: it waits for a frame, for the end of a write,
//! for an order and for the time all at once, so that a slow peer stalls neither reading nor the clock
//! that gives it up.

use std::sync::Arc;

use cereus_core::envelope::{NONCE_SIZE, SecretKey};
use cereus_core::event::{Event, Trust};
use cereus_core::exchange::{self, ConnectionEffect, ConnectionEvent, Host, RequestKey};
use cereus_core::ids::{AttemptKey, ConnId, ModelIx, WireId};
use cereus_core::link::{LinkRules, NOTHING_SOLD, ProviderLink};
use cereus_core::relay::{AttemptNews, RelayEffect, RelayEvent};
use cereus_core::time::Tick;
use cereus_core::wire::messages::encode_inference_request;
use cereus_http::{Guest, SentAway};
use cereus_socket::{Heard, Socket};
use orion::util::secure_rand_bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::answer::Answer;
use crate::app::App;
use crate::control::{Notice, Order};
use crate::fingerprint::fingerprint;
use crate::receipts::Sealing;

/// Orders that may wait for this task; the coordinator lets go of a connection that has more.
const ORDERS_MAX: usize = 1_024;
/// Orders or frames of one turn: what they make us write goes out together.
const BATCH_MAX: usize = 64;

/// Serves one provider until its connection ends. It waits as a guest until it has passed a challenge,
/// and has to go if it is sent away before.
pub(crate) async fn serve<S>(app: Arc<App>, stream: S, guest: Guest, mut sent_away: SentAway)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let conn = app.fresh_conn();
    let mut followed = app.directory.follow_rules();
    let rules = Arc::clone(&followed.borrow_and_update());
    let (orders_in, mut orders) = mpsc::channel(ORDERS_MAX);
    let exchange = exchange::Connection::new(app.clock.now(), conn, app.unlinked, &rules);
    let frame_size_max = exchange.link().frame_size_max(&rules.config);
    let mut connection = Connection {
        exchange,
        app,
        conn,
        rules,
        out: Vec::new(),
        orders_in: Some(orders_in),
        guest: Some(guest),
        socket: Socket::accepted(stream, frame_size_max),
    };
    let mut batch = Vec::with_capacity(BATCH_MAX);
    tracing::debug!(conn = conn.0, "a provider connects");
    while let Some(wake) = connection.exchange.next_wake() {
        let wake = connection.app.clock.instant(wake);
        // Cancel safe: receiving from a channel or a stream and sleeping lose nothing.
        tokio::select! {
            heard = connection.socket.hear() => connection.heard_all(heard).await,
            count = orders.recv_many(&mut batch, BATCH_MAX) => {
                for order in batch.drain(..) {
                    connection.step(ConnectionEvent::Ordered(order)).await;
                }
                if count == 0 {
                    connection.step(ConnectionEvent::LetGo).await;
                }
            }
            Ok(()) = followed.changed() => {
                let rules = Arc::clone(&followed.borrow_and_update());
                connection.follow(rules).await;
            }
            // Too many connections wait at the door to prove themselves, and this one has waited
            // longest, so it goes.
            () = sent_away.called() => connection.step(ConnectionEvent::LetGo).await,
            () = tokio::time::sleep_until(wake) => connection.step(ConnectionEvent::Woke).await,
        }
    }
    connection.socket.end().await;
    tracing::debug!(conn = conn.0, "a provider's connection ended");
}

struct Connection<S> {
    app: Arc<App>,
    conn: ConnId,
    exchange: exchange::Connection<Arc<Answer>>,
    rules: Arc<LinkRules>,
    out: Vec<ConnectionEffect>,
    /// Given to the coordinator when the provider registers.
    orders_in: Option<mpsc::Sender<Order>>,
    /// Its place at the door, held until it has passed a challenge.
    guest: Option<Guest>,
    socket: Socket<S>,
}

impl<S> Connection<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    /// What was not sold may be sold now, and the other way round.
    async fn follow(&mut self, rules: Arc<LinkRules>) {
        self.rules = rules;
        self.step(ConnectionEvent::CatalogChanged).await;
    }

    /// Handles a message and those that have come with it.
    async fn heard_all(&mut self, first: Heard) {
        self.heard(first).await;
        for _ in 1..BATCH_MAX {
            // A connection that has ended wants no wake-up, and what still lies in its socket
            // concerns nobody.
            if self.exchange.next_wake().is_none() {
                break;
            }
            let Some(next) = self.socket.heard_already() else {
                break;
            };
            self.heard(next).await;
        }
    }

    async fn heard(&mut self, heard: Heard) {
        match heard {
            Heard::Frame(frame) => {
                if !self.exchange.link().is_joined() {
                    // The registration may name an earning key that was made a moment ago: only the
                    // newest rules know it.
                    self.rules = self.app.rules();
                }
                self.step(ConnectionEvent::FrameReceived(&frame)).await;
                let link = self.exchange.link();
                self.socket.allow(link.frame_size_max(&self.rules.config));
            }
            Heard::TooLarge => self.step(ConnectionEvent::FrameTooLarge).await,
            Heard::Closed { code, reason: _ } => {
                self.step(ConnectionEvent::SocketClosed { code }).await;
            }
            // The coordinator sends no pings, so a pong answers none.
            Heard::Pong => {}
            Heard::Written => self.step(ConnectionEvent::WriteFinished).await,
        }
    }

    /// One event and all that follows from it, in order.
    async fn step(&mut self, event: ConnectionEvent<'_, Arc<Answer>>) {
        let now = self.app.clock.now();
        let mut out = std::mem::take(&mut self.out);
        self.exchange
            .step(now, event, &self.rules, &mut Answers, &mut out);
        for effect in out.drain(..) {
            match effect {
                ConnectionEffect::Close { code, reason } => self.socket.close(code, reason),
                ConnectionEffect::Tell(event) => self.tell(event).await,
                ConnectionEffect::WasMisused(misuse) => {
                    tracing::error!(?misuse, "the link refused an event");
                }
                // The deadline needs no timer here: the link wakes for it by itself and closes a
                // write that stalls.
                ConnectionEffect::Write { frame, deadline: _ } => self.socket.write(frame),
            }
        }
        self.out = out;
    }

    async fn tell(&mut self, event: Event<'static>) {
        log(&event, self.exchange.link());
        // A connection leaves the door once it has passed a challenge with a key. Without one it
        // has proven nothing, so it remains a guest that may be sent away to make room for others.
        let has_key = self.exchange.link().trust() > Some(Trust::None);
        if has_key && matches!(event, Event::ProviderVerified { .. }) {
            self.guest = None;
        }
        let notice = match (&event, self.orders_in.take()) {
            (Event::ProviderJoined { .. }, Some(orders)) => Notice::Joined {
                conn: self.conn,
                orders,
                event,
            },
            (_, orders_in) => {
                self.orders_in = orders_in;
                Notice::Happened(event)
            }
        };
        // Closed only when the coordinator has ended.
        let _ = self.app.control.send(notice).await;
    }
}

/// What an operator wants to read of a connection's life.
fn log(event: &Event<'_>, link: &ProviderLink) {
    match event {
        Event::ProviderJoined {
            conn,
            machine,
            trust,
            models,
            ..
        } => {
            tracing::info!(
                conn = conn.0,
                machine = %format_args!("{:032x}", machine.0),
                ?trust,
                models = models.len(),
                "provider joined"
            );
            log_stock(*conn, models, link);
        }
        Event::ProviderRestocked { conn, models } => log_stock(*conn, models, link),
        Event::ProviderVerified { conn } => {
            tracing::info!(conn = conn.0, "provider passed its challenge");
        }
        Event::ProviderDistrusted { conn } => {
            tracing::warn!(conn = conn.0, "provider is not trusted any more");
        }
        Event::ProviderLeft { conn, cause } => {
            tracing::info!(conn = conn.0, ?cause, "provider left");
        }
        // Everything else would only repeat the journal, which records each event.
        Event::AccountCredited { .. }
        | Event::AccountOpened { .. }
        | Event::Arrived(_)
        | Event::AttemptAccepted { .. }
        | Event::AttemptCompleted { .. }
        | Event::AttemptFailed { .. }
        | Event::AttemptProgressed { .. }
        | Event::AttemptStarted { .. }
        | Event::ConsumerLeft { .. }
        | Event::DrainBegan
        | Event::HoldRecovered { .. }
        | Event::LimitsChanged { .. }
        | Event::ModelListed { .. }
        | Event::ModelLoadFailed { .. }
        | Event::ModelLoaded { .. }
        | Event::ModelPriced { .. }
        | Event::ProviderAttested { .. }
        | Event::WarmMinChanged { .. }
        | Event::ModelRetired { .. }
        | Event::Persisted { .. }
        | Event::ProviderReported { .. }
        | Event::ProviderUnverified { .. }
        | Event::Woke => {}
    }
}

fn log_stock(conn: ConnId, models: &[ModelIx], link: &ProviderLink) {
    if models.is_empty() {
        let unsold = link.unsold();
        tracing::warn!(
            conn = conn.0,
            ?unsold,
            "this provider gets no work: {NOTHING_SOLD}"
        );
    }
}

/// The relays and bodies of open requests live in the requests themselves.
struct Answers;

impl Host for Answers {
    type Request = Arc<Answer>;

    fn step_relay(
        &mut self,
        now: Tick,
        request: &Arc<Answer>,
        attempt: AttemptKey,
        event: RelayEvent<'_>,
        out: &mut Vec<RelayEffect>,
    ) -> AttemptNews {
        request.step_attempt(now, attempt, event, out)
    }

    fn secret(&mut self) -> Option<SecretKey> {
        let mut secret = Zeroizing::new([0; 32]);
        secure_rand_bytes(&mut *secret).ok()?;
        Some(SecretKey::from_bytes(*secret))
    }

    fn seal(&mut self, request: &Arc<Answer>, wire: WireId, with: &RequestKey) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_SIZE];
        secure_rand_bytes(&mut nonce).ok()?;
        let (mut scratch, mut ciphertext) = (Vec::new(), String::new());
        let body = request.body()?;
        with.key
            .seal_text(nonce, &body, &mut scratch, &mut ciphertext);
        let mut frame = Vec::new();
        encode_inference_request(
            wire,
            with.own.text().as_str(),
            with.step,
            &ciphertext,
            request.scope(),
            &mut frame,
        );
        request.sealed_with(Sealing {
            provider_key: fingerprint(&with.to.0),
            session_key: fingerprint(&with.own.0),
        });
        Some(frame)
    }
}
