//! The one task that owns the [`Agent`] and the [`Slots`]: feeds them what happens, does what they
//! say.

mod agent;
mod slots;
mod start;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cereus_core::agent::{Agent, AgentEffect, AgentEvent, AgentOut, SessionId};
use cereus_core::slots::{BuildIx, Eviction, JobId, Measured, Slots, SlotsEffect, SlotsEvent};
use cereus_core::time::Tick;
use cereus_core::wire::proof::MachineKey;
use cereus_engine::runtime::{Event, limit_memory};
use cereus_socket::Heard;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};

use self::start::{agent_config, offered, route, slots_config};
use crate::dial::{Dialled, Route, Socket};
use crate::engines::{Engines, JobBody};
use crate::folder::FolderLock;
use crate::host::Host;
use crate::hours::hours_text;
use crate::load::{Moved, Moves, Words};
use crate::offered::Offered;
use crate::{Preload, Progress, ProviderError, Settings, identity};

/// Of dialling, what came: there is one at a time.
const DIALLED_MAX: usize = 2;
/// Bytes that wait for the network before no more words are taken from the engines, whose rows then
/// pause. Some hundred pieces of text.
const BEHIND_BYTES: usize = 256 << 10;
/// How long a coordinator may take no byte before it is given up.
const WRITE_WAIT: Duration = Duration::from_secs(30);
/// Words of the engines in one turn: they go to the socket together.
const WORDS_MAX: usize = 256;
/// Frames of one turn: what they make us write goes out together.
const FRAMES_MAX: usize = 64;

/// Serves until `drain` turns true and what runs has finished.
pub async fn serve(
    settings: Settings,
    mut drain: watch::Receiver<bool>,
    mut progress: impl FnMut(Progress),
) -> Result<(), ProviderError> {
    let route = route(&settings)?;
    let lock = FolderLock::take(&settings.data)?;
    let key = identity::load(&settings.data)?;
    progress(Progress::Machine(format!(
        "{:032x}",
        key.attested().machine_id().0
    )));
    let offered = offered(&settings)?;
    let (tell, mut receivers) = channels();
    let mut run = Run::new(settings, route, key, offered, tell)?;
    run.begin();
    let mut batch = Vec::with_capacity(WORDS_MAX);
    let mut is_draining = false;
    loop {
        run.settle()?;
        for step in run.steps.drain(..) {
            progress(step);
        }
        if run.is_stopped {
            break;
        }
        let wake = run.next_wake();
        // Cancel safe: receiving and sleeping lose nothing.
        tokio::select! {
            heard = heard(&mut run.socket) => run.heard_all(heard),
            Some((session, dialled)) = receivers.dialled.recv() => run.dialled(session, dialled),
            _ = receivers.words.recv_many(&mut batch, WORDS_MAX), if !run.is_behind() => {
                for event in batch.drain(..) {
                    run.said(event);
                }
                run.engines.acknowledge();
            }
            Some(moved) = receivers.moves.recv() => run.moved(moved),
            () = raised(&mut drain), if !is_draining => {
                is_draining = true;
                tracing::info!("draining: running jobs finish, nothing more is taken");
                run.step(AgentEvent::DrainBegan);
            }
            () = tokio::time::sleep_until(wake) => run.woke(),
        }
    }
    run.end(receivers.moves).await;
    drop(lock);
    Ok(())
}

async fn raised(flag: &mut watch::Receiver<bool>) {
    if flag.wait_for(|flag| *flag).await.is_err() {
        // Nobody can ask any more.
        std::future::pending::<()>().await;
    }
}

/// Never, without a socket. Cancel safe.
async fn heard(socket: &mut Option<(SessionId, Socket)>) -> Heard {
    match socket {
        Some((_, socket)) => socket.hear().await,
        None => std::future::pending().await,
    }
}

/// The ends that tasks and threads report through.
struct Senders {
    dialled: mpsc::Sender<Dialled>,
    words: Words,
    moves: Moves,
}

/// The other ends.
struct Receivers {
    dialled: mpsc::Receiver<Dialled>,
    words: mpsc::UnboundedReceiver<Event>,
    moves: mpsc::UnboundedReceiver<Moved>,
}

fn channels() -> (Senders, Receivers) {
    let (tell_dialled, dialled) = mpsc::channel(DIALLED_MAX);
    let (tell_words, words) = mpsc::unbounded_channel();
    let (tell_moves, moves) = mpsc::unbounded_channel();
    let tell = Senders {
        dialled: tell_dialled,
        words: tell_words,
        moves: tell_moves,
    };
    let receivers = Receivers {
        dialled,
        words,
        moves,
    };
    (tell, receivers)
}

struct Run {
    settings: Settings,
    route: Route,
    key: MachineKey,
    host: Host,
    tell: Senders,
    /// By [`BuildIx`].
    offered: Vec<Offered>,
    /// Their names.
    ids: Arc<[String]>,
    agent: Agent,
    out: AgentOut,
    /// What the agent wants done and has not been done yet, in order.
    effects: VecDeque<AgentEffect>,
    is_carrying_out: bool,
    slots: Slots,
    /// What the slots have yet to hear.
    events: VecDeque<SlotsEvent>,
    slots_out: Vec<SlotsEffect>,
    measured: Measured,
    engines: Engines,
    /// Of jobs whose model is not in memory yet.
    bodies: HashMap<JobId, JobBody>,
    /// Loads that the coordinator waits for.
    ordered: BTreeSet<BuildIx>,
    preload: Preloading,
    is_loading: bool,
    /// A heartbeat is due before its time.
    has_news: bool,
    dialling: Option<(SessionId, AbortHandle)>,
    socket: Option<(SessionId, Socket)>,
    /// A goodbye on its way.
    leaving: Option<JoinHandle<()>>,
    origin: Instant,
    /// News for whoever waits.
    steps: Vec<Progress>,
    is_stopped: bool,
}

/// The loads of the start. Nobody is dialled before they are over.
#[derive(Debug, Default)]
struct Preloading {
    has_begun: bool,
    due: BTreeSet<BuildIx>,
    has_loaded: bool,
    reasons: Vec<String>,
}

impl Run {
    fn new(
        settings: Settings,
        route: Route,
        key: MachineKey,
        offered: Vec<Offered>,
        tell: Senders,
    ) -> Result<Self, ProviderError> {
        let ids: Arc<[String]> = offered.iter().map(|one| one.id().to_owned()).collect();
        let slots = slots_config(&settings, &offered);
        let limits = slots.cap.allocator_limits();
        limit_memory(limits.memory_bytes, limits.cache_bytes);
        let host = Host::read();
        let agent = agent_config(&settings, &host, &offered, &slots)?;
        Ok(Self {
            agent: Agent::new(Tick::ZERO, agent),
            slots: Slots::new(Tick::ZERO, slots),
            settings,
            route,
            key,
            host,
            tell,
            offered,
            ids,
            out: AgentOut::default(),
            effects: VecDeque::new(),
            is_carrying_out: false,
            events: VecDeque::new(),
            slots_out: Vec::new(),
            measured: Measured::default(),
            engines: Engines::default(),
            bodies: HashMap::new(),
            ordered: BTreeSet::new(),
            preload: Preloading::default(),
            is_loading: false,
            has_news: false,
            dialling: None,
            socket: None,
            leaving: None,
            origin: Instant::now(),
            steps: Vec::new(),
            is_stopped: false,
        })
    }

    /// Says which models are fenced off, and asks for the others if the machine serves already.
    fn begin(&mut self) {
        for one in &self.offered {
            if let Some(why) = one.fault() {
                let model = one.id().to_owned();
                tracing::warn!(model, why, "not offered: its chat template fails");
                self.preload.reasons.push(format!("{model}: {why}"));
                let why = why.to_owned();
                self.steps.push(Progress::Fenced { model, why });
            }
        }
        if self.settings.hours.schedule.is_always() {
            self.preload();
        }
    }

    fn preload(&mut self) {
        self.preload.has_begun = true;
        if self.settings.preload == Preload::OnDemand {
            return;
        }
        for (ix, one) in self.offered.iter().enumerate() {
            if one.fault().is_none() {
                let build = BuildIx(u16::try_from(ix).expect("models are counted"));
                let eviction = Eviction::Forbidden;
                self.preload.due.insert(build);
                self.events
                    .push_back(SlotsEvent::LoadAsked { build, eviction });
            }
        }
    }

    /// The owner's hours begin.
    fn rise(&mut self) {
        tracing::info!("the hours begin");
        self.events.push_back(SlotsEvent::RestEnded);
        self.preload();
    }

    /// Outside of the owner's hours.
    fn rest(&mut self) {
        self.events.push_back(SlotsEvent::RestBegan);
        let hours = &self.settings.hours;
        let opens_in = hours.schedule.until_change(hours.clock.read());
        let opens_in = opens_in.map(|span| Duration::from_micros(span.0));
        match opens_in.map(hours_text) {
            Some(opens_in) => tracing::info!(opens_in, "resting until the next window"),
            None => tracing::info!("resting: no window comes"),
        }
        self.steps.push(Progress::Resting(opens_in));
    }

    fn now(&self) -> Tick {
        Tick(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn next_wake(&self) -> tokio::time::Instant {
        let (slots, _) = self.slots.next_wake();
        let agent = self.agent.next_wake().filter(|_| self.is_preloaded());
        let wake = agent.map_or(slots, |(agent, _)| agent.min(slots));
        let wake = (self.origin + Duration::from_micros(wake.0)).into();
        self.given_up_at().map_or(wake, |at| at.min(wake))
    }

    /// The coordinator reads too slowly: the engines' words wait with them.
    fn is_behind(&self) -> bool {
        let socket = self.socket.as_ref();
        socket.is_some_and(|(_, socket)| socket.unwritten_bytes() >= BEHIND_BYTES)
    }

    /// When a coordinator that takes nothing counts as gone.
    fn given_up_at(&self) -> Option<tokio::time::Instant> {
        let (_, socket) = self.socket.as_ref()?;
        Some(socket.unwritten_since()? + WRITE_WAIT)
    }

    fn is_preloaded(&self) -> bool {
        self.preload.due.is_empty()
    }

    fn woke(&mut self) {
        if self
            .given_up_at()
            .is_some_and(|at| at <= tokio::time::Instant::now())
        {
            tracing::warn!("the coordinator takes no more frames");
            self.socket_closed();
        }
        let now = self.now();
        if self.slots.next_wake().0 <= now {
            self.events.push_back(SlotsEvent::Woke);
        }
        let agent = self.agent.next_wake().filter(|_| self.is_preloaded());
        if agent.is_some_and(|(at, _)| at <= now) {
            self.step(AgentEvent::Woke);
        }
    }

    /// Lets go of the models, and waits for a load that is under way: the tensor library does not
    /// like to be left while it computes.
    async fn end(mut self, mut moves: mpsc::UnboundedReceiver<Moved>) {
        if let Some(leaving) = self.leaving.take() {
            let _ = leaving.await;
        }
        let mut engines = self.engines.take_all();
        while self.is_loading {
            match moves.recv().await {
                Some(Moved::Loaded { result, .. }) => {
                    engines.extend(result.ok().map(|loaded| loaded.engine));
                    self.is_loading = false;
                }
                Some(Moved::Unloaded { .. }) => {}
                None => break,
            }
        }
        // A thread that panicked has said so.
        drop(tokio::task::spawn_blocking(move || drop(engines)).await);
    }
}

fn unix_now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
