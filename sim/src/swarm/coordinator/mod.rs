//! One life of a coordinator's process, as the tasks that it consists of: one for control, one for
//! each connection, with what waits for each between them.
//!
//! The simulated twin of the coordinator's shell. A task runs when the world says so, and the world
//! draws when; so whatever two tasks can do in either order is done in either order somewhere. Every
//! step of the core goes by the oracles.

mod answers;
pub(super) mod recording;
mod tasks;
mod witness;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cereus_core::api::{Api, Request};
use cereus_core::coordinator::Coordinator;
use cereus_core::denial::Denial;
use cereus_core::draw::{Purpose, Seed};
use cereus_core::effect::Transfer;
use cereus_core::event::Event;
use cereus_core::exchange::{
    Connection, ConnectionEffect, Control, ControlEffect, ControlEvent, ExchangeMischief, Order,
};
use cereus_core::ids::{AccountId, ConnId, MachineId, RequestId};
use cereus_core::link::{LinkConfig, LinkRules, Owners};
use cereus_core::relay::RelayEvent;
use cereus_core::time::{Span, Tick};
use cereus_core::wire::proof::Posture;

use super::marks::{Marker, Marks};
use super::plan::{Plan, TaskPlan};
use super::{Observer, Plant, Trial};
use crate::oracle::{MoneyModel, Origin, Terminals, Violation, Watch};
use crate::stream::Stream;
use answers::Answers;
use recording::{Recording, Torn};

/// What the world does for the coordinator.
#[derive(Clone, Debug)]
pub(super) enum ProcessEffect {
    Hangup {
        conn: ConnId,
    },
    Post {
        transfer: Transfer,
    },
    /// Something waits for this task: let it run when it may.
    Run {
        task: Task,
    },
    Wake {
        at: Tick,
        task: Task,
    },
    Reply {
        request: RequestId,
        reply: Reply,
    },
    Write {
        conn: ConnId,
        frame: Vec<u8>,
    },
}

/// A task of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    Connection(ConnId),
    Control,
}

/// What a consumer hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Closed,
    Finished { completion_tokens: u32 },
    Readable,
    Refused(Denial),
}

/// What comes from a socket, besides the frames that are written to it.
#[derive(Clone, Debug)]
pub(super) enum Heard {
    Closed,
    Frame(Vec<u8>),
    Written,
}

/// A connection's task, with what waits for it. It takes from its three sources in any order.
#[derive(Debug)]
struct Post {
    connection: Connection<RequestId>,
    heard: VecDeque<Heard>,
    orders: VecDeque<Order<RequestId>>,
    /// After the orders that are there, none come.
    is_let_go: bool,
    is_woken: bool,
}

/// What waits for the control task. It takes from its three sources in any order.
#[derive(Debug, Default)]
struct Inbox {
    events: VecDeque<(Origin, ControlEvent<RequestId>)>,
    /// How far the ledger is on disk: only the newest number counts.
    durable: Option<u64>,
    is_woken: bool,
}

/// See the module.
pub(super) struct CoordinatorProcess {
    control: Control<RequestId>,
    pub(super) watch: Watch,
    terminals: Terminals,
    rules: LinkRules,
    inbox: Inbox,
    posts: BTreeMap<ConnId, Post>,
    /// Tasks that the world was asked to run.
    due: BTreeSet<Task>,
    /// Tasks that wait for room in the inbox.
    blocked: BTreeSet<Task>,
    answers: Answers,
    /// Requests that the core has heard of.
    arrived: BTreeSet<RequestId>,
    limits: TaskPlan,
    /// Whose each connection is, and the newest of each machine.
    machines: BTreeMap<ConnId, MachineId>,
    newest: BTreeMap<MachineId, ConnId>,
    plant: Option<Plant>,
    observer: Option<Observer>,
    recording: Option<Recording>,
    marker: Marker,
    control_out: Vec<ControlEffect<RequestId>>,
    connection_out: Vec<ConnectionEffect>,
}

impl CoordinatorProcess {
    pub(super) fn new(plan: &Plan, life: u64, trial: &Trial, left: Torn) -> Self {
        let (plant, observer) = (trial.plant, trial.observer);
        let config = plan.core(life);
        let seed = config.seed;
        // As in production, a cancelled attempt is remembered for longer than the core waits for it.
        let cancelled_keep = Span::secs(15);
        let rules = LinkRules {
            config: LinkConfig {
                stale_after: Span::secs(12),
                sweep_every: Span::secs(3),
                challenge_every: Span::secs(12),
                challenge_reply_max: Span::secs(3),
                cancelled_keep,
                ..LinkConfig::reference(seed, 1_700_000_000, Posture::Advisory)
            },
            catalog: config.catalog.clone(),
            owners: Owners::default(),
        };
        let mut control = Control::new(config);
        let mischief = plant.and_then(Plant::in_core).unwrap_or_default();
        control.core_mut().dangerous_plant(mischief);
        let recording = plan
            .has_journal
            .then(|| Recording::begin(control.core(), mischief, left));
        Self {
            watch: Watch::new(control.core()),
            control,
            terminals: Terminals::new(cancelled_keep),
            rules,
            inbox: Inbox::default(),
            posts: BTreeMap::new(),
            due: BTreeSet::new(),
            blocked: BTreeSet::new(),
            answers: Answers::new(plan.seed, seed, plant),
            arrived: BTreeSet::new(),
            limits: plan.tasks,
            machines: BTreeMap::new(),
            newest: BTreeMap::new(),
            plant,
            observer,
            recording,
            marker: Marker::default(),
            control_out: Vec::new(),
            connection_out: Vec::new(),
        }
    }

    pub(super) const fn core(&self) -> &Coordinator {
        self.control.core()
    }

    /// Something that only the core hears of: accounts, a request to drain.
    pub(super) fn tell(&mut self, event: Event<'static>, by: &mut Surroundings<'_>) {
        self.post(Origin::Inside, ControlEvent::Happened(event), by);
    }

    /// The store has written.
    pub(super) fn durable(&mut self, up_to: u64, by: &mut Surroundings<'_>) {
        // News of an earlier write may come after that of a later one.
        self.inbox.durable = self.inbox.durable.max(Some(up_to));
        self.want(Task::Control, by);
    }

    /// A body came over HTTP. A repeated one is told to the core again, and changes nothing.
    pub(super) fn ask(
        &mut self,
        request: RequestId,
        account: AccountId,
        body: &[u8],
        by: &mut Surroundings<'_>,
    ) {
        let chat = Request::read(Api::Chat, body).expect("consumers write well-formed bodies");
        let ask = chat.ask(request, account, &self.rules.catalog);
        let ask = ask.expect("consumers name models that exist");
        let spec = self.rules.catalog.spec(ask.model).expect("just found");
        self.answers.open(request, &chat, ask, &spec.id);
        let arrived = ControlEvent::Arrived { ask, request };
        self.post(Origin::Inside, arrived, by);
    }

    /// The consumer's task sees that its connection is gone: it tells the relay, then the core.
    pub(super) fn left(&mut self, now: Tick, request: RequestId, by: &mut Surroundings<'_>) {
        self.answers.step(now, request, RelayEvent::ConsumerLeft);
        self.tell(Event::ConsumerLeft { request }, by);
    }

    pub(super) fn accept(
        &mut self,
        now: Tick,
        conn: ConnId,
        owner: AccountId,
        by: &mut Surroundings<'_>,
    ) {
        let mut connection = Connection::new(now, conn, owner, &self.rules);
        if self.plant == Some(Plant::UnheardTerminal) {
            connection.dangerous_plant(ExchangeMischief::UnheardTerminal);
        }
        if let Some(at) = connection.next_wake() {
            let task = Task::Connection(conn);
            by.effects.push(ProcessEffect::Wake { at, task });
        }
        let post = Post {
            connection,
            heard: VecDeque::new(),
            orders: VecDeque::new(),
            is_let_go: false,
            is_woken: false,
        };
        self.posts.insert(conn, post);
    }

    /// Something came from a socket.
    pub(super) fn hear(&mut self, conn: ConnId, heard: Heard, by: &mut Surroundings<'_>) {
        if let Some(post) = self.posts.get_mut(&conn) {
            post.heard.push_back(heard);
            self.want(Task::Connection(conn), by);
        }
    }

    pub(super) fn wake(&mut self, task: Task, by: &mut Surroundings<'_>) {
        match task {
            Task::Connection(conn) => match self.posts.get_mut(&conn) {
                Some(post) => post.is_woken = true,
                None => return,
            },
            Task::Control => self.inbox.is_woken = true,
        }
        self.want(task, by);
    }

    pub(super) const fn marks(&self) -> &Marks {
        &self.marker.marks
    }

    pub(super) const fn take_recording(&mut self) -> Option<Recording> {
        self.recording.take()
    }

    /// INV-31, over all requests of this life.
    pub(super) fn require_trails(&self) -> Result<(), Violation> {
        self.answers.require_trails()
    }

    /// What the consumer may read now.
    pub(super) fn take(&mut self, request: RequestId, into: &mut Vec<u8>) {
        self.answers.take(request, into);
    }

    /// Nothing waits for any task.
    pub(super) fn is_quiet(&self) -> bool {
        self.due.is_empty()
    }

    fn post(&mut self, origin: Origin, event: ControlEvent<RequestId>, by: &mut Surroundings<'_>) {
        self.inbox.events.push_back((origin, event));
        self.want(Task::Control, by);
    }

    fn want(&mut self, task: Task, by: &mut Surroundings<'_>) {
        if self.due.insert(task) {
            by.effects.push(ProcessEffect::Run { task });
        }
    }
}

/// What the coordinator works with beside itself.
pub(super) struct Surroundings<'a> {
    /// What its clock says.
    pub(super) now: Tick,
    pub(super) money: &'a mut MoneyModel,
    pub(super) effects: &'a mut Vec<ProcessEffect>,
    /// Draws what a task takes first.
    pub(super) order: &'a mut Stream,
    pub(super) steps: u64,
}

pub(super) fn key_bytes(seed: Seed, whose: u128) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (half, chunk) in (0u128..).zip(bytes.chunks_mut(16)) {
        let drawn = seed.draw_wide(Purpose::Simulation, whose, half);
        chunk.copy_from_slice(&drawn.to_le_bytes());
    }
    bytes
}

/// What a step of the coordinator may break.
type Checked = Result<(), Violation>;
