//! Weights of a standard Hugging Face folder: one `model.safetensors`, or shards with an index.
//!
//! File headers are checked against the config first, sizes included, so that a damaged folder
//! is told from a wrong one by a clear error, and MLX then reads only files it can read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};

use mlx_rs::error::Exception;
use mlx_rs::{Array, Device, DeviceType, Dtype};
use safetensors::tensor::Metadata;
use serde::Deserialize;

use super::config::{Config, Numbers};
use super::error::ModelError;
use super::network::{Layout, Load, Model, QuantisedMatrices};
use super::place::FOREIGN;
use crate::language::Language;

/// The longest header that a safetensors file may have, as its own library sets it.
pub(super) const HEADER_BYTES_MAX: u64 = 100_000_000;
/// A header's length stands before it in eight bytes.
const LENGTH_BYTES: u64 = 8;
/// No JSON file of a model folder is longer; the largest are tokenizers, about 20 MB.
const JSON_BYTES_MAX: u64 = 256 << 20;
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// How a file begins that Git LFS has put in the place of a large one.
const LFS_MARK: &[u8] = b"version https://git-lfs.github.com/spec/";

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Model {
    /// Loads a folder's config and weights and brings them into the memory where they are used, in
    /// the way that suits the device.
    ///
    /// # Errors
    /// A file is absent, damaged or of another model; the error names the file, key or tensor.
    pub fn load(folder: &Path) -> Result<Self, ModelError> {
        Self::load_as(folder, Load::best()?)
    }

    /// The same, in a way that the caller chooses.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_as(folder: &Path, load: Load) -> Result<Self, ModelError> {
        let config = read_config(folder)?;
        let files = weight_files(folder)?;
        let mut arrays = BTreeMap::new();
        for file in &files {
            check_header(file, &config.numbers)?;
            let loaded = Array::load_safetensors(file).map_err(|cause| ModelError::Damaged {
                file: file_name(file),
                cause: cause.to_string(),
            })?;
            for (name, array) in loaded {
                arrays.insert(name, in_compute_type(&array)?);
            }
        }
        // MLX reads a file's data when it computes: names and shapes are checked before that.
        Self::in_memory(&config, arrays, load)
    }
}

/// Whether the files that a load begins with are there and whole: config, weights by their headers,
/// tokenizer. Reads no weights.
///
/// # Errors
/// A file is absent, damaged or not read by this engine; the error names it.
pub fn check_files(folder: &Path) -> Result<(), ModelError> {
    let config = read_config(folder)?;
    for file in weight_files(folder)? {
        check_header(&file, &config.numbers)?;
    }
    read_json(folder, "tokenizer.json").map(drop)
}

/// [`check_files`], and whether the tokenizer and the chat template load as they will beside the
/// weights. Takes as long as reading the tokenizer does. Reads no weights.
///
/// # Errors
/// As those of [`check_files`] and [`Language::load`].
pub fn check_folder(folder: &Path) -> Result<(), ModelError> {
    check_files(folder)?;
    Language::load(folder, &read_config(folder)?).map(drop)
}

fn read_config(folder: &Path) -> Result<Config, ModelError> {
    if !folder.join("config.json").exists()
        && let foreign @ ModelError::Foreign(_) = no_weights(folder)
    {
        return Err(foreign);
    }
    Config::from_json(&read_json(folder, "config.json")?)
}

impl Load {
    /// The fastest on the device at hand.
    fn best() -> Result<Self, ModelError> {
        Ok(if is_cpu()? {
            Self {
                layout: Layout::Packed,
                quantised: QuantisedMatrices::Unpacked,
            }
        } else {
            Self {
                layout: Layout::Joined,
                quantised: QuantisedMatrices::Kept,
            }
        })
    }
}

/// Whether MLX computes on the CPU.
pub(in crate::model) fn is_cpu() -> Result<bool, Exception> {
    let kind = Device::try_default()?.get_type()?;
    Ok(matches!(kind, DeviceType::Cpu))
}

/// The CPU computes 16-bit floats by way of 32-bit ones, several times slower, so there weights
/// are widened once; a GPU takes them as they are.
fn in_compute_type(array: &Array) -> Result<Array, ModelError> {
    let narrow = matches!(array.dtype(), Dtype::Bfloat16 | Dtype::Float16);
    if narrow && is_cpu()? {
        return Ok(array.as_dtype(Dtype::Float32)?);
    }
    Ok(array.clone())
}

/// Reads one of the folder's files of text.
pub(crate) fn read_json(folder: &Path, name: &str) -> Result<Vec<u8>, ModelError> {
    let unreadable = |cause: String| ModelError::Unreadable {
        file: name.to_owned(),
        cause,
    };
    let file = File::open(folder.join(name)).map_err(|cause| unreadable(cause.to_string()))?;
    let mut text = Vec::new();
    file.take(JSON_BYTES_MAX + 1)
        .read_to_end(&mut text)
        .map_err(|cause| unreadable(cause.to_string()))?;
    if u64::try_from(text.len()).is_ok_and(|length| length > JSON_BYTES_MAX) {
        return Err(unreadable(format!(
            "it is longer than {JSON_BYTES_MAX} bytes"
        )));
    }
    if text.starts_with(LFS_MARK) {
        return Err(ModelError::LfsPointer(name.to_owned()));
    }
    Ok(text)
}

/// The same, for a file that a folder need not have.
pub(crate) fn read_json_if_any(folder: &Path, name: &str) -> Result<Option<Vec<u8>>, ModelError> {
    if folder.join(name).exists() {
        read_json(folder, name).map(Some)
    } else {
        Ok(None)
    }
}

/// The files that hold the weights: those of the index, the one file, or a whole set of shards that
/// came without an index. An index that names files which are not there is passed over where the
/// weights are there all the same: some tool left it behind.
pub(super) fn weight_files(folder: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let whole = folder.join(SINGLE);
    let missing = if folder.join(INDEX).is_file() {
        let names = indexed_names(folder)?;
        let paths: Vec<PathBuf> = names.iter().map(|name| folder.join(name)).collect();
        let Some(place) = paths.iter().position(|path| !path.is_file()) else {
            return Ok(paths);
        };
        names.into_iter().nth(place)
    } else {
        None
    };
    if whole.is_file() {
        return Ok(vec![whole]);
    }
    match (shards(folder), missing) {
        (Shards::Whole(paths), _) => Ok(paths),
        (_, Some(missing)) => Err(ModelError::Damaged {
            file: INDEX.to_owned(),
            cause: format!(
                "it names {missing}, which is not there; fetch the missing files, or remove the \
                 index if it is of another model"
            ),
        }),
        (Shards::Missing(name), None) => Err(ModelError::ShardMissing(name)),
        (Shards::None, None) => Err(no_weights(folder)),
    }
}

/// The files that the index names, which are of its own folder.
fn indexed_names(folder: &Path) -> Result<BTreeSet<String>, ModelError> {
    let index: Index =
        serde_json::from_slice(&read_json(folder, INDEX)?).map_err(|cause| ModelError::Json {
            file: INDEX.to_owned(),
            cause: cause.to_string(),
        })?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    if let Some(name) = names.iter().find(|name| name.contains(['/', '\\'])) {
        return Err(ModelError::Damaged {
            file: INDEX.to_owned(),
            cause: format!("it names {name}, outside the folder"),
        });
    }
    Ok(names)
}

/// Files named `model-00001-of-00003.safetensors`.
enum Shards {
    /// One of the set that is not there.
    Missing(String),
    None,
    Whole(Vec<PathBuf>),
}

fn shards(folder: &Path) -> Shards {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let counts = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let numbers = name.strip_prefix("model-")?.strip_suffix(".safetensors")?;
        let (number, count) = numbers.split_once("-of-")?;
        let is_number = |it: &str| it.len() == 5 && it.bytes().all(|it| it.is_ascii_digit());
        let is_shard = is_number(number) && is_number(count);
        count.parse::<u32>().ok().filter(|_| is_shard)
    });
    let counts: BTreeSet<u32> = counts.collect();
    // Of two sets one is left over from another model, and nobody can say which.
    let Some(&count) = counts.first().filter(|_| counts.len() == 1) else {
        return Shards::None;
    };
    let names = (1..=count).map(|number| format!("model-{number:05}-of-{count:05}.safetensors"));
    let names: Vec<String> = names.collect();
    match names.iter().find(|name| !folder.join(name).is_file()) {
        Some(missing) => Shards::Missing(missing.clone()),
        None => Shards::Whole(names.iter().map(|name| folder.join(name)).collect()),
    }
}

/// What the folder holds instead.
fn no_weights(folder: &Path) -> ModelError {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    match names.find(|name| FOREIGN.iter().any(|(end, _)| name.ends_with(end))) {
        Some(name) => ModelError::Foreign(name),
        None => ModelError::NoWeights,
    }
}

/// Reads a file's header: its length must fit the file, and its tensors must be of a kind that the
/// network computes with.
fn check_header(path: &Path, numbers: &Numbers) -> Result<(), ModelError> {
    let damaged = |cause: String| ModelError::Damaged {
        file: file_name(path),
        cause,
    };
    let unreadable = |cause: std::io::Error| ModelError::Unreadable {
        file: file_name(path),
        cause: cause.to_string(),
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let file_bytes = file.metadata().map_err(unreadable)?.len();
    let mut start = Vec::new();
    let begin = (&file).take(LFS_MARK.len() as u64);
    { begin }.read_to_end(&mut start).map_err(unreadable)?;
    if start == LFS_MARK {
        return Err(ModelError::LfsPointer(file_name(path)));
    }
    file.rewind().map_err(unreadable)?;
    let mut length = [0_u8; 8];
    file.read_exact(&mut length)
        .map_err(|_| damaged("it is too short for a header".to_owned()))?;
    let header_bytes = u64::from_le_bytes(length);
    if header_bytes > HEADER_BYTES_MAX.min(file_bytes.saturating_sub(LENGTH_BYTES)) {
        return Err(damaged(format!("its header claims {header_bytes} bytes")));
    }
    let mut header = Vec::new();
    file.take(header_bytes)
        .read_to_end(&mut header)
        .map_err(unreadable)?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|cause| damaged(format!("its header: {cause}")))?;
    let data_bytes = u64::try_from(metadata.data_len()).unwrap_or(u64::MAX);
    let expected_bytes = data_bytes.saturating_add(LENGTH_BYTES + header_bytes);
    if expected_bytes != file_bytes {
        return Err(damaged(format!(
            "it has {file_bytes} bytes; its header says {expected_bytes}"
        )));
    }
    for (name, tensor) in metadata.tensors() {
        use safetensors::Dtype::{BF16, F16, F32, U8, U32};
        let is_known = match numbers {
            Numbers::Plain => matches!(tensor.dtype, BF16 | F16 | F32),
            Numbers::Quantised | Numbers::Unknown { .. } => {
                matches!(tensor.dtype, BF16 | F16 | F32 | U8 | U32)
            }
        };
        if !is_known {
            return Err(ModelError::TensorType {
                name,
                found: format!("{:?}", tensor.dtype),
            });
        }
        if tensor
            .shape
            .iter()
            .any(|&size| i32::try_from(size).is_err())
        {
            return Err(damaged(format!("tensor {name} has a size beyond 2^31")));
        }
    }
    Ok(())
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    fn names(files: &[(&str, &[u8])]) -> Result<Vec<String>, String> {
        let folder = folder(files);
        let found = weight_files(folder.path());
        let found = found.map(|paths| paths.iter().map(|path| file_name(path)).collect());
        found.map_err(|error| error.to_string())
    }

    const OF_TWO: &[u8] = br#"{"weight_map":{"a":"model-00001-of-00002.safetensors",
        "b":"model-00002-of-00002.safetensors"}}"#;

    #[test]
    fn an_index_left_behind_does_not_hide_weights_that_are_there() {
        let whole = ("model.safetensors", &b""[..]);
        let index = ("model.safetensors.index.json", OF_TWO);
        assert_eq!(names(&[whole, index]).unwrap(), ["model.safetensors"]);
        let one = ("model-00001-of-00001.safetensors", &b""[..]);
        assert_eq!(names(&[one, index]).unwrap(), [one.0]);
        // An index whose files are there counts.
        let first = ("model-00001-of-00002.safetensors", &b""[..]);
        let second = ("model-00002-of-00002.safetensors", &b""[..]);
        assert_eq!(
            names(&[whole, index, first, second]).unwrap(),
            [first.0, second.0]
        );
        let error = names(&[index, first]).unwrap_err();
        assert!(
            error.contains(second.0) && error.contains("index"),
            "{error}"
        );
    }

    #[test]
    fn shards_need_no_index_where_all_are_there() {
        let one = ("model-00001-of-00001.safetensors", &b""[..]);
        assert_eq!(names(&[one]).unwrap(), [one.0]);
        let error = names(&[("model-00002-of-00002.safetensors", b"")]).unwrap_err();
        assert!(
            error.contains("model-00001-of-00002.safetensors is missing"),
            "{error}"
        );
    }

    #[test]
    fn what_lies_there_instead_of_weights_is_named() {
        assert!(
            names(&[("config.json", b"{}")])
                .unwrap_err()
                .contains("no safetensors")
        );
        let error = names(&[("it-Q4.gguf", b"GGUF")]).unwrap_err();
        assert!(error.contains("it-Q4.gguf is a GGUF file"), "{error}");
        let error = names(&[("pytorch_model.bin", b"")]).unwrap_err();
        assert!(error.contains("PyTorch"), "{error}");
        let bare = folder(&[("it.gguf", b"GGUF")]);
        let error = Model::load(bare.path()).unwrap_err();
        assert!(matches!(error, ModelError::Foreign(_)), "{error}");
        let error = check_files(bare.path()).unwrap_err();
        assert!(matches!(error, ModelError::Foreign(_)), "{error}");
    }

    #[test]
    fn a_pointer_of_git_lfs_is_named_wherever_it_stands() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n";
        let folder = folder(&[("config.json", pointer), ("model.safetensors", pointer)]);
        let error = read_json(folder.path(), "config.json").unwrap_err();
        assert!(error.to_string().contains("git lfs pull"), "{error}");
        let path = folder.path().join("model.safetensors");
        let error = check_header(&path, &Numbers::Plain).unwrap_err();
        assert!(error.to_string().contains("git lfs pull"), "{error}");
    }
}
