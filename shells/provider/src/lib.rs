//! The provider process: a WebSocket, the engine on its thread and the machine's key around
//! `cereus_core::agent`. Nothing here decides.

pub mod doctor;
pub mod identity;
pub mod memory;
mod model;
mod old_weights;
mod paced;
mod report;
mod run;
mod socket;
pub mod weights;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

pub use model::ModelError;
pub use run::serve;

use crate::identity::IdentityError;

/// What a provider process is told at start.
#[derive(Debug)]
pub struct Settings {
    /// `http://host:port` of the coordinator.
    pub coordinator: String,
    /// Folder of the machine's key.
    pub data: PathBuf,
    pub backend: Backend,
    /// The name under which the coordinator sells the model.
    pub model_id: String,
    /// An API key of the account that earns; empty for none.
    pub earn_key: SecretString,
    /// Requests served at once.
    pub rows_max: u16,
    /// How long running jobs may finish after SIGTERM.
    pub drain_wait_max: Duration,
}

/// What answers.
#[derive(Clone, Debug)]
pub enum Backend {
    /// The same word so many times, with a pause before each step: for tests and benches.
    Echo { words: u32, pause: Duration },
    /// A model folder in the standard Hugging Face layout.
    Model(PathBuf),
}

/// How far a provider has come, for whoever waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The coordinator's challenge was signed.
    Challenged,
    /// The coordinator answered.
    Joined,
    Loaded(String),
    /// The machine's name, which survives restarts.
    Machine(String),
}

/// Why a provider did not start, or had to end.
#[derive(Debug)]
pub enum ProviderError {
    Address(String),
    Identity(IdentityError),
    Model(ModelError),
    NoRandomness,
}

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(
                f,
                "`{address}` is no address of a coordinator; it looks like http://127.0.0.1:8080 \
                 (TLS is for a proxy on this machine to add)"
            ),
            Self::Identity(error) => error.fmt(f),
            Self::Model(error) => error.fmt(f),
            Self::NoRandomness => f.write_str("the system gives no randomness"),
        }
    }
}

impl std::error::Error for ProviderError {}
