//! Why a provider did not start, or had to end.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::identity::IdentityError;
use crate::weights::FilesError;

#[derive(Debug, Error)]
pub enum ProviderError {
    #[error(
        "`{0}` is no address of a coordinator; it looks like https://coordinator.example, or \
         http://127.0.0.1:8080 on this machine"
    )]
    Address(String),
    #[error("cannot take certificates from {path} ({why}); --authorities names a file in PEM")]
    Authorities { path: PathBuf, why: String },
    #[error(
        "whoever is on the way to {coordinator} could read the key of {from} and spend with it; use \
         https:// (a proxy in front of the coordinator adds it), or serve without a key"
    )]
    EarnKeyExposed { coordinator: String, from: String },
    #[error(
        "cannot use the folder {folder} ({source}); choose another with --data, or change its owner"
    )]
    Folder { folder: PathBuf, source: io::Error },
    #[error(
        "another provider runs on the folder {0}; stop it, or give this one a folder of its own \
         with --data (a new machine to the coordinator)"
    )]
    FolderInUse(PathBuf),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("{id}: {error}")]
    Model { id: String, error: ModelError },
    #[error("two models are called {0}; name one of them otherwise, as in --model NAME=FOLDER")]
    ModelTwice(String),
    #[error(
        "this system trusts no certificate; install its ca-certificates, or name a file with \
         --authorities"
    )]
    NoAuthorities,
    #[error("no model to serve; --model names a folder")]
    NoModels,
    #[error("the system gives no randomness")]
    NoRandomness,
    /// Of each model, why it did not come into memory.
    #[error("{}", .0.join("\n"))]
    NothingLoaded(Vec<String>),
    #[error(
        "{count} models are more than the {max} that a coordinator hears of; name those to serve \
         with --model"
    )]
    TooManyModels { count: usize, max: usize },
}

/// Why a model is not in memory.
#[derive(Debug, Error)]
pub enum ModelError {
    #[error(
        "the files in {0} are not those that were announced; restart the provider to announce them \
         anew"
    )]
    Changed(PathBuf),
    #[error("{0}")]
    Engine(String),
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error(
        "this build has no engine (feature `mlx`); build it with `cargo xtask demo`, or use --echo"
    )]
    NoTensors,
    /// A defect of this program; the message is in the log.
    #[error("loading it panicked; the message is above")]
    Panicked,
    #[error("the engine cannot serve {folder}: {why}")]
    Unsupported { folder: PathBuf, why: String },
}
