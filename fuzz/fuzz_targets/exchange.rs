//! Both halves of the exchange, with their tasks run in any order: whatever providers say and whoever
//! leaves, each request ends once for its consumer, and nothing names it any more when all has ended.
#![no_main]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, LazyLock};

use arbitrary::Arbitrary;
use cereus_core::api::{Api, Delivery, Writer};
use cereus_core::config::{Catalog, Config, Limits, ModelSpec};
use cereus_core::coordinator::{Coordinator, Misuse};
use cereus_core::draw::Seed;
use cereus_core::effect::Effects;
use cereus_core::envelope::{BoxKey, NONCE_SIZE, SecretKey};
use cereus_core::event::{Ask, Event, MachineReport, SlotReport, SlotState, Trust};
use cereus_core::exchange::{
    Connection, ConnectionEffect, ConnectionEvent, Control, ControlEffect, ControlEvent, Host,
    Order, RequestKey, Witness,
};
use cereus_core::ids::{AccountId, AttemptKey, ConnId, Epoch, ModelIx, RequestId, WireId};
use cereus_core::link::{LinkConfig, LinkRules, Owners};
use cereus_core::money::{MicroUsd, Price};
use cereus_core::relay::{AttemptNews, Relay, RelayEffect, RelayEvent, Shape};
use cereus_core::time::{Span, Tick};
use cereus_core::wire::messages::{
    InferenceAccepted, InferenceComplete, InferenceError, ModelEntry, Register, UsageFrame,
    encode_inference_request,
};
use cereus_core::wire::proof::Posture;
use cereus_core::wire::{Frame, Text, encode_chunk};
use cereus_fuzz::nested::unfolded;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Op {
    Accepted(u8),
    Ask { is_whole: bool },
    Completed { nth: u8, tokens: u16 },
    ConsumerLeft(u8),
    Content { nth: u8, words: u8 },
    Control { events: u8 },
    Distrusted(u8),
    Failed { nth: u8, status: u16 },
    Forged(u8),
    Frame { conn: u8, bytes: Vec<u8> },
    Ordered(u8),
    Passed(u16),
    Persisted,
    Read(u8),
    SocketClosed(u8),
    Woke(u8),
    Written(u8),
}

const OPS_MAX: usize = 150;
const CONNS: u8 = 3;
/// Orders that may wait for a connection, few enough to be reached.
const ORDERS_MAX: usize = 3;
/// Wakes after which everything must have ended.
const WAKES_MAX: u32 = 10_000;
const MODEL: &str = "acme/tiny";
const ACCOUNT: AccountId = AccountId(1);
const OWNER: AccountId = AccountId(2);

static SESSION: LazyLock<SecretKey> = LazyLock::new(|| SecretKey::from_bytes([1; 32]));
static PROVIDERS: LazyLock<Vec<SecretKey>> = LazyLock::new(|| {
    let keys = (0..CONNS).map(|conn| SecretKey::from_bytes([conn + 0x40; 32]));
    keys.collect()
});
static KEYS: LazyLock<Vec<BoxKey>> = LazyLock::new(|| {
    let keys = PROVIDERS.iter().map(|key| key.agree(&SESSION.public()));
    keys.map(|key| key.expect("both keys are sound")).collect()
});
static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
    let spec = ModelSpec {
        id: MODEL.to_owned(),
        price: Price::DEFAULT,
        context_tokens: 4_096,
        output_tokens_default: 256,
        weights_bytes: 1,
    };
    Catalog::new(vec![spec]).expect("one model")
});
static RULES: LazyLock<LinkRules> = LazyLock::new(|| LinkRules {
    config: LinkConfig {
        data_frames_max: 2,
        attempts_max: 4,
        ..LinkConfig::reference(Seed::from_number(5), 1_782_864_000, Posture::REFERENCE)
    },
    catalog: CATALOG.clone(),
    owners: Owners::default(),
});

fuzz_target!(|ops: Vec<Op>| {
    let mut scene = Scene::new();
    for op in ops.iter().take(OPS_MAX) {
        scene.apply(op);
    }
    scene.end();
});

/// The name of a request: whoever holds one can reach the plaintext.
type Name = Arc<RequestId>;

struct Invariants;

impl Witness for Invariants {
    fn before(&mut self, _: Tick, _: &Event<'_>) {}

    fn after(
        &mut self,
        _: Tick,
        event: &Event<'_>,
        stepped: Result<(), Misuse>,
        _: &Effects,
        core: &Coordinator,
    ) {
        assert_eq!(stepped, Ok(()), "after {event:?}");
        core.check();
    }
}

/// What a consumer has, and heard.
struct Consumer {
    name: Name,
    relay: Relay,
    taken: Vec<u8>,
    is_opened: bool,
    has_closed: bool,
    has_left: bool,
}

#[derive(Default)]
struct Consumers {
    list: Vec<Consumer>,
    nonces: u64,
}

impl Consumers {
    fn step(&mut self, now: Tick, name: &Name, event: RelayEvent<'_>) -> Vec<RelayEffect> {
        let ix = usize::try_from(name.0).expect("small");
        let consumer = &mut self.list[ix];
        let mut out = vec![];
        consumer.relay.step(now, event, &mut out);
        out.retain(|effect| {
            let silent = !consumer.has_closed && !consumer.has_left;
            match effect {
                RelayEffect::Open => {
                    assert!(silent && !consumer.is_opened, "headers go out once");
                    consumer.is_opened = true;
                }
                RelayEffect::Readable => assert!(silent && consumer.is_opened),
                RelayEffect::Refuse { .. } => {
                    assert!(silent && !consumer.is_opened, "the status is taken");
                    consumer.has_closed = true;
                }
                RelayEffect::Close => {
                    assert!(silent, "a request ends once");
                    consumer.has_closed = true;
                }
                RelayEffect::AttemptCut { .. }
                | RelayEffect::AttemptFailed { .. }
                | RelayEffect::AttemptProgressed { .. }
                | RelayEffect::AttemptStarted { .. } => return true,
            }
            false
        });
        out
    }

    fn nonce(&mut self) -> [u8; NONCE_SIZE] {
        self.nonces += 1;
        let mut nonce = [0; NONCE_SIZE];
        nonce[..8].copy_from_slice(&self.nonces.to_le_bytes());
        nonce
    }
}

impl Host for Consumers {
    type Request = Name;

    fn step_relay(
        &mut self,
        now: Tick,
        name: &Name,
        attempt: AttemptKey,
        event: RelayEvent<'_>,
        out: &mut Vec<RelayEffect>,
    ) -> AttemptNews {
        out.extend(self.step(now, name, event));
        self.list[usize::try_from(name.0).expect("small")]
            .relay
            .news_of(attempt)
    }

    fn secret(&mut self) -> Option<SecretKey> {
        Some(SESSION.clone())
    }

    fn seal(&mut self, _: &Name, wire: WireId, with: &RequestKey) -> Option<Vec<u8>> {
        let mut frame = vec![];
        encode_inference_request(wire, "key", with.step, "box", "", &mut frame);
        Some(frame)
    }
}

struct Post {
    connection: Connection<Name>,
    orders: VecDeque<Order<Name>>,
    is_let_go: bool,
    is_writing: bool,
    report_seq: u64,
}

struct Scene {
    control: Control<Name>,
    inbox: VecDeque<Event<'static>>,
    posts: BTreeMap<ConnId, Post>,
    consumers: Consumers,
    dispatched: Vec<(ConnId, WireId)>,
    now: Tick,
}

fn encoded<M: Frame>(message: &M) -> Vec<u8> {
    let mut out = vec![];
    message.encode(&mut out);
    out
}

impl Scene {
    fn new() -> Self {
        let config = Config {
            epoch: Epoch(0),
            seed: Seed::from_number(7),
            catalog: CATALOG.clone(),
            limits: Limits {
                requests_max: 12,
                queue_depth_max: 3,
                ..Limits::reference()
            },
            fee_percent: 5,
            trust_min: Trust::None,
        };
        let mut scene = Self {
            control: Control::new(config),
            inbox: VecDeque::new(),
            posts: BTreeMap::new(),
            consumers: Consumers::default(),
            dispatched: vec![],
            now: Tick(1),
        };
        for (account, balance) in [(ACCOUNT, 2_000), (OWNER, 0)] {
            let balance = MicroUsd(balance);
            scene
                .inbox
                .push_back(Event::AccountOpened { account, balance });
        }
        for conn in 0..CONNS {
            scene.join(conn);
        }
        scene.control_turn(u8::MAX);
        scene
    }

    fn join(&mut self, number: u8) {
        let conn = ConnId(u64::from(number));
        let post = Post {
            connection: Connection::new(self.now, conn, OWNER, &RULES),
            orders: VecDeque::new(),
            is_let_go: false,
            is_writing: false,
            report_seq: 0,
        };
        self.posts.insert(conn, post);
        let sealing = PROVIDERS[usize::from(number)].public().text();
        let register = Register {
            models: vec![ModelEntry {
                id: Text::from(MODEL),
                ..ModelEntry::default()
            }],
            backend: Text::from("cereus-mlx"),
            public_key: Text::from(sealing.as_str()),
            encrypted_response_chunks: true,
            ..Register::default()
        };
        self.frame(conn, &encoded(&register));
        // The challenge has been passed, and the machine says that it has room.
        self.inbox.push_back(Event::ProviderVerified { conn });
        self.report(conn);
    }

    fn report(&mut self, conn: ConnId) {
        let Some(post) = self.posts.get_mut(&conn) else {
            return;
        };
        post.report_seq += 1;
        let report = MachineReport {
            seq: post.report_seq,
            has_capacity: true,
            ..MachineReport::default()
        };
        let slot = SlotReport {
            model: ModelIx(0),
            state: SlotState::Idle,
            running: 0,
            waiting: 0,
            concurrency_max: 2,
            budget_used: 0,
            budget_max: 0,
            budget_queued: 0,
            decode_mtps: 50_000,
            prefill_mtps: 1_000_000,
            load_ms: 0,
            wedged: false,
        };
        self.inbox.push_back(Event::ProviderReported {
            conn,
            report,
            slots: vec![slot].into(),
        });
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Accepted(nth) => self.says(*nth, |request_id| {
                encoded(&InferenceAccepted { request_id })
            }),
            Op::Ask { is_whole } => self.ask(*is_whole),
            Op::Completed { nth, tokens } => self.says(*nth, |request_id| {
                encoded(&InferenceComplete {
                    request_id,
                    usage: UsageFrame {
                        prompt_tokens: 3,
                        completion_tokens: i64::from(*tokens),
                        ..UsageFrame::default()
                    },
                    ..InferenceComplete::default()
                })
            }),
            Op::ConsumerLeft(number) => self.leave(*number),
            Op::Content { nth, words } => self.content(*nth, *words, true),
            Op::Control { events } => self.control_turn(*events),
            Op::Distrusted(conn) => {
                let conn = ConnId(u64::from(*conn % CONNS));
                self.inbox.push_back(Event::ProviderDistrusted { conn });
            }
            Op::Failed { nth, status } => self.says(*nth, |request_id| {
                encoded(&InferenceError {
                    request_id,
                    status_code: i64::from(*status),
                    ..InferenceError::default()
                })
            }),
            Op::Forged(nth) => self.content(*nth, 1, false),
            Op::Frame { conn, bytes } => {
                self.frame(ConnId(u64::from(*conn % CONNS)), &unfolded(bytes));
            }
            Op::Ordered(conn) => self.order(ConnId(u64::from(*conn % CONNS))),
            Op::Passed(millis) => self.now = self.now + Span::millis(u64::from(*millis)),
            Op::Persisted => self.persist(),
            Op::Read(number) => self.read(*number),
            Op::SocketClosed(conn) => {
                let conn = ConnId(u64::from(*conn % CONNS));
                self.connection(conn, ConnectionEvent::SocketClosed { code: None });
            }
            Op::Woke(conn) => match conn % (CONNS + 1) {
                CONNS => self.control(ControlEvent::Happened(Event::Woke)),
                conn => self.connection(ConnId(u64::from(conn)), ConnectionEvent::Woke),
            },
            Op::Written(conn) => self.written(ConnId(u64::from(*conn % CONNS))),
        }
    }

    fn ask(&mut self, is_whole: bool) {
        let delivery = if is_whole {
            Delivery::Whole
        } else {
            Delivery::Streamed
        };
        let number = self.consumers.list.len();
        let id = RequestId(number as u128);
        let shape = Shape {
            delivery,
            include_usage: false,
            output_tokens_max: 60,
            stop_bytes_max: 0,
            silent_tokens_max: 0,
        };
        let name = Arc::new(id);
        self.consumers.list.push(Consumer {
            name: Arc::clone(&name),
            relay: Relay::new(Writer::relayed(Api::Chat, id, 5, MODEL), shape),
            taken: vec![],
            is_opened: false,
            has_closed: false,
            has_left: false,
        });
        let ask = Ask {
            prompt_tokens: 3,
            prompt_tokens_bound: 12,
            output_tokens_max: 60,
            delivery,
            ..Ask::new(id, ACCOUNT, ModelIx(0))
        };
        self.control(ControlEvent::Arrived { ask, request: name });
    }

    fn leave(&mut self, number: u8) {
        let count = self.consumers.list.len();
        let Some(ix) = usize::from(number).checked_rem(count) else {
            return;
        };
        let consumer = &mut self.consumers.list[ix];
        if consumer.has_closed || core::mem::replace(&mut consumer.has_left, true) {
            return;
        }
        let name = Arc::clone(&consumer.name);
        let rest = self
            .consumers
            .step(self.now, &name, RelayEvent::ConsumerLeft);
        assert!(rest.is_empty());
        self.inbox.push_back(Event::ConsumerLeft { request: *name });
    }

    fn read(&mut self, number: u8) {
        let count = self.consumers.list.len();
        let Some(ix) = usize::from(number).checked_rem(count) else {
            return;
        };
        let consumer = &mut self.consumers.list[ix];
        let mut bytes = vec![];
        consumer.relay.take(&mut bytes);
        assert!(bytes.is_empty() || consumer.is_opened);
        consumer.taken.extend_from_slice(&bytes);
    }

    /// Each word tells which attempt said it, so that a mixed answer is seen.
    fn content(&mut self, nth: u8, words: u8, is_sealed_well: bool) {
        let Some((conn, wire)) = self.dispatch_of(nth) else {
            return;
        };
        let ix = usize::try_from(conn.0).expect("small");
        let text = format!("{wire} ").repeat(usize::from(words % 4) + 1);
        let event = format!(r#"data: {{"choices":[{{"delta":{{"content":"{text}"}}}}]}}"#);
        let key = if is_sealed_well {
            &KEYS[ix]
        } else {
            &KEYS[(ix + 1) % KEYS.len()]
        };
        let nonce = self.consumers.nonce();
        let mut ciphertext = String::new();
        key.seal_text(nonce, event.as_bytes(), &mut vec![], &mut ciphertext);
        let sealer = PROVIDERS[ix].public().text();
        let mut frame = vec![];
        encode_chunk(wire, sealer.as_str(), &ciphertext, &mut frame);
        self.frame(conn, &frame);
    }

    fn says(&mut self, nth: u8, frame: impl FnOnce(Text<'static>) -> Vec<u8>) {
        if let Some((conn, wire)) = self.dispatch_of(nth) {
            self.frame(conn, &frame(Text::from(wire.to_string())));
        }
    }

    /// The newest is 0: most operations concern it.
    fn dispatch_of(&self, nth: u8) -> Option<(ConnId, WireId)> {
        let count = self.dispatched.len();
        let back = usize::from(nth).checked_rem(count)?;
        Some(self.dispatched[count - 1 - back])
    }

    fn order(&mut self, conn: ConnId) {
        let Some(post) = self.posts.get_mut(&conn) else {
            return;
        };
        match post.orders.pop_front() {
            Some(order) => self.connection(conn, ConnectionEvent::Ordered(order)),
            None if post.is_let_go => self.connection(conn, ConnectionEvent::LetGo),
            None => {}
        }
    }

    fn written(&mut self, conn: ConnId) {
        let post = self.posts.get_mut(&conn);
        if post.is_some_and(|post| core::mem::take(&mut post.is_writing)) {
            self.connection(conn, ConnectionEvent::WriteFinished);
        }
    }

    fn frame(&mut self, conn: ConnId, frame: &[u8]) {
        self.connection(conn, ConnectionEvent::FrameReceived(frame));
    }

    fn connection(&mut self, conn: ConnId, event: ConnectionEvent<'_, Name>) {
        let Some(post) = self.posts.get_mut(&conn) else {
            return;
        };
        let mut out = vec![];
        post.connection
            .step(self.now, event, &RULES, &mut self.consumers, &mut out);
        for effect in out {
            match effect {
                ConnectionEffect::Close { .. } => {}
                ConnectionEffect::Tell(event) => self.inbox.push_back(event),
                ConnectionEffect::WasMisused(misuse) => panic!("{misuse:?}"),
                ConnectionEffect::Write { .. } => {
                    assert!(!post.is_writing, "one frame at a time");
                    post.is_writing = true;
                }
            }
        }
        if post.connection.next_wake().is_none() {
            assert_eq!(post.connection.carried_count(), 0, "it lets go of all");
            self.posts.remove(&conn);
        }
    }

    fn persist(&mut self) {
        let up_to = self.control.core().books().last_seq();
        self.control(ControlEvent::Happened(Event::Persisted { up_to }));
    }

    fn control_turn(&mut self, events: u8) {
        for _ in 0..events {
            let Some(event) = self.inbox.pop_front() else {
                return;
            };
            self.control(ControlEvent::Happened(event));
        }
    }

    fn control(&mut self, event: ControlEvent<Name>) {
        let mut todo = VecDeque::from([event]);
        while let Some(event) = todo.pop_front() {
            let mut out = vec![];
            self.control
                .step(self.now, event, &mut Invariants, &mut out);
            for effect in out {
                match effect {
                    ControlEffect::LetGo { conn } => {
                        if let Some(post) = self.posts.get_mut(&conn) {
                            post.is_let_go = true;
                        }
                    }
                    ControlEffect::Order { conn, order } => {
                        if let Order::Dispatch { wire, .. } = &order {
                            self.dispatched.push((conn, *wire));
                        }
                        let room = self
                            .posts
                            .get_mut(&conn)
                            .filter(|post| !post.is_let_go && post.orders.len() < ORDERS_MAX);
                        match room {
                            Some(post) => post.orders.push_back(order),
                            None => todo.push_back(ControlEvent::OrderRefused { conn, order }),
                        }
                    }
                    ControlEffect::Relay { request, event } => {
                        let rest = self.consumers.step(self.now, &request, event);
                        assert!(rest.is_empty(), "it concerns the consumer only");
                    }
                    ControlEffect::Alarm { .. }
                    | ControlEffect::Charged { .. }
                    | ControlEffect::Denied { .. }
                    | ControlEffect::Drained
                    | ControlEffect::Finished { .. }
                    | ControlEffect::Post { .. }
                    | ControlEffect::Released { .. } => {}
                    ControlEffect::CreditRefused { misuse, .. }
                    | ControlEffect::WasMisused(misuse) => panic!("{misuse:?}"),
                }
            }
        }
    }

    /// The fleet goes, time passes, and nothing is left.
    fn end(&mut self) {
        for conn in 0..CONNS {
            let conn = ConnId(u64::from(conn));
            self.connection(conn, ConnectionEvent::SocketClosed { code: None });
        }
        for _ in 0..WAKES_MAX {
            while !self.inbox.is_empty() {
                self.control_turn(u8::MAX);
            }
            self.persist();
            let Some((at, _)) = self.control.core().next_wake() else {
                break;
            };
            self.now = Tick(self.now.0.max(at.0) + Span::millis(1).0);
            self.control(ControlEvent::Happened(Event::Woke));
        }
        self.control.core().invariant_quiescent();
        for number in 0..self.consumers.list.len() {
            self.read(u8::try_from(number).unwrap_or(u8::MAX));
        }
        for consumer in &self.consumers.list {
            assert!(consumer.has_closed || consumer.has_left, "it ends for all");
            assert_eq!(Arc::strong_count(&consumer.name), 1, "nobody keeps it");
            let text = String::from_utf8(consumer.taken.clone()).expect("text");
            let said = self.dispatched.iter();
            let speakers = said.filter(|(_, wire)| text.contains(&wire.to_string()));
            assert!(speakers.count() <= 1, "one attempt speaks: {text}");
        }
    }
}
