//! The coordinator process: sockets, the SQLite store, the journal's file and signals around
//! `cereus_core::coordinator`. Nothing here decides.
//!
//! [`start`] opens everything and returns; the caller waits on [`Running`] and asks it to drain.

mod answer;
mod app;
mod clock;
mod control;
mod directory;
mod ending;
mod fingerprint;
mod guard;
pub mod hint;
mod http;
mod journal;
mod metrics;
mod provider;
pub mod questions;
mod receipts;
pub mod settings;
pub mod store;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cereus_core::event::Event;
use cereus_core::link::LinkConfig;
use cereus_core::wire::proof::Posture;
pub use cereus_http::HttpLimits;
use cereus_http::{Proxies, cannot_listen, serve};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::app::{App, Parts};
use crate::clock::Clock;
use crate::control::{Control, Ending, INBOX_MAX, Notice};
use crate::directory::Directory;
pub use crate::journal::JournalSettings;
use crate::journal::Recorder;
pub use crate::settings::Settings;
use crate::settings::{CatalogSource, fresh_seed};
use crate::store::applier::Applier;
use crate::store::presence::{Presence, Trouble};
use crate::store::watch::{self as store_watch, Listener};
use crate::store::writer::{self, Started};
use crate::store::{AuditExtent, Changes, FolderLock, OpenHold, StoreError, unix_now_s};

/// The account that earns for machines that name no account of their own.
pub const UNLINKED_ACCOUNT: &str = "unlinked-machines";
/// How long providers and idle connections may take to go once the last stream has ended.
const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// How long the database may take at the end. What it has not then is in the log, where the next start
/// finds it.
const STORE_WAIT: Duration = Duration::from_secs(30);
/// How often the lock of a data folder is tried, and the pause between.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// Connections at once of those who read the metrics.
const METRICS_CONNECTIONS_MAX: usize = 64;

/// Why a coordinator did not start, or had to end.
#[derive(Debug, Error)]
pub enum CoordinatorError {
    #[error("{}", cannot_listen(*.listen, .option, .source))]
    Bind {
        listen: SocketAddr,
        /// The option that chooses another place.
        option: &'static str,
        source: io::Error,
    },
    #[error(
        "the data folder {0} under the running coordinator: nothing that it would write can be found \
         again, so it ended. Put the folder back, or restore a backup, and start again"
    )]
    FolderGone(String),
    #[error("a stream still ran after {} s of draining", .0.as_secs())]
    DrainOverdue(Duration),
    #[error(
        "cannot write the journal in {folder} ({source}); choose another folder with --data, or \
         change its owner"
    )]
    Journal { folder: PathBuf, source: io::Error },
    #[error(
        "{0}: another program changed the log of transfers under the running coordinator, so it ended \
         and wrote no more to it. What the log held was to go to the database as it ended; an error \
         before this one says if it did not. Keep other programs, such as a rotation of logs, away \
         from the data folder, and start again"
    )]
    LogChanged(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "the ledger could not be written ({0}); nothing unpaid was released. Make room on the disk \
         if it is full, and start again"
    )]
    StoreFailed(String),
    #[error("the system gives no thread: {0}")]
    Thread(io::Error),
}

/// A coordinator that serves.
#[derive(Debug)]
pub struct Running {
    addr: SocketAddr,
    metrics_addr: Option<SocketAddr>,
    journal: PathBuf,
    drain: watch::Sender<bool>,
    ended: JoinHandle<Result<(), CoordinatorError>>,
}

impl Running {
    /// Where it listens; the port is real even when port 0 was asked for.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where the metrics are, if anywhere.
    #[must_use]
    pub const fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_addr
    }

    /// The journal's file of this run.
    #[must_use]
    pub fn journal(&self) -> &Path {
        &self.journal
    }

    /// A handle that outlives the wait on [`Self::ended`].
    #[must_use]
    pub fn drainer(&self) -> Drainer {
        Drainer {
            drain: self.drain.clone(),
        }
    }

    /// Waits until the coordinator has drained, or had to end.
    pub async fn ended(self) -> Result<(), CoordinatorError> {
        match self.ended.await {
            Ok(ending) => ending,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
}

/// Asks a coordinator to drain.
#[derive(Clone, Debug)]
pub struct Drainer {
    drain: watch::Sender<bool>,
}

impl Drainer {
    /// Admit nothing more, finish what runs, then end.
    pub fn drain(&self) {
        self.drain.send_replace(true);
    }
}

/// Opens the store, audits it, recovers what the last process left, and serves.
pub async fn start(mut settings: Settings) -> Result<Running, CoordinatorError> {
    let lock = lock_folder(&settings.data).await?;
    let mut store = store::open_locked(&settings.data, &lock)?;
    let presence = Presence::of(&settings.data).map_err(|source| StoreError::Folder {
        path: settings.data.clone(),
        source,
    })?;
    let audit = store.audit(AuditExtent::SinceLast)?;
    tracing::info!(
        transfers_since_last_audit = audit.transfer_count,
        open_holds = audit.open_hold_count,
        "balances and ledger agree"
    );
    settings.config.epoch = store.begin_epoch()?;
    let holds = store.open_holds()?;
    let unlinked = store.ensure_account(UNLINKED_ACCOUNT)?;
    let everything = store.everything()?;
    let watching = store::open_beside(&settings.data)?;
    let reading = store::open_beside(&settings.data)?;
    let (listener, addr) = bind(settings.listen, "--listen").await?;
    let (metrics_listener, metrics_addr) = match settings.metrics_listen {
        Some(listen) => {
            let (listener, addr) = bind(listen, "--metrics-listen").await?;
            (Some(listener), Some(addr))
        }
        None => (None, None),
    };
    let recorder =
        Recorder::start(&settings.data, &settings.config, settings.journal).map_err(|source| {
            CoordinatorError::Journal {
                folder: settings.data.clone(),
                source,
            }
        })?;
    let Started {
        writer,
        applier,
        stopper,
        durable,
        log,
    } = writer::start(store, &settings.data)?;
    let presence = Arc::new(presence.with_log(log));
    let applied = applier.clone();

    let (control, inbox) = mpsc::channel(INBOX_MAX);
    let (drain, draining) = watch::channel(false);
    let clock = Clock::start();
    let started_unix_s = u64::try_from(unix_now_s()).unwrap_or_default();
    // Its own secret: the core's seed is in the journal.
    let link_config = LinkConfig::reference(fresh_seed(), started_unix_s, Posture::REFERENCE);
    let directory = Directory::new(
        control.clone(),
        link_config,
        settings.config.catalog.clone(),
    );
    let app = Arc::new(App::new(Parts {
        clock,
        control: control.clone(),
        data: settings.data.clone(),
        directory: Arc::clone(&directory),
        draining: draining.clone(),
        epoch: settings.config.epoch,
        reading,
        proxies: Proxies::new(settings.proxies),
        started_unix_s,
        unlinked,
    }));
    let journal = recorder.path().to_owned();
    let control_task = Control::new(Arc::clone(&app), settings.config, recorder, writer, durable);
    let control_task = tokio::spawn(control_task.run(inbox, draining.clone()));
    directory.begin(&everything).await;
    recover(&control, holds).await;
    let watch = store_watch::start(
        watching,
        &settings.data,
        everything.up_to,
        Neighbours {
            applier,
            directory,
            control,
            source: settings.source,
        },
    )
    .map_err(CoordinatorError::Thread)?;

    let (closing, closed) = watch::channel(false);
    let http = tokio::spawn(serve(
        listener,
        http::router(&app),
        settings.limits,
        Arc::clone(&app),
        closed.clone(),
    ));
    let metrics = metrics_listener.map(|listener| {
        let limits = HttpLimits::with_connections(METRICS_CONNECTIONS_MAX);
        let router = http::metrics_router(&app);
        tokio::spawn(serve(listener, router, limits, Arc::new(()), closed))
    });
    let app_of_guard = Arc::clone(&app);
    let ended = tokio::spawn(async move {
        let gone = guard::gone(app_of_guard, Arc::clone(&presence));
        let ending = supervise(control_task, draining, settings.drain_wait_max, gone).await;
        let ending = match (ending, presence.look_at_log()) {
            // Whoever wrote to it saw it first.
            (Err(CoordinatorError::StoreFailed(_)), Err(changed)) => {
                Err(CoordinatorError::LogChanged(changed.to_string()))
            }
            (ending, _) => ending,
        };
        closing.send_replace(true);
        let _ = timeout(CLOSE_WAIT, async {
            let metrics = async {
                if let Some(metrics) = metrics {
                    let _ = metrics.await;
                }
            };
            tokio::join!(http, metrics, app.providers_gone())
        })
        .await;
        let stop = move || {
            watch.stop();
            stopper.stop();
        };
        let has_stopped = matches!(guard::ends_within(STORE_WAIT, stop).await, Ok(true));
        let unwritten = applied.unwritten();
        if unwritten > 0 && matches!(ending, Err(CoordinatorError::LogChanged(_))) {
            tracing::error!(
                unwritten,
                "the database did not take these entries of the log that was changed, and no start can \
                 find them again: keep the folder for an inquiry, and restore a backup of all of it"
            );
        } else if !has_stopped {
            tracing::error!(
                wait_s = STORE_WAIT.as_secs(),
                "the database did not take what was left in time; the next start writes it"
            );
        }
        drop(lock);
        ending
    });
    tracing::info!(%addr, "coordinator up");
    Ok(Running {
        addr,
        metrics_addr,
        journal,
        drain,
        ended,
    })
}

/// A command that reads the books while nobody serves them holds the lock for a moment.
async fn lock_folder(folder: &Path) -> Result<FolderLock, StoreError> {
    for _ in 0..LOCK_TRIES {
        match FolderLock::take(folder) {
            Err(StoreError::InUse { .. }) => tokio::time::sleep(LOCK_PAUSE).await,
            taken => return taken,
        }
    }
    FolderLock::take(folder)
}

/// Where it listens is real even when port 0 was asked for.
async fn bind(
    listen: SocketAddr,
    option: &'static str,
) -> Result<(TcpListener, SocketAddr), CoordinatorError> {
    let failed = |source| CoordinatorError::Bind {
        listen,
        option,
        source,
    };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    Ok((listener, addr))
}

/// What other processes on this machine change or ask.
struct Neighbours {
    applier: Applier,
    directory: Arc<Directory>,
    control: mpsc::Sender<Notice>,
    source: CatalogSource,
}

impl Listener for Neighbours {
    fn changed(&mut self, changes: &Changes) {
        self.directory.take_over(changes);
    }

    fn asked(&mut self, question: &str) -> Option<String> {
        if question == store_watch::SETTLE {
            return Some(self.applier.settle().to_string());
        }
        questions::answer(question, &self.control, &self.source)
    }
}

/// The core hears of the holds that died with the last process.
async fn recover(control: &mpsc::Sender<Notice>, holds: Vec<OpenHold>) {
    for hold in holds {
        let OpenHold {
            account,
            request,
            amount,
        } = hold;
        let event = Event::HoldRecovered {
            account,
            request,
            amount,
        };
        let _ = control.send(Notice::Happened(event)).await;
    }
}

async fn supervise(
    mut control: JoinHandle<Ending>,
    mut draining: watch::Receiver<bool>,
    drain_wait_max: Duration,
    gone: impl Future<Output = Trouble>,
) -> Result<(), CoordinatorError> {
    let overdue = async {
        let _ = draining.wait_for(|draining| *draining).await;
        tokio::time::sleep(drain_wait_max).await;
    };
    tokio::select! {
        ending = &mut control => match ending {
            Ok(Ending::Drained) => Ok(()),
            Ok(Ending::StoreFailed(reason)) => Err(CoordinatorError::StoreFailed(reason)),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        },
        trouble = gone => {
            control.abort();
            let said = trouble.to_string();
            match trouble {
                Trouble::Gone(_) | Trouble::Unwritable { .. } => {
                    Err(CoordinatorError::FolderGone(said))
                }
                Trouble::Log(_) => Err(CoordinatorError::LogChanged(said)),
            }
        }
        () = overdue => {
            control.abort();
            Err(CoordinatorError::DrainOverdue(drain_wait_max))
        }
    }
}
