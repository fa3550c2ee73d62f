//! One life of a coordinator's process: the core, a link for each socket, a relay for each answer.
//!
//! The simulated twin of the coordinator's shell. It passes bytes and carries out effects; every step
//! of the core goes by the oracles.

mod orders;
mod streams;

use std::collections::{BTreeMap, VecDeque};

use cereus_core::api::{ChatRequest, Framing};
use cereus_core::coordinator::Coordinator;
use cereus_core::denial::Denial;
use cereus_core::draw::{Purpose, Seed};
use cereus_core::effect::Effects;
use cereus_core::envelope::{BoxKey, KeyText, NONCE_SIZE, PublicKey, SecretKey};
use cereus_core::event::Event;
use cereus_core::ids::{AccountId, AttemptKey, ConnId, MachineId, RequestId, WireId};
use cereus_core::link::{LinkConfig, LinkEvent, LinkOut, LinkRules, Owners, ProviderLink};
use cereus_core::relay::{Relay, RelayEffect, RelayEvent, Shape};
use cereus_core::time::{Span, Tick};
use cereus_core::wire::proof::Posture;

use super::Plant;
use super::plan::Plan;
use crate::oracle::{MoneyModel, Origin, Violation, Watch, require};
use crate::stream::Stream;

/// What the world does for the office.
#[derive(Clone, Debug)]
pub(super) enum Deed {
    Hangup { conn: ConnId },
    Post { seq: u64 },
    Wake { at: Tick, who: Sleeper },
    Word { request: RequestId, word: Word },
    Write { conn: ConnId, frame: Vec<u8> },
}

/// Who wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sleeper {
    Agent(u32),
    Core,
    Link(ConnId),
    Relay(RequestId),
}

/// What a consumer hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Closed,
    Finished { completion_tokens: u32 },
    Readable,
    Refused(Denial),
}

#[derive(Debug)]
enum Todo {
    Core(Origin, Event<'static>),
    Link(ConnId, LinkEvent<'static>),
    Relay(RequestId, RelayEvent<'static>),
}

#[derive(Debug)]
struct Answering {
    relay: Relay,
    /// As the provider will get it.
    lowered: Vec<u8>,
    /// The consumer left: nobody is told of the end.
    is_deserted: bool,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    request: RequestId,
    conn: ConnId,
    wire: WireId,
    sealer: KeyText,
}

/// See the module.
pub(super) struct Office {
    pub(super) core: Coordinator,
    pub(super) watch: Watch,
    rules: LinkRules,
    links: BTreeMap<ConnId, ProviderLink>,
    answers: BTreeMap<RequestId, Answering>,
    sent: BTreeMap<AttemptKey, Sent>,
    /// Whose each connection is, and the newest of each machine.
    machines: BTreeMap<ConnId, MachineId>,
    newest: BTreeMap<MachineId, ConnId>,
    secret: SecretKey,
    sealing_text: KeyText,
    boxes: BTreeMap<PublicKey, BoxKey>,
    nonces: u64,
    plant: Option<Plant>,
    dropping: Stream,
    todo: VecDeque<Todo>,
    out: Effects,
    link_out: LinkOut,
    relay_out: Vec<RelayEffect>,
}

impl Office {
    pub(super) fn new(plan: &Plan, life: u64, plant: Option<Plant>) -> Self {
        let config = plan.core(life);
        let seed = config.seed;
        let rules = LinkRules {
            config: LinkConfig {
                stale_after: Span::secs(12),
                sweep_every: Span::secs(3),
                challenge_every: Span::secs(12),
                challenge_reply_max: Span::secs(3),
                cancelled_keep: Span::secs(5),
                ..LinkConfig::reference(seed, 1_700_000_000, Posture::Advisory)
            },
            catalog: config.catalog.clone(),
            owners: Owners::default(),
        };
        let mut core = Coordinator::new(config);
        if let Some(mischief) = plant.and_then(Plant::in_core) {
            core.dangerous_plant(mischief);
        }
        let secret = SecretKey::from_bytes(key_bytes(seed, u128::MAX));
        Self {
            watch: Watch::new(&core),
            core,
            rules,
            links: BTreeMap::new(),
            answers: BTreeMap::new(),
            sent: BTreeMap::new(),
            machines: BTreeMap::new(),
            newest: BTreeMap::new(),
            sealing_text: secret.public().text(),
            secret,
            boxes: BTreeMap::new(),
            nonces: 0,
            plant,
            dropping: Stream::new(plan.seed, "dropped chunks"),
            todo: VecDeque::new(),
            out: Effects::default(),
            link_out: LinkOut::default(),
            relay_out: Vec::new(),
        }
    }

    /// Something that only the core hears of: accounts, the disk, a wake, the consumer.
    pub(super) fn tell(
        &mut self,
        now: Tick,
        event: Event<'static>,
        by: &mut Hands<'_>,
    ) -> Result<(), Violation> {
        if let Event::ConsumerLeft { request } = &event {
            if let Some(answering) = self.answers.get_mut(request) {
                answering.is_deserted = true;
            }
            self.todo
                .push_back(Todo::Relay(*request, RelayEvent::ConsumerLeft));
        }
        self.todo.push_back(Todo::Core(Origin::Inside, event));
        self.drain(now, by)
    }

    /// A body came over HTTP. A repeated one is told to the core again, and changes nothing.
    pub(super) fn ask(
        &mut self,
        now: Tick,
        request: RequestId,
        account: AccountId,
        body: &[u8],
        by: &mut Hands<'_>,
    ) -> Result<(), Violation> {
        let chat = ChatRequest::parse(body).expect("consumers write well-formed bodies");
        let ask = chat.ask(request, account, &self.rules.catalog);
        let ask = ask.expect("consumers name models that exist");
        if !self.answers.contains_key(&request) {
            let spec = self.rules.catalog.spec(ask.model).expect("just found");
            let mut lowered = Vec::new();
            chat.lower(&spec.id, ask.output_tokens_max, &mut lowered);
            let framing = Framing::new(request, 1_700_000_000, &spec.id);
            let answering = Answering {
                relay: Relay::new(framing, Shape::of(&chat, ask.output_tokens_max)),
                lowered,
                is_deserted: false,
            };
            self.answers.insert(request, answering);
        }
        self.todo
            .push_back(Todo::Core(Origin::Inside, Event::Arrived(ask)));
        self.drain(now, by)
    }

    pub(super) fn accept(&mut self, now: Tick, conn: ConnId, owner: AccountId, by: &mut Hands<'_>) {
        let link = ProviderLink::new(now, conn, owner, &self.rules.config);
        if let Some((at, _)) = link.next_wake() {
            by.deeds.push(Deed::Wake {
                at,
                who: Sleeper::Link(conn),
            });
        }
        self.links.insert(conn, link);
    }

    /// Something happened to a socket other than a frame.
    pub(super) fn socket(
        &mut self,
        now: Tick,
        conn: ConnId,
        event: LinkEvent<'static>,
        by: &mut Hands<'_>,
    ) -> Result<(), Violation> {
        self.todo.push_back(Todo::Link(conn, event));
        self.drain(now, by)
    }

    pub(super) fn frame(
        &mut self,
        now: Tick,
        conn: ConnId,
        frame: &[u8],
        by: &mut Hands<'_>,
    ) -> Result<(), Violation> {
        self.step_link(now, conn, LinkEvent::FrameReceived(frame), by)?;
        self.drain(now, by)
    }

    pub(super) fn wake_relay(
        &mut self,
        now: Tick,
        request: RequestId,
        by: &mut Hands<'_>,
    ) -> Result<(), Violation> {
        self.todo.push_back(Todo::Relay(request, RelayEvent::Woke));
        self.drain(now, by)
    }

    /// What the consumer may read now.
    pub(super) fn take(&mut self, request: RequestId, into: &mut Vec<u8>) {
        into.clear();
        if let Some(answering) = self.answers.get_mut(&request) {
            answering.relay.take(into);
        }
    }

    fn drain(&mut self, now: Tick, by: &mut Hands<'_>) -> Result<(), Violation> {
        while let Some(todo) = self.todo.pop_front() {
            match todo {
                Todo::Core(origin, event) => self.step_core(now, origin, &event, by)?,
                Todo::Link(conn, event) => self.step_link(now, conn, event, by)?,
                Todo::Relay(request, event) => self.step_relay(now, request, event, by),
            }
        }
        Ok(())
    }

    fn step_core(
        &mut self,
        now: Tick,
        origin: Origin,
        event: &Event<'static>,
        by: &mut Hands<'_>,
    ) -> Result<(), Violation> {
        let mut out = core::mem::take(&mut self.out);
        out.clear();
        let stepped = self.core.step(now, event, &mut out);
        require(stepped.is_ok(), "INV-16", || {
            format!("{stepped:?} after {event:?}")
        })?;
        self.watch
            .step(now, origin, event, &out, &self.core, by.money)?;
        self.core.check();
        by.steps += 1;
        for effect in &out.list {
            self.carry_out(effect, &out, by);
        }
        self.out = out;
        if let Some((at, _)) = self.core.next_wake() {
            by.deeds.push(Deed::Wake {
                at,
                who: Sleeper::Core,
            });
        }
        Ok(())
    }
}

/// What the office works with beside itself.
pub(super) struct Hands<'a> {
    pub(super) money: &'a mut MoneyModel,
    pub(super) deeds: &'a mut Vec<Deed>,
    pub(super) steps: u64,
}

pub(super) fn nonce(count: u64) -> [u8; NONCE_SIZE] {
    let mut nonce = [0; NONCE_SIZE];
    nonce[..8].copy_from_slice(&count.to_le_bytes());
    nonce
}

pub(super) fn key_bytes(seed: Seed, whose: u128) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (half, chunk) in (0u128..).zip(bytes.chunks_mut(16)) {
        let drawn = seed.draw_wide(Purpose::Simulation, whose, half);
        chunk.copy_from_slice(&drawn.to_le_bytes());
    }
    bytes
}
