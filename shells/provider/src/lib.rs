//! The provider process: a WebSocket, engines on their threads and the machine's key around
//! `cereus_core::agent` and `cereus_core::slots`. Nothing here decides.

mod address;
mod dial;
pub mod doctor;
mod engines;
mod error;
mod folder;
mod host;
mod hours;
pub mod identity;
mod load;
pub mod memory;
mod offered;
mod report;
mod run;
pub mod weights;

use std::path::PathBuf;
use std::time::Duration;

use cereus_core::memory::MemoryPolicy;
use secrecy::SecretString;

pub use error::{ModelError, ProviderError};
pub use hours::{Hours, LocalClock, SystemClock, hours_text};
pub use run::serve;

use crate::memory::MemoryProbe;

/// What a provider process is told at start.
#[derive(Debug)]
pub struct Settings {
    /// `http://host:port` or `https://host:port` of the coordinator.
    pub coordinator: String,
    /// A PEM file of certificates to trust besides the system's.
    pub authorities: Option<PathBuf>,
    /// Folder of the machine's key, and of what is known of the models' files.
    pub data: PathBuf,
    /// In order of preference: the first are loaded at the start.
    pub models: Vec<ModelSource>,
    /// `None`: it earns for no account.
    pub earn_key: Option<EarnKey>,
    /// Requests that one model serves at once.
    pub rows_max: u16,
    /// How long running jobs may finish after SIGTERM, or when the owner's hours end.
    pub drain_wait_max: Duration,
    pub hours: Hours,
    pub memory: MemorySettings,
    pub preload: Preload,
}

/// An API key of the account that earns.
#[derive(Debug)]
pub struct EarnKey {
    pub secret: SecretString,
    /// The option, file or variable that gave it, as messages name it.
    pub from: String,
}

/// What bounds the models in memory.
#[derive(Debug)]
pub struct MemorySettings {
    pub policy: MemoryPolicy,
    pub probe: Box<dyn MemoryProbe>,
    /// Models in memory at once.
    pub slots_max: u8,
    /// After so long without a request a model leaves the memory; zero: never.
    pub idle_wait: Duration,
}

/// Whether models are loaded before the coordinator hears of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preload {
    /// As many as fit beside each other.
    Fitting,
    /// Each when it is first asked for.
    OnDemand,
}

/// A model to serve.
#[derive(Clone, Debug)]
pub struct ModelSource {
    /// The name under which the coordinator sells it.
    pub id: String,
    pub backend: Backend,
}

/// What answers.
#[derive(Clone, Debug)]
pub enum Backend {
    /// The same word so many times, with a pause before each step: for tests and benches. It takes
    /// no memory, and is charged for weights of this size.
    Echo {
        words: u32,
        pause: Duration,
        weights_bytes: u64,
    },
    /// A model folder in the standard Hugging Face layout.
    Model(PathBuf),
}

/// Who gets what a machine earns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Earner {
    /// That of the earning key, says the coordinator.
    Account,
    /// The coordinator knows no such key, and did not take the machine.
    KeyUnknown,
    /// No key was given.
    Nobody,
}

/// How far a provider has come, for whoever waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The coordinator's challenge was signed.
    Challenged,
    /// Another process has this machine's identity, and one of the two had to go.
    Contested,
    Earning(Earner),
    /// A model is not offered; this is why.
    Fenced {
        model: String,
        why: String,
    },
    /// The coordinator answered.
    Joined,
    Loaded(String),
    /// Its connections ended while it worked, again and again: it gets one request at a time.
    LostAtWork,
    /// None of its models is sold: it gets no work.
    NothingSold,
    /// The machine's name, which survives restarts.
    Machine(String),
    /// Outside of the owner's hours; the next begin after so long, if ever.
    Resting(Option<Duration>),
    Unloaded(String),
}
