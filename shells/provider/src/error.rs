//! Why a provider did not start, or had to end.

use std::fmt;
use std::path::PathBuf;

use crate::identity::IdentityError;
use crate::weights::FilesError;

#[derive(Debug)]
pub enum ProviderError {
    Address(String),
    Identity(IdentityError),
    Model {
        id: String,
        error: ModelError,
    },
    /// Two models of one name.
    ModelTwice(String),
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
                "`{address}` is no address of a coordinator; it looks like http://127.0.0.1:8080 \
                 (TLS is for a proxy on this machine to add)"
            ),
            Self::Identity(error) => error.fmt(f),
            Self::Model { id, error } => write!(f, "{id}: {error}"),
            Self::ModelTwice(id) => write!(
                f,
                "two models are called {id}; name one of them otherwise, as in --model \
                 NAME=FOLDER"
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
