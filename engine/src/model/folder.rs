//! Weights of a standard Hugging Face folder: one `model.safetensors`, or shards with an index.
//!
//! File headers are checked against the config first, sizes included, so that a damaged folder
//! is told from a wrong one by a clear error, and MLX then reads only files it can read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use mlx_rs::error::Exception;
use mlx_rs::{Array, Device, DeviceType, Dtype};
use safetensors::tensor::Metadata;
use serde::Deserialize;

use super::config::{Config, Numbers};
use super::error::ModelError;
use super::network::{Layout, Load, Model, QuantisedMatrices};

/// The longest header that a safetensors file may have, as its own library sets it.
pub(super) const HEADER_BYTES_MAX: u64 = 100_000_000;
/// A header's length stands before it in eight bytes.
const LENGTH_BYTES: u64 = 8;
/// No JSON file of a model folder is longer; the largest are tokenizers, about 20 MB.
const JSON_BYTES_MAX: u64 = 256 << 20;

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
        let config = Config::from_json(&read_json(folder, "config.json")?)?;
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

pub(super) fn weight_files(folder: &Path) -> Result<Vec<PathBuf>, ModelError> {
    const SINGLE: &str = "model.safetensors";
    const INDEX: &str = "model.safetensors.index.json";
    if folder.join(INDEX).is_file() {
        let index: Index = serde_json::from_slice(&read_json(folder, INDEX)?).map_err(|cause| {
            ModelError::Json {
                file: INDEX.to_owned(),
                cause: cause.to_string(),
            }
        })?;
        let names: BTreeSet<String> = index.weight_map.into_values().collect();
        // An index may name files of its own folder only.
        if let Some(name) = names.iter().find(|name| name.contains(['/', '\\'])) {
            return Err(ModelError::Damaged {
                file: INDEX.to_owned(),
                cause: format!("it names {name}, outside the folder"),
            });
        }
        return Ok(names.into_iter().map(|name| folder.join(name)).collect());
    }
    let single = folder.join(SINGLE);
    if single.is_file() {
        Ok(vec![single])
    } else {
        Err(ModelError::NoWeights)
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
