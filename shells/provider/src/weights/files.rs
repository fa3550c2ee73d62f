//! The files of a model folder that make the model what it is: its weights, and what turns text into its
//! tokens and back. They alone enter the hash that names the model to a coordinator, so a README or a
//! cache beside them makes no other model of it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A model has a few dozen files; the largest manifests have no more than this.
const FILES_MAX: usize = 16_384;
const DEPTH_MAX: usize = 8;
const WEIGHT_EXTENSIONS: [&str; 3] = ["bin", "npz", "safetensors"];
/// Besides the weights, by their exact names.
const NAMES: [&str; 15] = [
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "model.safetensors.index.json",
    "preprocessor_config.json",
    "processor_config.json",
    "quantize_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
];

/// A folder whose files cannot be listed or read.
#[derive(Debug, Error)]
pub enum FilesError {
    #[error(
        "{0} has more than {FILES_MAX} files or folders deeper than {DEPTH_MAX}; a model has a \
         folder of its own"
    )]
    TooMany(PathBuf),
    #[error("cannot read {path} ({source}); a model folder is in the Hugging Face layout")]
    Unreadable { path: PathBuf, source: io::Error },
}

/// One file that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ModelFile {
    pub(super) path: PathBuf,
    /// Below the model's folder.
    pub(super) relative: PathBuf,
    pub(super) size_bytes: u64,
    /// Of the last change, in nanoseconds since 1970.
    pub(super) changed_ns: i128,
    pub(super) is_weight: bool,
}

/// The files that count, in the bytewise order of their relative paths.
pub(super) fn model_files(folder: &Path) -> Result<Vec<ModelFile>, FilesError> {
    let mut files = Vec::new();
    let mut folders = vec![(PathBuf::new(), 0)];
    let mut seen = 0;
    while let Some((relative, depth)) = folders.pop() {
        let path = folder.join(&relative);
        let unreadable = |source| FilesError::Unreadable {
            path: path.clone(),
            source,
        };
        for entry in fs::read_dir(&path).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            seen += 1;
            if seen > FILES_MAX || depth > DEPTH_MAX {
                return Err(FilesError::TooMany(folder.to_owned()));
            }
            let name = entry.file_name();
            if name.as_bytes().starts_with(b".") {
                continue;
            }
            let relative = relative.join(&name);
            // A folder behind a link is not followed: it may lead back here.
            if entry.file_type().map_err(unreadable)?.is_dir() {
                folders.push((relative, depth + 1));
            } else if let Some(kind) = kind_of(&name) {
                files.extend(model_file(folder, relative, kind)?);
            }
        }
    }
    files.sort_by(|a, b| {
        let bytes = |file: &ModelFile| file.relative.as_os_str().as_bytes().to_vec();
        bytes(a).cmp(&bytes(b))
    });
    Ok(files)
}

/// What a load would stop at beside the weights' own numbers: a file that is missing or cut short, or a
/// tokenizer or a chat template that is none.
#[cfg(feature = "mlx")]
#[must_use]
pub fn missing_or_damaged(folder: &Path) -> Option<String> {
    let checked = cereus_engine::model::check_folder(folder);
    checked.err().map(|error| error.to_string())
}

/// A build without an engine loads nothing.
#[cfg(not(feature = "mlx"))]
#[must_use]
pub const fn missing_or_damaged(_folder: &Path) -> Option<String> {
    None
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Beside,
    Weight,
}

fn kind_of(name: &OsStr) -> Option<Kind> {
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    if extension.is_some_and(|it| WEIGHT_EXTENSIONS.contains(&it)) {
        return Some(Kind::Weight);
    }
    let is_named = name.to_str().is_some_and(|name| NAMES.contains(&name));
    is_named.then_some(Kind::Beside)
}

/// A link counts as the file that it leads to; `None` for what is no file.
fn model_file(
    folder: &Path,
    relative: PathBuf,
    kind: Kind,
) -> Result<Option<ModelFile>, FilesError> {
    let path = folder.join(&relative);
    let metadata = match fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(source) => return Err(FilesError::Unreadable { path, source }),
    };
    Ok(metadata.is_file().then(|| ModelFile {
        path,
        relative,
        size_bytes: metadata.len(),
        changed_ns: i128::from(metadata.mtime()) * 1_000_000_000
            + i128::from(metadata.mtime_nsec()),
        is_weight: kind == Kind::Weight,
    }))
}
