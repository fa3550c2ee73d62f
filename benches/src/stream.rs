//! One answer on its way: sealed by a provider, read by its link, opened and written by its relay, as
//! the exchange wires the two.

use cereus_core::api::{Api, Delivery, Writer};
use cereus_core::config::{Catalog, ModelSpec};
use cereus_core::draw::Seed;
use cereus_core::envelope::{BoxKey, KeyText, SecretKey};
use cereus_core::exchange::{
    Connection, ConnectionEffect, ConnectionEvent, Host, Order, RequestKey,
};
use cereus_core::ids::{AccountId, AttemptKey, ConnId, RequestId, WireId};
use cereus_core::link::{LinkConfig, LinkEvent, LinkOut, LinkRules, Owners, ProviderLink};
use cereus_core::money::Price;
use cereus_core::relay::{AttemptNews, Relay, RelayEffect, RelayEvent, Shape};
use cereus_core::time::{Span, Tick};
use cereus_core::wire::messages::{
    Capacity, Heartbeat, ModelEntry, Register, Slot, SystemMetrics, encode_inference_request,
};
use cereus_core::wire::proof::Posture;
use cereus_core::wire::{Frame, Text, ToCoordinator, encode_chunk};

/// Plaintext of a chunk, in bytes.
pub const CHUNK_SIZE: usize = 200;
/// Frames that a bench goes round: enough that none is in a cache by chance alone.
const FRAMES: usize = 64;
/// Chunks between two visits of the consumer's side.
const TAKE_EVERY: u32 = 16;
const MODEL: &str = "acme/tiny";
const ATTEMPT: AttemptKey = AttemptKey {
    slot: 1,
    generation: 1,
};
/// What passes between two chunks.
const BETWEEN: Span = Span::micros(500);

fn provider() -> SecretKey {
    SecretKey::from_bytes([7; 32])
}

fn session() -> SecretKey {
    SecretKey::from_bytes([9; 32])
}

fn wire() -> WireId {
    WireId::from_bits(0x1234_5678_9abc_def0)
}

/// One event of a stream, [`CHUNK_SIZE`] bytes long.
fn event() -> String {
    let head = "data: {\"id\":\"chatcmpl-5b3c\",\"object\":\"chat.completion.chunk\",\"created\":1782864000,\
                \"model\":\"acme/tiny\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"";
    let tail = "\"},\"finish_reason\":null}]}\n\n";
    let word = "x".repeat(CHUNK_SIZE - head.len() - tail.len());
    format!("{head}{word}{tail}")
}

/// The provider's side of a chunk.
pub struct Sealer {
    key: BoxKey,
    sealer: KeyText,
    event: String,
    nonce: u64,
    scratch: Vec<u8>,
    text: String,
    frame: Vec<u8>,
}

impl Default for Sealer {
    fn default() -> Self {
        Self::new()
    }
}

impl Sealer {
    /// # Panics
    /// Never: both keys are sound.
    #[must_use]
    pub fn new() -> Self {
        Self {
            key: provider()
                .agree(&session().public())
                .expect("both keys are sound"),
            sealer: provider().public().text(),
            event: event(),
            nonce: 0,
            scratch: vec![],
            text: String::new(),
            frame: vec![],
        }
    }

    /// Seals the next piece and writes its frame.
    pub fn seal(&mut self) -> &[u8] {
        self.nonce += 1;
        let mut nonce = [0; 24];
        nonce[..8].copy_from_slice(&self.nonce.to_le_bytes());
        self.text.clear();
        self.key.seal_text(
            nonce,
            self.event.as_bytes(),
            &mut self.scratch,
            &mut self.text,
        );
        self.frame.clear();
        encode_chunk(wire(), self.sealer.as_str(), &self.text, &mut self.frame);
        &self.frame
    }
}

/// Frames as they come from the socket.
#[must_use]
pub fn frames() -> Vec<Vec<u8>> {
    let mut sealer = Sealer::new();
    (0..FRAMES).map(|_| sealer.seal().to_vec()).collect()
}

/// A report of a machine with two models.
#[must_use]
pub fn heartbeat() -> Vec<u8> {
    let slot = |model: &'static str| Slot {
        model: model.into(),
        state: "running".into(),
        num_running: 3,
        max_concurrency: 8,
        active_tokens: 4_096,
        max_tokens_potential: 8_192,
        observed_decode_tps: 88.5,
        observed_prefill_tps: 1_250.25,
        active_token_budget_used: 1_500,
        active_token_budget_max: 60_000,
        kv_bytes_per_token: 98_304,
        model_load_time_ms: 2_140,
        ..Slot::default()
    };
    let heartbeat = Heartbeat {
        status: "serving".into(),
        active_model: Some(MODEL.into()),
        warm_models: vec![MODEL.into()],
        system_metrics: SystemMetrics {
            memory_pressure: 0.31,
            cpu_usage: 0.12,
            thermal_state: "nominal".into(),
        },
        backend_capacity: Some(Capacity {
            slots: vec![slot(MODEL), slot("acme/zebra")],
            gpu_memory_active_gb: 3.4,
            gpu_memory_peak_gb: 4.0,
            gpu_memory_cache_gb: 0.5,
            total_memory_gb: 96.0,
            free_for_load_gb: Some(71.25),
            capacity_seq: 7,
            ..Capacity::default()
        }),
        ..Heartbeat::default()
    };
    let mut frame = vec![];
    heartbeat.encode(&mut frame);
    frame
}

/// The one request of a [`Stream`], with a consumer that keeps up.
struct OneRequest {
    relay: Relay,
    taken: Vec<u8>,
    since_take: u32,
}

impl OneRequest {
    fn new() -> Self {
        let shape = Shape {
            delivery: Delivery::Streamed,
            include_usage: true,
            output_tokens_max: u32::MAX,
            stop_bytes_max: 0,
            silent_tokens_max: 0,
        };
        Self {
            relay: Relay::new(
                Writer::relayed(Api::Chat, RequestId(9), 1_782_864_000, MODEL),
                shape,
            ),
            taken: vec![],
            since_take: 0,
        }
    }

    fn take(&mut self) {
        self.since_take += 1;
        if self.since_take == TAKE_EVERY {
            self.since_take = 0;
            self.relay.take(&mut self.taken);
        }
    }
}

impl Host for OneRequest {
    type Request = ();

    fn step_relay(
        &mut self,
        now: Tick,
        (): &(),
        attempt: AttemptKey,
        event: RelayEvent<'_>,
        out: &mut Vec<RelayEffect>,
    ) -> AttemptNews {
        self.relay.step(now, event, out);
        // The consumer is told elsewhere.
        out.retain(|effect| !matches!(effect, RelayEffect::Open | RelayEffect::Readable));
        self.relay.news_of(attempt)
    }

    fn secret(&mut self) -> Option<SecretKey> {
        Some(session())
    }

    fn seal(&mut self, (): &(), wire: WireId, with: &RequestKey) -> Option<Vec<u8>> {
        let mut frame = vec![];
        encode_inference_request(wire, "key", with.step, "box", "", &mut frame);
        Some(frame)
    }
}

/// A joined connection with one attempt, and that attempt's relay.
pub struct Stream {
    connection: Connection<()>,
    rules: LinkRules,
    out: Vec<ConnectionEffect>,
    request: OneRequest,
    /// The link alone, with the same attempt.
    link: ProviderLink,
    link_out: LinkOut,
    relay_out: Vec<RelayEffect>,
    now: Tick,
    frames: Vec<Vec<u8>>,
    turn: usize,
}

impl Default for Stream {
    fn default() -> Self {
        Self::new()
    }
}

impl Stream {
    /// # Panics
    /// When the connection does not take a provider that does everything right.
    #[must_use]
    pub fn new() -> Self {
        let spec = |id: &str| ModelSpec {
            id: id.to_owned(),
            price: Price::DEFAULT,
            context_tokens: 4_096,
            output_tokens_default: 256,
            weights_bytes: 1,
        };
        let rules = LinkRules {
            config: LinkConfig::reference(Seed::from_number(5), 1_782_864_000, Posture::Advisory),
            catalog: Catalog::new(vec![spec(MODEL), spec("acme/zebra")]).expect("two models"),
            owners: Owners::default(),
        };
        let (conn, owner) = (ConnId(1), AccountId(1));
        let mut stream = Self {
            connection: Connection::new(Tick::ZERO, conn, owner, &rules),
            link: ProviderLink::new(Tick::ZERO, conn, owner, &rules.config),
            rules,
            out: vec![],
            request: OneRequest::new(),
            link_out: LinkOut::default(),
            relay_out: vec![],
            now: Tick(1),
            frames: frames(),
            turn: 0,
        };
        stream.open();
        stream
    }

    fn open(&mut self) {
        let sealer = provider().public().text();
        let register = Register {
            models: [MODEL, "acme/zebra"]
                .map(|id| ModelEntry {
                    id: id.into(),
                    ..ModelEntry::default()
                })
                .into(),
            backend: "cereus-mlx".into(),
            public_key: Text::from(sealer.as_str()),
            encrypted_response_chunks: true,
            ..Register::default()
        };
        let mut frame = vec![];
        register.encode(&mut frame);
        self.hear(&frame);
        let attempt = ATTEMPT;
        for event in [
            RelayEvent::AttemptDispatched {
                attempt,
                is_second: false,
            },
            RelayEvent::Released,
        ] {
            self.request
                .relay
                .step(self.now, event, &mut self.relay_out);
        }
        self.step(ConnectionEvent::Ordered(Order::Dispatch {
            attempt,
            wire: wire(),
            request: (),
        }));
        assert_eq!(self.connection.carried_count(), 1, "it took the dispatch");

        let mut inference = vec![];
        encode_inference_request(wire(), "key", None, "box", "", &mut inference);
        for event in [
            LinkEvent::FrameReceived(&frame),
            LinkEvent::DispatchRequested {
                attempt,
                wire: wire(),
                frame: inference,
            },
        ] {
            self.link
                .step(self.now, event, &self.rules, &mut self.link_out)
                .expect("a fresh id");
        }
        assert_eq!(self.link.attempts_count(), 1, "the link took the dispatch");
    }

    fn step(&mut self, event: ConnectionEvent<'_, ()>) {
        self.out.clear();
        self.connection.step(
            self.now,
            event,
            &self.rules,
            &mut self.request,
            &mut self.out,
        );
    }

    /// A frame that is no chunk.
    pub fn hear(&mut self, frame: &[u8]) {
        self.now = self.now + BETWEEN;
        self.step(ConnectionEvent::FrameReceived(frame));
    }

    /// Only the link's part of the next chunk.
    ///
    /// # Panics
    /// When the link does not relay the chunk.
    pub fn link_next(&mut self) {
        self.turn = (self.turn + 1) % self.frames.len();
        self.link_out.clear();
        let event = LinkEvent::FrameReceived(&self.frames[self.turn]);
        let chunk = self
            .link
            .step(self.now, event, &self.rules, &mut self.link_out);
        assert!(matches!(chunk, Ok(Some(_))), "the chunk is relayed");
    }

    /// Only the relay's part of the next chunk, with the decoding of its frame.
    ///
    /// # Panics
    /// When the frame is no chunk.
    pub fn relay_next(&mut self) {
        self.turn = (self.turn + 1) % self.frames.len();
        self.now = self.now + BETWEEN;
        let frame = &self.frames[self.turn];
        let Ok(ToCoordinator::Chunk(chunk)) = ToCoordinator::decode(frame) else {
            panic!("it is a chunk");
        };
        let event = RelayEvent::ChunkCame {
            attempt: ATTEMPT,
            chunk: &chunk,
        };
        self.relay_out.clear();
        self.request
            .relay
            .step(self.now, event, &mut self.relay_out);
        assert!(
            !self.relay_out.is_empty(),
            "the consumer has something to take"
        );
        self.request.take();
    }

    /// The whole way of the next chunk, from the socket's bytes to the consumer's.
    ///
    /// # Panics
    /// When the chunk is not relayed.
    pub fn next(&mut self) {
        self.turn = (self.turn + 1) % self.frames.len();
        let before = self.request.relay.counts().pieces;
        let frame = core::mem::take(&mut self.frames[self.turn]);
        self.hear(&frame);
        self.frames[self.turn] = frame;
        assert_ne!(
            self.request.relay.counts().pieces,
            before,
            "the chunk is relayed"
        );
        self.request.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_has_the_size_that_the_budget_speaks_of() {
        assert_eq!(event().len(), CHUNK_SIZE);
    }

    #[test]
    fn every_chunk_reaches_the_consumer() {
        let mut stream = Stream::new();
        for _ in 0..3 {
            stream.next();
        }
        stream.request.relay.take(&mut stream.request.taken);
        let taken = String::from_utf8(stream.request.taken.clone()).expect("text");
        assert_eq!(taken.matches("data: ").count(), 3);
    }
}
