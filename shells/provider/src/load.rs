//! Loads and unloads, each on a thread of its own: the loop goes on meanwhile.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;

use cereus_core::draw::Seed;
use cereus_core::slots::{BuildIx, LoadFault};
use cereus_engine::runtime::{
    EchoBackend, Engine, EngineConfig, Event, StartError, clear_spare_memory,
};
use cereus_engine::scheduler::flow::Flow;
use tokio::sync::mpsc;

use crate::offered::Offered;
use crate::weights::{FilesError, Fingerprint, KnownHashes, fingerprint};
use crate::{Backend, ModelError};

/// Rows that may wait in the engine for each one that runs.
const WAITING_PER_ROW: u16 = 4;

/// What a load needs to know.
#[derive(Debug)]
pub(crate) struct LoadOrder {
    pub(crate) build: BuildIx,
    backend: Backend,
    /// What the files were like when they were announced.
    announced: Option<Fingerprint>,
    /// Where hashes are kept.
    data: PathBuf,
    grant_bytes: u64,
    rows_max: u16,
    seed: Seed,
}

impl LoadOrder {
    pub(crate) fn new(
        build: BuildIx,
        offered: &Offered,
        data: &Path,
        grant_bytes: u64,
        rows_max: u16,
        seed: Seed,
    ) -> Self {
        Self {
            build,
            backend: offered.source.backend.clone(),
            announced: offered
                .files
                .as_ref()
                .map(|files| files.fingerprint.clone()),
            data: data.to_owned(),
            grant_bytes,
            rows_max: rows_max.max(1),
            seed,
        }
    }
}

/// A model in memory.
#[derive(Debug)]
pub(crate) struct LoadedModel {
    pub(crate) engine: Engine,
    /// Of its files, where it has any.
    pub(crate) hash: Option<String>,
    /// The wire's word for how it keeps keys and values, if it has any.
    pub(crate) kv_backend: Option<&'static str>,
}

/// What a thread reports.
#[derive(Debug)]
pub(crate) enum Moved {
    Loaded {
        build: BuildIx,
        result: Result<LoadedModel, NotLoaded>,
    },
    Unloaded {
        build: BuildIx,
    },
}

/// Why a load came to nothing, for the slots and for the operator.
#[derive(Debug)]
pub(crate) struct NotLoaded {
    pub(crate) fault: LoadFault,
    pub(crate) error: ModelError,
}

impl From<ModelError> for NotLoaded {
    fn from(error: ModelError) -> Self {
        Self {
            fault: LoadFault::Failed,
            error,
        }
    }
}

impl From<FilesError> for NotLoaded {
    fn from(error: FilesError) -> Self {
        ModelError::Files(error).into()
    }
}

/// Unbounded channels, because an engine's thread must not wait. What is in them is bounded all the
/// same: a row pauses once [`Flow::UNREAD_MAX`] of its events have not been read, and of loads and
/// unloads there is one each at a time.
pub(crate) type Words = mpsc::UnboundedSender<Event>;
pub(crate) type Moves = mpsc::UnboundedSender<Moved>;

/// Loads; the outcome comes as [`Moved::Loaded`] in any case.
pub(crate) fn begin_load(order: LoadOrder, words: Words, moves: Moves) {
    let build = order.build;
    let tell = moves.clone();
    let spawned = thread::Builder::new()
        .name("load".to_owned())
        .spawn(move || {
            let loaded = catch_unwind(AssertUnwindSafe(|| load(order, words)));
            let result = loaded.unwrap_or_else(|_| Err(ModelError::Panicked.into()));
            // Fails only while the process ends.
            drop(tell.send(Moved::Loaded { build, result }));
        });
    if let Err(error) = spawned {
        let error = ModelError::Engine(format!("no thread can be started: {error}"));
        let result = Err(error.into());
        drop(moves.send(Moved::Loaded { build, result }));
    }
}

/// Stops the engine, waits for its thread and gives its memory back. An engine that never ends keeps
/// a thread waiting; the slots go on without it.
pub(crate) fn begin_unload(build: BuildIx, engine: Engine, moves: Moves) {
    let unload = move || {
        drop(engine);
        clear_spare_memory();
        drop(moves.send(Moved::Unloaded { build }));
    };
    // If no thread can be started the closure is dropped, and with it the engine: its memory is
    // freed all the same, on this thread.
    if let Err(error) = thread::Builder::new()
        .name("unload".to_owned())
        .spawn(unload)
    {
        tracing::error!(%error, "no thread can be started to unload a model");
    }
}

fn load(order: LoadOrder, words: Words) -> Result<LoadedModel, NotLoaded> {
    let folder = match &order.backend {
        Backend::Echo { .. } => None,
        Backend::Model(folder) => Some(folder.clone()),
    };
    let mut hash = None;
    if let Some(folder) = &folder {
        unchanged(folder, &order)?;
        hash = Some(KnownHashes::open(&order.data).hash(folder)?);
    }
    let engine = start(&order, words)?;
    if let Some(folder) = &folder {
        // Looks again whether the files are as they were when hashed, so that the hash is of what
        // was loaded.
        unchanged(folder, &order)?;
    }
    Ok(LoadedModel {
        engine,
        hash,
        kv_backend: folder.is_some().then_some("paged"),
    })
}

fn unchanged(folder: &Path, order: &LoadOrder) -> Result<(), NotLoaded> {
    if order.announced.as_ref() == Some(&fingerprint(folder)?) {
        return Ok(());
    }
    Err(NotLoaded {
        fault: LoadFault::Changed,
        error: ModelError::Changed(folder.to_owned()),
    })
}

fn start(order: &LoadOrder, words: Words) -> Result<Engine, ModelError> {
    let mut config = EngineConfig::reference(order.grant_bytes, order.seed);
    config.rows_max = order.rows_max;
    config.waiting_max = order.rows_max.saturating_mul(WAITING_PER_ROW);
    config.unread_events_max = Some(Flow::UNREAD_MAX);
    let on_event = move |event| {
        // Fails only while the process ends.
        drop(words.send(event));
    };
    match order.backend.clone() {
        Backend::Echo { words, pause, .. } => {
            let open = move || Ok::<_, String>(EchoBackend::new(words).paced(pause));
            Engine::start(&config, open, on_event).map_err(engine_error)
        }
        Backend::Model(folder) => start_model(&config, folder, on_event),
    }
}

#[cfg(feature = "mlx")]
fn start_model(
    config: &EngineConfig,
    folder: PathBuf,
    on_event: impl FnMut(Event) + Send + 'static,
) -> Result<Engine, ModelError> {
    use cereus_engine::runtime::MlxBackend;

    Engine::start(config, move || MlxBackend::open(&folder), on_event).map_err(engine_error)
}

#[cfg(not(feature = "mlx"))]
fn start_model(
    _config: &EngineConfig,
    _folder: PathBuf,
    _on_event: impl FnMut(Event) + Send + 'static,
) -> Result<Engine, ModelError> {
    Err(ModelError::NoTensors)
}

fn engine_error<E: fmt::Display>(error: StartError<E>) -> ModelError {
    ModelError::Engine(match error {
        StartError::Backend(error) => error.to_string(),
        StartError::Config(error) => format!("the engine's limits fit no scheduler: {error}"),
        StartError::Disk(error) => format!("prompts cannot be kept on disk: {error}"),
        StartError::Died => "the engine's thread ended while loading the model".to_owned(),
        StartError::Thread(error) => format!("the engine's thread cannot start: {error}"),
    })
}
