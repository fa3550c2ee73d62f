//! Both halves with two providers, each task run by hand in the order that a test wants.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::*;
use crate::api::{Api, Delivery, Writer};
use crate::config::{Catalog, Config, Limits, ModelSpec};
use crate::coordinator::{Coordinator, Misuse};
use crate::denial::Denial;
use crate::draw::Seed;
use crate::effect::{Effects, TransferKind};
use crate::envelope::{BoxKey, NONCE_SIZE, SecretKey};
use crate::event::{Ask, Event, MachineReport, SlotReport, SlotState, Trust};
use crate::ids::{AccountId, ConnId, Epoch, ModelIx, RequestId};
use crate::link::{LinkConfig, LinkRules, Owners};
use crate::money::{MicroUsd, Price};
use crate::relay::{Relay, Shape};
use crate::wire::messages::{
    InferenceComplete, ModelEntry, Register, UsageFrame, encode_inference_request,
};
use crate::wire::proof::Posture;
use crate::wire::{Frame, Text, encode_chunk};

const MODEL: &str = "acme/tiny";
const ACCOUNT: AccountId = AccountId(1);
const OWNER: AccountId = AccountId(9);
const A: ConnId = ConnId(1);
const B: ConnId = ConnId(2);

/// The name of a request: its last holder is the last who can reach the plaintext.
type Name = Arc<RequestId>;

/// The oracles of the simulator stand here elsewhere.
struct Nobody;

impl Witness for Nobody {
    fn before(&mut self, _: Tick, _: &Event<'_>) {}

    fn after(
        &mut self,
        _: Tick,
        _: &Event<'_>,
        _: Result<(), Misuse>,
        _: &Effects,
        core: &Coordinator,
    ) {
        core.check();
    }
}

/// The relays of all requests.
#[derive(Default)]
struct Relays {
    relays: BTreeMap<RequestId, Relay>,
    /// The key of each attempt, as its provider knows it.
    keys: BTreeMap<WireId, BoxKey>,
    /// What consumers heard.
    heard: Vec<RelayEffect>,
    sealed_count: u8,
}

impl Relays {
    fn step(&mut self, now: Tick, name: &Name, event: RelayEvent<'_>) -> Vec<RelayEffect> {
        let mut out = Vec::new();
        let relay = self.relays.get_mut(&**name).expect("it was opened");
        relay.step(now, event, &mut out);
        let (consumer, attempt) = out.into_iter().partition(|effect| {
            matches!(
                effect,
                RelayEffect::Close
                    | RelayEffect::Open
                    | RelayEffect::Readable
                    | RelayEffect::Refuse { .. }
            )
        });
        self.heard.extend::<Vec<_>>(consumer);
        attempt
    }
}

impl Host for Relays {
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
        self.relays[&**name].news_of(attempt)
    }

    fn secret(&mut self) -> Option<SecretKey> {
        self.sealed_count += 1;
        Some(SecretKey::from_bytes([self.sealed_count; 32]))
    }

    fn seal(&mut self, _: &Name, wire: WireId, with: &RequestKey) -> Option<Vec<u8>> {
        self.keys.insert(wire, with.key.clone());
        let mut frame = Vec::new();
        let own = with.own.text();
        encode_inference_request(wire, own.as_str(), with.step, "x", "", &mut frame);
        Some(frame)
    }
}

struct World {
    control: Control<Name>,
    connections: BTreeMap<ConnId, Connection<Name>>,
    orders: BTreeMap<ConnId, VecDeque<Order<Name>>>,
    orders_max: usize,
    relays: Relays,
    rules: LinkRules,
    now: Tick,
    /// The wire id of each attempt that was dispatched, oldest first.
    dispatched: Vec<(ConnId, WireId)>,
    posted: Vec<(TransferKind, Option<u64>)>,
    /// Whom receipts were given for after they had been denied, and what was charged.
    charged: Vec<(RequestId, MicroUsd)>,
    denied: Vec<Denial>,
    /// Deposits that count for nobody.
    refused: Vec<u64>,
    let_go: Vec<ConnId>,
    /// Frames stay unwritten, so that what stands behind them can be withdrawn.
    holds_writes: bool,
}

fn provider(conn: ConnId) -> SecretKey {
    SecretKey::from_bytes([u8::try_from(conn.0).unwrap() + 0x40; 32])
}

fn encoded<M: Frame>(message: &M) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out);
    out
}

impl World {
    /// Two machines that can serve, and an account with money for one request.
    fn new() -> Self {
        let spec = ModelSpec {
            id: MODEL.to_owned(),
            price: Price::DEFAULT,
            context_tokens: 4_096,
            output_tokens_default: 512,
            weights_bytes: 1,
        };
        let catalog = Catalog::new(vec![spec]).unwrap();
        let config = Config {
            epoch: Epoch(0),
            seed: Seed::from_number(7),
            catalog: catalog.clone(),
            limits: Limits::reference(),
            fee_percent: 10,
            trust_min: Trust::None,
        };
        let mut world = Self {
            control: Control::new(config),
            connections: BTreeMap::new(),
            orders: BTreeMap::new(),
            orders_max: 8,
            relays: Relays::default(),
            rules: LinkRules {
                config: LinkConfig::reference(
                    Seed::from_number(5),
                    1_782_864_000,
                    Posture::Advisory,
                ),
                catalog,
                owners: Owners::default(),
            },
            now: Tick(1_000),
            dispatched: Vec::new(),
            posted: Vec::new(),
            charged: Vec::new(),
            denied: Vec::new(),
            refused: Vec::new(),
            let_go: Vec::new(),
            holds_writes: false,
        };
        for (account, balance) in [(ACCOUNT, 150), (OWNER, 0)] {
            let balance = MicroUsd(balance);
            world.happened(Event::AccountOpened { account, balance });
        }
        world.join(A);
        world.join(B);
        world
    }

    fn join(&mut self, conn: ConnId) {
        let connection = Connection::new(self.now, conn, OWNER, &self.rules);
        self.connections.insert(conn, connection);
        let sealing = provider(conn).public().text();
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
        self.happened(Event::ProviderVerified { conn });
        let slot = SlotReport {
            model: ModelIx(0),
            state: SlotState::Idle,
            running: 0,
            waiting: 0,
            concurrency_max: 4,
            budget_used: 0,
            budget_max: 0,
            budget_queued: 0,
            decode_mtps: 50_000,
            prefill_mtps: 1_000_000,
            load_ms: 0,
            wedged: false,
        };
        self.happened(Event::ProviderReported {
            conn,
            report: MachineReport {
                seq: 1,
                has_capacity: true,
                ..MachineReport::default()
            },
            slots: vec![slot].into(),
        });
    }

    fn happened(&mut self, event: Event<'static>) {
        self.control(ControlEvent::Happened(event));
    }

    /// One turn of the control task.
    fn control(&mut self, event: ControlEvent<Name>) {
        self.now = Tick(self.now.0 + 1_000);
        let mut todo = VecDeque::from([event]);
        while let Some(event) = todo.pop_front() {
            let mut out = Vec::new();
            self.control.step(self.now, event, &mut Nobody, &mut out);
            for effect in out {
                match effect {
                    ControlEffect::Charged { request, receipt } => {
                        self.charged.push((*request, receipt.charged));
                    }
                    ControlEffect::Denied { denial, .. } => self.denied.push(denial),
                    ControlEffect::LetGo { conn } => self.let_go.push(conn),
                    ControlEffect::Order { conn, order } => {
                        if let Order::Dispatch { wire, .. } = &order {
                            self.dispatched.push((conn, *wire));
                        }
                        let orders = self.orders.entry(conn).or_default();
                        if orders.len() < self.orders_max {
                            orders.push_back(order);
                        } else {
                            todo.push_back(ControlEvent::OrderRefused { conn, order });
                        }
                    }
                    ControlEffect::Post { transfer } => {
                        self.posted.push((transfer.kind, transfer.reference));
                    }
                    ControlEffect::Relay { request, event } => {
                        let rest = self.relays.step(self.now, &request, event);
                        assert_eq!(rest, [], "it concerns the consumer only");
                    }
                    ControlEffect::CreditRefused { deposit, .. } => self.refused.push(deposit),
                    ControlEffect::Alarm { .. }
                    | ControlEffect::Drained
                    | ControlEffect::Finished { .. }
                    | ControlEffect::Released { .. }
                    | ControlEffect::WasMisused(_) => {}
                }
            }
        }
    }

    /// The turns of a connection's task in which it takes all its orders.
    fn run(&mut self, conn: ConnId) {
        while let Some(order) = self.orders.entry(conn).or_default().pop_front() {
            self.connection(conn, ConnectionEvent::Ordered(order));
        }
    }

    fn frame(&mut self, conn: ConnId, frame: &[u8]) {
        self.connection(conn, ConnectionEvent::FrameReceived(frame));
    }

    fn connection(&mut self, conn: ConnId, event: ConnectionEvent<'_, Name>) {
        let mut out = Vec::new();
        let connection = self.connections.get_mut(&conn).unwrap();
        connection.step(self.now, event, &self.rules, &mut self.relays, &mut out);
        for effect in out {
            match effect {
                ConnectionEffect::Tell(event) => self.happened(event),
                ConnectionEffect::Write { .. } if self.holds_writes => {}
                ConnectionEffect::Write { .. } => {
                    self.connection(conn, ConnectionEvent::WriteFinished);
                }
                ConnectionEffect::Close { .. } => {}
                ConnectionEffect::WasMisused(misuse) => panic!("{misuse:?}"),
            }
        }
    }

    /// A request arrives; its name stays with the test as well.
    fn ask(&mut self, number: u128) -> Name {
        self.ask_for(number, Delivery::Streamed)
    }

    fn ask_for(&mut self, number: u128, delivery: Delivery) -> Name {
        let shape = Shape {
            delivery,
            include_usage: false,
            output_tokens_max: u32::MAX,
            stop_bytes_max: 0,
            silent_tokens_max: 0,
        };
        let id = RequestId(number);
        self.relays.relays.insert(
            id,
            Relay::new(Writer::relayed(Api::Chat, id, 5, MODEL), shape),
        );
        let name = Arc::new(id);
        let ask = Ask {
            prompt_tokens: 10,
            prompt_tokens_bound: 10,
            output_tokens_max: 500,
            delivery,
            ..Ask::new(id, ACCOUNT, ModelIx(0))
        };
        let request = Arc::clone(&name);
        self.control(ControlEvent::Arrived { ask, request });
        name
    }

    /// The provider of the `nth` dispatch says something.
    fn says(&mut self, nth: usize, text: &str) {
        let (conn, wire) = self.dispatched[nth];
        let event = format!(r#"data: {{"choices":[{{"delta":{{"content":"{text}"}}}}]}}"#);
        let mut ciphertext = String::new();
        let key = &self.relays.keys[&wire];
        key.seal_text(
            [7; NONCE_SIZE],
            event.as_bytes(),
            &mut Vec::new(),
            &mut ciphertext,
        );
        let mut frame = Vec::new();
        let sealer = provider(conn).public().text();
        encode_chunk(wire, sealer.as_str(), &ciphertext, &mut frame);
        self.frame(conn, &frame);
    }

    fn completes(&mut self, nth: usize, completion_tokens: i64) {
        let (conn, wire) = self.dispatched[nth];
        let complete = InferenceComplete {
            request_id: Text::from(wire.to_string()),
            usage: UsageFrame {
                prompt_tokens: 10,
                completion_tokens,
                ..UsageFrame::default()
            },
            ..InferenceComplete::default()
        };
        self.frame(conn, &encoded(&complete));
    }

    fn persist(&mut self) {
        let up_to = self.control.core().books().last_seq();
        self.happened(Event::Persisted { up_to });
    }

    fn leaves(&mut self, name: &Name) {
        let rest = self.relays.step(self.now, name, RelayEvent::ConsumerLeft);
        assert_eq!(rest, []);
        self.happened(Event::ConsumerLeft { request: **name });
    }

    fn read(&mut self, name: &Name) -> String {
        let mut bytes = Vec::new();
        self.relays
            .relays
            .get_mut(&**name)
            .unwrap()
            .take(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }
}

/// INV-24. Both orders: the connection hears of the cancel before the provider's end, or after it.
#[test]
fn the_end_that_comes_after_the_consumer_left_settles_and_frees_at_once() {
    for is_cancel_first in [true, false] {
        let mut world = World::new();
        let name = world.ask(1);
        let conn = world.dispatched[0].0;
        world.run(conn);
        world.says(0, "one two three four five");
        world.persist();
        world.leaves(&name);
        assert_eq!(world.denied, [Denial::Cancelled]);
        if is_cancel_first {
            world.run(conn);
        }
        world.ask(2);
        assert_eq!(world.denied.pop(), Some(Denial::Broke), "the money is held");

        world.completes(0, 5);
        assert_eq!(world.control.core().books().held(), MicroUsd::ZERO);
        let settled = world.control.core().counts();
        assert_eq!(settled.completion_tokens, 5, "by what the provider counted");
    }
}

#[test]
fn who_left_a_stream_gets_a_receipt_and_its_name_goes_with_it() {
    let mut world = World::new();
    let name = world.ask(1);
    let conn = world.dispatched[0].0;
    world.run(conn);
    world.says(0, "one two three four five");
    world.persist();
    world.leaves(&name);
    world.run(conn);
    assert_eq!(Arc::strong_count(&name), 2, "its receipt is still to come");
    world.completes(0, 5);
    // Whoever repeats it now changes nothing (INV-16).
    let request = Arc::clone(&name);
    let ask = Ask::new(*name, ACCOUNT, ModelIx(0));
    world.control(ControlEvent::Arrived { ask, request });
    assert_eq!(world.charged, [], "nothing is durable yet");
    world.persist();
    assert!(matches!(world.charged[..], [(RequestId(1), charged)] if charged > MicroUsd::ZERO));
    assert_eq!(world.denied, [Denial::Cancelled], "it ended once");
    assert_eq!(Arc::strong_count(&name), 1, "only the test names it");
}

#[test]
fn an_older_attempt_whose_task_runs_last_takes_nothing_from_the_newer() {
    let mut world = World::new();
    let name = world.ask(1);
    let first = world.dispatched[0].0;
    // One batch: the machine loses its trust before its task has heard of the dispatch.
    world.happened(Event::ProviderDistrusted { conn: first });
    let second = world.dispatched[1].0;
    assert_ne!(first, second, "the request moves on");
    world.run(second);
    let order = world.orders.get_mut(&first).unwrap().pop_front();
    world.connection(first, ConnectionEvent::Ordered(order.unwrap()));
    // The machine is quick: it speaks before its task comes to the cancel.
    world.says(0, "old");
    world.says(1, "new");
    world.run(first);
    world.persist();
    world.completes(1, 1);
    world.persist();
    let read = world.read(&name);
    assert!(read.contains("new") && !read.contains("old"), "{read}");
    assert_eq!(world.control.core().counts().finished, 1);
}

#[test]
fn a_cancel_lets_go_of_the_request_whether_it_was_written_or_not() {
    for holds_writes in [false, true] {
        let mut world = World::new();
        world.holds_writes = holds_writes;
        let name = world.ask(1);
        let conn = world.dispatched[0].0;
        world.run(conn);
        assert_eq!(world.connections[&conn].carried_count(), 1);
        world.leaves(&name);
        world.run(conn);
        assert_eq!(world.connections[&conn].carried_count(), 0);
        assert_eq!(Arc::strong_count(&name), 1, "only the test names it");
    }
}

#[test]
fn an_answer_that_ends_lets_go_of_the_request() {
    let mut world = World::new();
    let name = world.ask(1);
    let conn = world.dispatched[0].0;
    world.run(conn);
    world.says(0, "all");
    world.completes(0, 1);
    assert_eq!(world.connections[&conn].carried_count(), 0);
    world.persist();
    assert_eq!(Arc::strong_count(&name), 1, "only the test names it");
}

#[test]
fn a_connection_that_ends_lets_go_of_its_requests() {
    let mut world = World::new();
    let name = world.ask(1);
    let conn = world.dispatched[0].0;
    world.run(conn);
    world.connection(conn, ConnectionEvent::SocketClosed { code: None });
    assert_eq!(world.connections[&conn].carried_count(), 0);
    assert_eq!(world.let_go, [conn]);
    // The second attempt is on its way.
    assert_eq!(Arc::strong_count(&name), 3);
}

#[test]
fn a_dispatch_that_finds_no_room_goes_elsewhere() {
    let mut world = World::new();
    world.orders_max = 0;
    world.ask(1);
    let tried: Vec<ConnId> = world.dispatched.iter().map(|(conn, _)| *conn).collect();
    assert_eq!(tried.len(), 2, "each machine is tried once");
    assert_ne!(tried[0], tried[1]);
    assert_eq!(world.denied, [Denial::ProviderFailed]);
    assert_eq!(world.let_go, [], "a full queue is no reason to let it go");
}

#[test]
fn a_connection_that_takes_no_cancel_is_let_go() {
    let mut world = World::new();
    let name = world.ask(1);
    let conn = world.dispatched[0].0;
    world.run(conn);
    world.orders_max = 0;
    world.leaves(&name);
    assert_eq!(world.let_go, [conn]);
    assert_eq!(world.control.connection_count(), 1);
    assert_eq!(world.control.verified_count(), 1);
}

#[test]
fn a_refused_credit_leaves_nothing_behind_for_the_next() {
    let mut world = World::new();
    for (deposit, account) in [(4, AccountId(77)), (5, ACCOUNT)] {
        let amount = MicroUsd(1_000);
        world.control(ControlEvent::Credited {
            deposit,
            account,
            amount,
        });
    }
    assert_eq!(world.refused, [4]);
    assert_eq!(world.posted, [(TransferKind::Deposit, Some(5))]);
}

#[test]
fn a_chunk_that_does_not_open_ends_the_attempt_and_the_trust_once() {
    let mut world = World::new();
    world.ask(1);
    let (conn, wire) = world.dispatched[0];
    world.run(conn);
    let other = SecretKey::from_bytes([99; 32]);
    let key = other.agree(&provider(conn).public()).unwrap();
    world.relays.keys.insert(wire, key);
    world.says(0, "forged");
    assert_eq!(world.connections[&conn].carried_count(), 0);
    assert_eq!(world.control.verified_count(), 1);
    let tried: Vec<ConnId> = world.dispatched.iter().map(|(conn, _)| *conn).collect();
    assert_eq!(tried.len(), 2, "the request moves on, once: {tried:?}");
}

#[test]
fn what_was_never_shown_costs_nothing_and_the_error_says_why() {
    let half = "x".repeat(crate::api::ANSWER_SIZE_MAX / 2 + 1);
    for (delivery, denial) in [
        (Delivery::Streamed, Denial::HoldOverdue),
        (Delivery::Whole, Denial::AnswerTooLarge),
    ] {
        let mut world = World::new();
        let name = world.ask_for(1, delivery);
        world.run(world.dispatched[0].0);
        world.says(0, &half);
        world.says(0, &half);
        assert_eq!(world.denied, [denial]);
        assert_eq!(world.relays.heard, [RelayEffect::Refuse { denial }]);
        assert_eq!(world.read(&name), "");
        let kinds: Vec<TransferKind> = world.posted.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [TransferKind::Hold, TransferKind::Void]);
    }
}
