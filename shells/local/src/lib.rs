//! One model folder behind the OpenAI API on this machine: sockets around the engine, with no
//! coordinator, no accounts and no money. Nothing here decides.
//!
//! [`start`] loads the model and listens; the caller waits on [`Running`] and asks it to drain.

mod answer;
mod app;
mod guard;
mod http;
mod model;
mod row_events;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cereus_engine::runtime::DiskTier;
pub use cereus_http::HttpLimits;
use cereus_http::{Names, OriginRule, cannot_listen, serve};
use secrecy::SecretString;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::app::App;
use crate::guard::Guard;
use crate::model::Model;

/// What a local server is told at start.
#[derive(Clone, Debug)]
pub struct Settings {
    pub listen: SocketAddr,
    pub backend: Backend,
    /// The name that requests give the model.
    pub model_id: String,
    /// Requests answered together.
    pub rows_max: u16,
    /// Requests that may wait for a row; further ones get 429.
    pub waiting_max: u16,
    /// Memory for the keys and values of all of them.
    pub kv_bytes_max: u64,
    /// Where they are kept when they leave memory.
    pub disk: Option<DiskTier>,
    /// What a client must say after `Authorization: Bearer`; absent asks for nothing.
    pub key: Option<SecretString>,
    /// Host names under which it answers beside this machine's own, while it listens to this machine
    /// only.
    pub allowed_hosts: Vec<String>,
    /// Origins of web pages that may use it beside those of this machine, as `https://chat.example`;
    /// `*` allows all.
    pub allowed_origins: Vec<String>,
    /// Of HTTP connections.
    pub limits: HttpLimits,
    /// How long running answers may finish once asked to drain.
    pub drain_wait_max: Duration,
}

impl Settings {
    /// Requests that run or wait.
    pub(crate) fn places_max(&self) -> usize {
        usize::from(self.rows_max.max(1)) + usize::from(self.waiting_max)
    }
}

/// What answers.
#[derive(Clone, Debug)]
pub enum Backend {
    /// The same word so many times, with a pause before each step: for tests and benches.
    Echo { words: u32, pause: Duration },
    /// A model folder in the standard Hugging Face layout.
    Model(PathBuf),
}

/// Why a local server did not start, or had to end.
#[derive(Debug, Error)]
pub enum LocalError {
    #[error("{}", cannot_listen(*.listen, "--listen", .source))]
    Bind {
        listen: SocketAddr,
        source: io::Error,
    },
    #[error("an answer still ran after {} s of draining", .0.as_secs())]
    DrainOverdue(Duration),
    #[error("cannot load {folder}: {reason}")]
    Model { folder: PathBuf, reason: String },
    #[error(
        "this build has no engine (feature `mlx`); build it with `cargo build -p cereus` after \
         `cargo xtask setup`, or use --echo"
    )]
    NoTensors,
}

/// A local server that serves.
#[derive(Debug)]
pub struct Running {
    addr: SocketAddr,
    draining: watch::Sender<bool>,
    ended: JoinHandle<Result<(), LocalError>>,
}

impl Running {
    /// Where it listens; the port is real even when port 0 was asked for.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Take nothing more, finish what runs, then end.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Until it has drained. Cancel safe.
    ///
    /// # Errors
    /// The drain took too long.
    pub async fn ended(&mut self) -> Result<(), LocalError> {
        match (&mut self.ended).await {
            Ok(ending) => ending,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
}

/// Loads the model, which may take minutes, and serves.
///
/// # Errors
/// The folder holds no model, the address is taken or the model does not load.
pub async fn start(settings: Settings) -> Result<Running, LocalError> {
    let bind_error = |source| LocalError::Bind {
        listen: settings.listen,
        source,
    };
    model::check(&settings.backend)?;
    // Before the model is loaded: it fails at once where loading takes long.
    let listener = TcpListener::bind(settings.listen)
        .await
        .map_err(bind_error)?;
    let addr = listener.local_addr().map_err(bind_error)?;
    let places_max = settings.places_max();
    let for_model = settings.clone();
    let loading = tokio::task::spawn_blocking(move || Model::load(&for_model));
    let model = match loading.await {
        Ok(model) => model?,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    };
    let (draining, drain) = watch::channel(false);
    let guard = Guard::new(settings.key);
    let names = if addr.ip().is_loopback() {
        Names::Local {
            also: settings.allowed_hosts,
        }
    } else {
        Names::Any
    };
    let origins = if settings.allowed_origins.iter().any(|origin| origin == "*") {
        OriginRule::Any
    } else {
        OriginRule::Local {
            also: settings.allowed_origins,
        }
    };
    let app = App::new(settings.model_id, model, places_max, guard, drain.clone());
    let app = Arc::new(app);
    let router = http::router(&app, names, origins);
    let http = serve(
        listener,
        router,
        settings.limits,
        Arc::new(()),
        drain.clone(),
    );
    let http = tokio::spawn(http);
    let ended = tokio::spawn(supervise(app, http, drain, settings.drain_wait_max));
    tracing::info!(%addr, "local server up");
    Ok(Running {
        addr,
        draining,
        ended,
    })
}

async fn supervise(
    app: Arc<App>,
    mut http: JoinHandle<()>,
    mut drain: watch::Receiver<bool>,
    drain_wait_max: Duration,
) -> Result<(), LocalError> {
    let overdue = async {
        let _ = drain.wait_for(|drain| *drain).await;
        app.drain();
        tokio::time::sleep(drain_wait_max).await;
    };
    tokio::select! {
        ending = &mut http => match ending {
            Ok(()) => Ok(()),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        },
        () = overdue => {
            http.abort();
            Err(LocalError::DrainOverdue(drain_wait_max))
        }
    }
}
