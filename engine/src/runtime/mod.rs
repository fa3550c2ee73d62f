//! One loaded model at work: a thread of its own, driven through a bounded inbox, that answers
//! through events.
//!
//! The thread asks the pure scheduler for each step, has the backend compute it and turns tokens
//! into text. It holds nothing that outlives a job, and writes no text of one anywhere.

mod backend;
mod disk;
mod echo;
mod event;
mod inbox;
mod memory;
#[cfg(feature = "mlx")]
mod mlx;
mod piece;
mod prepare;
mod refusals;
mod row;
mod snapshot;
mod watch;
mod work;
mod worker;

use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cereus_core::draw::Seed;
use thiserror::Error;

pub use backend::{Backend, FilledBlock, Limits, Memory, RowWork, Sample, StepError, StepWork};
pub use disk::DiskTier;
pub use echo::EchoBackend;
pub use event::{
    BegunCall, CallPiece, Delta, Event, FinishReason, Finished, Job, Logprob, Timing, TokenLogprob,
    Usage,
};
pub use memory::{clear_spare_memory, limit_memory, process_memory};
#[cfg(feature = "mlx")]
pub use mlx::MlxBackend;
pub use prepare::{Opening, Prompts};
pub use snapshot::CapacitySnapshot;

use crate::chat::ChatRequest;
use crate::disk::OpenError;
use crate::failure::Failure;
use crate::kv::Scope;
#[cfg(doc)]
use crate::scheduler::flow::Flow;
use crate::scheduler::leases::{LeaseConfig, Leases};
use crate::scheduler::{Admission, ConfigError, RowId, Scheduler, SchedulerConfig};
use disk::Disk;
use inbox::{Arrived, Inbox, Mode};
use prepare::{Asking, Preparer, Reader, Waiting};
use watch::Listener;
use worker::Worker;

/// What bounds an engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Rows that run together.
    pub rows_max: u16,
    /// Rows that may wait.
    pub waiting_max: u16,
    /// Tokens of one step, prefill and decode together.
    pub step_token_budget: u32,
    /// Prefill tokens of a step that also decodes.
    pub prefill_chunk_tokens: u32,
    /// Memory for keys and values, of rows that run and of prefixes that are kept.
    pub kv_bytes_max: u64,
    pub admission: Admission,
    /// How long a row may make no progress.
    pub leases: LeaseConfig,
    /// Events of a row that may be unread before it pauses, [`Flow::UNREAD_MAX`] say; then what is read
    /// must be told ([`Engine::read`]). `None`: rows never wait for readers.
    pub unread_events_max: Option<u32>,
    /// Where requests that name no seed get theirs from. Random in production.
    pub seed: Seed,
    /// Where prompts are kept that leave memory; nowhere when absent.
    pub disk: Option<DiskTier>,
}

impl EngineConfig {
    /// The product values of the scheduler, and so much memory for keys and values. Rows enter on
    /// trust: most answers end long before their bound, and without one it is the whole context.
    #[must_use]
    pub const fn reference(kv_bytes_max: u64, seed: Seed) -> Self {
        let scheduler = SchedulerConfig::reference(2);
        Self {
            rows_max: scheduler.rows_max,
            waiting_max: scheduler.waiting_max,
            step_token_budget: scheduler.step_token_budget,
            prefill_chunk_tokens: scheduler.prefill_chunk_tokens,
            kv_bytes_max,
            admission: Admission::OPTIMISTIC,
            leases: LeaseConfig::REFERENCE,
            unread_events_max: None,
            seed,
            disk: None,
        }
    }

    fn scheduler(&self, limits: Limits) -> SchedulerConfig {
        let reference = SchedulerConfig::reference(limits.context_tokens);
        let least = u32::from(self.rows_max).saturating_add(1);
        let step_tokens = self
            .step_token_budget
            .min(limits.step_tokens_useful.max(least));
        SchedulerConfig {
            rows_max: self.rows_max,
            step_token_budget: step_tokens,
            prefill_chunk_tokens: self.prefill_chunk_tokens,
            admission: self.admission,
            solo_prefill_tokens: step_tokens.max(self.prefill_chunk_tokens),
            // Rows wait for their admission until the next plan, those with a free slot as well.
            waiting_max: self.waiting_max.saturating_add(self.rows_max),
            ..reference
        }
    }
}

/// An engine that could not start.
#[derive(Debug, Error)]
pub enum StartError<E> {
    /// The backend's own reason.
    #[error(transparent)]
    Backend(E),
    #[error("the engine's limits fit no scheduler: {0}")]
    Config(#[from] ConfigError),
    #[error("prompts cannot be kept on disk: {0}")]
    Disk(#[from] OpenError),
    #[error("the engine's thread ended while loading the model")]
    Died,
    #[error("the engine's thread cannot start: {0}")]
    Thread(std::io::Error),
}

/// A model at work. Dropping it stops it as [`Engine::stop`] does.
#[derive(Debug)]
pub struct Engine {
    inbox: Arc<Inbox>,
    reader: Reader,
    /// Absent where reading a request costs nothing.
    preparer: Option<Box<Preparer>>,
    has_disk: bool,
    thread: Option<JoinHandle<()>>,
    watch: Option<JoinHandle<()>>,
}

/// What the thread says of itself when the model is loaded.
struct Opened {
    reader: Reader,
    has_disk: bool,
}

impl Engine {
    /// Starts the thread, opens the backend on it and waits until that is done. `on_event` runs on
    /// the thread: it should hand the event on and return.
    ///
    /// # Errors
    /// The backend does not open, or the limits fit no scheduler.
    pub fn start<B, E>(
        config: &EngineConfig,
        open: impl FnOnce() -> Result<B, E> + Send + 'static,
        on_event: impl FnMut(Event) + Send + 'static,
    ) -> Result<Self, StartError<E>>
    where
        B: Backend + 'static,
        E: Send + 'static,
    {
        let live_max = usize::from(config.rows_max) + usize::from(config.waiting_max);
        let inbox = Arc::new(Inbox::new(live_max, config.unread_events_max));
        let for_thread = Arc::clone(&inbox);
        let listener = Arc::new(Mutex::new(on_event));
        let watch =
            watch::start(Arc::clone(&inbox), Arc::clone(&listener)).map_err(StartError::Thread)?;
        let config = config.clone();
        let (opened, when_opened) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || {
                let gone = GoneOnDrop(Arc::clone(&for_thread));
                let began = Instant::now();
                let worker = open()
                    .map_err(StartError::Backend)
                    .and_then(|backend| set_up(backend, config, for_thread, began, listener));
                match worker {
                    Ok((worker, told)) => {
                        let is_awaited = opened.send(Ok(told)).is_ok();
                        if is_awaited {
                            worker.run();
                        }
                    }
                    // Nobody waits only when the starter itself is gone.
                    Err(error) => drop(opened.send(Err(error))),
                }
                drop(gone);
            })
            .map_err(|error| {
                inbox.set_mode(Mode::Gone);
                StartError::Thread(error)
            })?;
        match when_opened.recv() {
            Ok(Ok(Opened { reader, has_disk })) => {
                let mut engine = Self {
                    inbox,
                    reader,
                    preparer: None,
                    has_disk,
                    thread: Some(thread),
                    watch: Some(watch),
                };
                if engine.reader.prompts.is_some() {
                    let preparer = Preparer::open(&engine.reader, &engine.inbox);
                    engine.preparer = Some(Box::new(preparer.map_err(StartError::Thread)?));
                }
                Ok(engine)
            }
            Ok(Err(error)) => Err(error),
            Err(mpsc::RecvError) => Err(StartError::Died),
        }
    }

    /// Whether prompts are kept on disk: where the configuration says so and the model's layers all
    /// have full attention.
    #[must_use]
    pub const fn has_disk(&self) -> bool {
        self.has_disk
    }

    /// Hands in a job as a body, which is read first; see [`Engine::ask`].
    ///
    /// # Errors
    /// As [`Engine::ask`]. What is wrong with the body comes as an event.
    pub fn submit(&self, job: Job) -> Result<(), Failure> {
        let Job { id, body, scope } = job;
        self.hand_in(id, Asking::Body(body), scope)
    }

    /// Hands in a request. When this returns `Ok`, exactly one of `Finished` and `Failed` will follow.
    ///
    /// Returns at once: the body is read, its prompt cut into tokens and the form of its answer
    /// compiled on threads of the engine's own, beside the one that computes.
    ///
    /// # Errors
    /// The engine is full (429) or shutting down (503), or the id is in use (400). No event follows.
    pub fn ask(
        &self,
        id: RowId,
        request: ChatRequest,
        scope: Option<Scope>,
    ) -> Result<(), Failure> {
        self.hand_in(id, Asking::Request(Box::new(request)), scope)
    }

    /// [`Engine::submit`] on the caller's own thread: it takes as long as the prompt does, and the
    /// job is in the engine's queue when this returns.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub fn submit_here(&self, job: Job) -> Result<(), Failure> {
        let Job { id, body, scope } = job;
        self.make_ready(id, Asking::Body(body), scope)
    }

    fn hand_in(&self, id: RowId, asking: Asking, scope: Option<Scope>) -> Result<(), Failure> {
        let Some(preparer) = &self.preparer else {
            return self.make_ready(id, asking, scope);
        };
        let at = Instant::now();
        self.inbox.reserve(id)?;
        preparer.take(Waiting {
            id,
            asking,
            scope,
            at,
        });
        Ok(())
    }

    fn make_ready(&self, id: RowId, asking: Asking, scope: Option<Scope>) -> Result<(), Failure> {
        let at = Instant::now();
        self.inbox.check(id)?;
        self.inbox.submit(Arrived {
            id,
            asked: self.reader.read(asking, scope.as_ref()),
            scope,
            at,
        })
    }

    /// Ends a job early: `Finished` as cancelled when some text went out, else `Failed` with 499.
    /// An id that is not being served is passed over.
    pub fn cancel(&self, id: RowId) {
        self.inbox.cancel(id);
    }

    /// So many events of a job were read, by whoever they are for.
    pub fn read(&self, id: RowId, events: u32) {
        self.inbox.read(id, events);
    }

    /// From now on so much memory is for keys and values. Rows that it cannot hold together wait, and
    /// are computed again; those that it could not hold alone fail.
    pub fn set_grant(&self, kv_bytes_max: u64) {
        self.inbox.grant(kv_bytes_max);
    }

    /// Takes no more jobs; those taken are finished.
    pub fn drain(&self) {
        self.inbox.set_mode(Mode::Draining);
    }

    #[must_use]
    pub fn capacity(&self) -> CapacitySnapshot {
        self.inbox.snapshot()
    }

    /// Drains, waits for the last job and frees the model. A step that does not end is not waited for.
    ///
    /// # Panics
    /// The engine's thread panicked.
    pub fn stop(mut self) {
        assert!(
            self.wait().is_ok(),
            "the engine's thread panicked; its message is above"
        );
    }

    /// Waits for the thread, unless it is in a step that does not end: then it is left alone, with
    /// the model's memory.
    fn wait(&mut self) -> thread::Result<()> {
        self.inbox.set_mode(Mode::Stopping);
        self.preparer = None;
        let watched = self.watch.take().map_or(Ok(()), JoinHandle::join);
        match self.thread.take() {
            Some(thread) if !self.inbox.is_stuck() => thread.join(),
            Some(_) | None => watched,
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // A panic's message is printed already; a second panic here would abort.
        drop(self.wait());
    }
}

/// On the thread itself, with a model that is loaded.
fn set_up<B: Backend, F: FnMut(Event), E>(
    backend: B,
    config: EngineConfig,
    inbox: Arc<Inbox>,
    began: Instant,
    listener: Listener<F>,
) -> Result<(Worker<B, F>, Opened), StartError<E>> {
    let reader = Reader {
        prompts: backend.prompts(),
        grammars: backend.grammars(),
    };
    let layout = backend.layout(config.kv_bytes_max);
    let disk = match config.disk.clone() {
        Some(tier) => Disk::open(tier, &backend, &layout, &inbox)?,
        None => None,
    };
    let scheduler = Scheduler::new(config.scheduler(backend.limits()), layout)?;
    inbox.watch(backend.step_time_max());
    let leases = Leases::new(config.leases);
    let load_time = began.elapsed();
    let has_disk = disk.is_some();
    let worker = Worker::new(
        backend,
        scheduler,
        leases,
        inbox,
        config.seed,
        load_time,
        listener,
    );
    let opened = Opened { reader, has_disk };
    Ok((worker.with_disk(disk), opened))
}

/// However the thread ends, no more jobs are taken.
struct GoneOnDrop(Arc<Inbox>);

impl Drop for GoneOnDrop {
    fn drop(&mut self) {
        self.0.set_mode(Mode::Gone);
    }
}

/// Tokens a second; `None` when no time passed.
fn tokens_per_second(tokens: u32, time: Duration) -> Option<f64> {
    let seconds = time.as_secs_f64();
    (seconds > 0.0).then(|| f64::from(tokens) / seconds)
}
