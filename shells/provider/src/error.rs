//! Why a provider did not start, or had to end.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::identity::IdentityError;
use crate::weights::FilesError;

#[derive(Debug)]
pub enum ProviderError {
    Address(String),
    /// The file of certificates to trust cannot be used.
    Authorities {
        path: PathBuf,
        why: String,
    },
    /// The earning key would be readable on its way.
    EarnKeyExposed(String),
    Folder {
        folder: PathBuf,
        source: io::Error,
    },
    /// Another process serves from it.
    FolderInUse(PathBuf),
    Identity(IdentityError),
    Model {
        id: String,
        error: ModelError,
    },
    /// Two models of one name.
    ModelTwice(String),
    /// The system trusts no certificate at all.
    NoAuthorities,
    NoModels,
    NoRandomness,
    /// None of the models came into memory; of each, why.
    NothingLoaded(Vec<String>),
    TooManyModels {
        count: usize,
        max: usize,
    },
}

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(
                f,
                "`{address}` is no address of a coordinator; it looks like \
                 https://coordinator.example, or http://127.0.0.1:8080 on this machine"
            ),
            Self::Authorities { path, why } => write!(
                f,
                "cannot take certificates from {} ({why}); --authorities names a file in PEM",
                path.display()
            ),
            Self::EarnKeyExposed(address) => write!(
                f,
                "whoever is on the way to {address} could read --earn-key and spend with it; use \
                 https:// (a proxy in front of the coordinator adds it), or serve without a key"
            ),
            Self::Folder { folder, source } => write!(
                f,
                "cannot use the folder {} ({source}); choose another with --data, or change its \
                 owner",
                folder.display()
            ),
            Self::FolderInUse(folder) => write!(
                f,
                "another provider runs on the folder {}; stop it, or give this one a folder of its \
                 own with --data (a new machine to the coordinator)",
                folder.display()
            ),
            Self::Identity(error) => error.fmt(f),
            Self::Model { id, error } => write!(f, "{id}: {error}"),
            Self::ModelTwice(id) => write!(
                f,
                "two models are called {id}; name one of them otherwise, as in --model \
                 NAME=FOLDER"
            ),
            Self::NoAuthorities => f.write_str(
                "this system trusts no certificate; install its ca-certificates, or name a file \
                 with --authorities",
            ),
            Self::NoModels => f.write_str("no model to serve; --model names a folder"),
            Self::NoRandomness => f.write_str("the system gives no randomness"),
            Self::NothingLoaded(reasons) => f.write_str(&reasons.join("\n")),
            Self::TooManyModels { count, max } => write!(
                f,
                "{count} models are more than the {max} that a coordinator hears of; name those to \
                 serve with --model"
            ),
        }
    }
}

impl std::error::Error for ProviderError {}

/// Why a model is not in memory.
#[derive(Debug)]
pub enum ModelError {
    /// Its files are not those that were announced.
    Changed(PathBuf),
    Engine(String),
    Files(FilesError),
    /// This build has no tensors.
    NoTensors,
    /// A defect of this program; the message is in the log.
    Panicked,
    Unsupported {
        folder: PathBuf,
        why: String,
    },
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed(folder) => write!(
                f,
                "the files in {} are not those that were announced; restart the provider to \
                 announce them anew",
                folder.display()
            ),
            Self::Engine(text) => f.write_str(text),
            Self::Files(error) => error.fmt(f),
            Self::NoTensors => f.write_str(
                "this build has no engine (feature `mlx`); build it with `cargo xtask demo`, or use \
                 --echo",
            ),
            Self::Panicked => f.write_str("loading it panicked; the message is above"),
            Self::Unsupported { folder, why } => {
                write!(f, "the engine cannot serve {}: {why}", folder.display())
            }
        }
    }
}

impl std::error::Error for ModelError {}
