//! How many parameters a model has: counted by the headers of its weight files, which say the shape of
//! each tensor. What a config tells of sizes leaves out too much (narrow keys and values, experts,
//! tied embeddings) to be more than a guess.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;

use serde_json::{Map, Value};

use super::files::ModelFile;

/// The longest header that a safetensors file may have, as its own library sets it.
const HEADER_SIZE_MAX: u64 = 100_000_000;
/// Where a config does not say how many tokens it knows.
const VOCAB_DEFAULT: u64 = 32_000;

/// One tensor of a file.
#[derive(Clone, Copy, Debug)]
struct Tensor {
    /// Its numbers are floats; others are packed into words or bytes, or are no weights.
    is_plain: bool,
    elements: u64,
}

/// Counted, else as the config tells.
pub(super) fn parameters(files: &[ModelFile], config: &Value) -> Option<u64> {
    counted(files, config).or_else(|| told(config))
}

/// `None` where a header cannot be read, or there is none.
fn counted(files: &[ModelFile], config: &Value) -> Option<u64> {
    // By their names: a folder may have the same tensors whole and in shards.
    let mut tensors = BTreeMap::new();
    for file in files.iter().filter(|file| is_of_the_model(file)) {
        tensors.extend(header(file)?);
    }
    let mut sum: u64 = 0;
    for (name, tensor) in &tensors {
        sum = sum.checked_add(numbers(name, *tensor, &tensors, config)?)?;
    }
    (sum > 0).then_some(sum)
}

/// Other files are the same weights for other engines, or adapters.
fn is_of_the_model(file: &ModelFile) -> bool {
    let name = file.relative.to_str();
    name.is_some_and(|name| name.starts_with("model") && name.ends_with(".safetensors"))
}

fn header(file: &ModelFile) -> Option<Vec<(String, Tensor)>> {
    let mut reader = File::open(&file.path).ok()?;
    let mut size = [0; 8];
    reader.read_exact(&mut size).ok()?;
    let size = u64::from_le_bytes(size);
    if size > HEADER_SIZE_MAX.min(file.size_bytes) {
        return None;
    }
    let mut text = Vec::new();
    reader.take(size).read_to_end(&mut text).ok()?;
    let header: Map<String, Value> = serde_json::from_slice(&text).ok()?;
    let tensors = header
        .into_iter()
        .filter(|(name, _)| name != "__metadata__");
    tensors
        .map(|(name, said)| Some((name, tensor(&said)?)))
        .collect()
}

fn tensor(said: &Value) -> Option<Tensor> {
    let kind = said["dtype"].as_str()?;
    let sizes = said["shape"].as_array()?;
    let elements = sizes
        .iter()
        .try_fold(1_u64, |product, size| product.checked_mul(size.as_u64()?));
    Some(Tensor {
        is_plain: kind.starts_with('F') || kind.starts_with("BF"),
        elements: elements?,
    })
}

/// How many of the model's numbers a tensor holds. Of a packed matrix it is the words that count, by
/// their scales: each is of a group of so many numbers.
fn numbers(
    name: &str,
    tensor: Tensor,
    tensors: &BTreeMap<String, Tensor>,
    config: &Value,
) -> Option<u64> {
    let beside = |stem: &str, part: &str| tensors.get(&format!("{stem}{part}"));
    // As MLX packs a matrix: words, and for each group a scale and perhaps a bias.
    if let Some(stem) = name.strip_suffix(".weight")
        && let Some(scales) = beside(stem, ".scales")
    {
        return scales.elements.checked_mul(group_size(config, stem));
    }
    for part in [".scales", ".biases"] {
        if let Some(stem) = name.strip_suffix(part)
            && beside(stem, ".weight").is_some()
            && beside(stem, ".scales").is_some()
        {
            return Some(0);
        }
    }
    // As gpt-oss is published: two numbers a byte.
    if let Some(stem) = name.strip_suffix("_blocks")
        && beside(stem, "_scales").is_some()
    {
        return tensor.elements.checked_mul(2);
    }
    if let Some(stem) = name.strip_suffix("_scales")
        && beside(stem, "_blocks").is_some()
    {
        return Some(0);
    }
    Some(if tensor.is_plain { tensor.elements } else { 0 })
}

/// As the config says of this matrix, else of all, else as MLX packs them.
fn group_size(config: &Value, matrix: &str) -> u64 {
    let both = ["quantization", "quantization_config"].map(|key| &config[key]);
    let section = both.into_iter().find(|it| it.is_object());
    let Some(section) = section else { return 64 };
    let own = &section[matrix];
    let said = own["group_size"].as_u64();
    let mode = own["mode"].as_str().or_else(|| section["mode"].as_str());
    said.or_else(|| section["group_size"].as_u64())
        .unwrap_or(match mode {
            Some("mxfp4" | "mxfp8") => 32,
            Some("nvfp4") => 16,
            Some(_) | None => 64,
        })
}

/// As the config says, else by its shape: the layers and the embedding.
fn told(config: &Value) -> Option<u64> {
    let text = &config["text_config"];
    let number = |key: &str| text[key].as_u64().or_else(|| config[key].as_u64());
    if let Some(count) = number("num_parameters") {
        return Some(count);
    }
    let hidden = number("hidden_size")?;
    let layers = number("num_hidden_layers")?;
    let vocab = number("vocab_size").unwrap_or(VOCAB_DEFAULT);
    let inner = 12_u64
        .checked_mul(hidden)?
        .checked_mul(hidden)?
        .checked_mul(layers)?;
    inner.checked_add(vocab.checked_mul(hidden)?)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;
    use tempfile::TempDir;

    use super::*;

    fn weights(folder: &TempDir, name: &str, header: &Value) -> ModelFile {
        let text = header.to_string();
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text.into_bytes());
        let path = folder.path().join(name);
        std::fs::write(&path, &bytes).unwrap();
        ModelFile {
            path,
            relative: PathBuf::from(name),
            size_bytes: bytes.len() as u64,
            changed_ns: 0,
            is_weight: true,
        }
    }

    fn tensors(list: &[(&str, &str, &[u64])]) -> Value {
        let of = |&(name, dtype, shape): &(&str, &str, &[u64])| {
            let tensor = json!({"dtype": dtype, "shape": shape, "data_offsets": [0, 0]});
            (name.to_owned(), tensor)
        };
        list.iter().map(of).collect::<Map<_, _>>().into()
    }

    #[test]
    fn plain_numbers_are_counted_over_all_files_and_each_tensor_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = tensors(&[("a.weight", "BF16", &[8, 4]), ("a.bias", "F32", &[8])]);
        first["__metadata__"] = json!({"format": "mlx"});
        let both = tensors(&[("a.weight", "BF16", &[8, 4]), ("scale", "F16", &[])]);
        let other = tensors(&[("b.weight", "BF16", &[999])]);
        let ids = tensors(&[("ids", "I64", &[100])]);
        let files = [
            weights(&folder, "model-00001-of-00002.safetensors", &first),
            weights(&folder, "model-00002-of-00002.safetensors", &both),
            weights(&folder, "consolidated.safetensors", &other),
            weights(&folder, "model-ids.safetensors", &ids),
        ];
        // Far from what its config would tell.
        let config = json!({"num_parameters": 7});
        assert_eq!(parameters(&files, &config), Some(32 + 8 + 1));
        assert_eq!(parameters(&files[2..3], &config), Some(7));
    }

    #[test]
    fn packed_numbers_count_as_many_as_they_stand_for() {
        let folder = tempfile::tempdir().unwrap();
        // 128 columns: in 4 bits 16 words and 2 groups of 64, in 8 bits 32 words and 4 groups of 32.
        let header = tensors(&[
            ("a.weight", "U32", &[10, 16]),
            ("a.scales", "BF16", &[10, 2]),
            ("a.biases", "BF16", &[10, 2]),
            ("b.weight", "U32", &[10, 32]),
            ("b.scales", "BF16", &[10, 4]),
            ("b.biases", "BF16", &[10, 4]),
            ("norm.weight", "BF16", &[128]),
            // 3 rows of 2 blocks of 32 numbers.
            ("experts.down_proj_blocks", "U8", &[3, 2, 16]),
            ("experts.down_proj_scales", "U8", &[3, 2]),
            ("experts.down_proj_bias", "BF16", &[3]),
        ]);
        let files = [weights(&folder, "model.safetensors", &header)];
        let config = json!({"quantization": {"group_size": 64, "bits": 4,
            "b": {"group_size": 32, "bits": 8}}});
        let expected = 1_280 + 1_280 + 128 + 192 + 3;
        assert_eq!(parameters(&files, &config), Some(expected));
        for (mode, size) in [("mxfp4", 32), ("nvfp4", 16), ("affine", 64)] {
            let config = json!({"quantization_config": {"mode": mode}});
            assert_eq!(group_size(&config, "a"), size, "{mode}");
        }
    }

    #[test]
    fn a_header_that_cannot_be_read_leaves_what_the_config_tells() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = weights(
            &folder,
            "model.safetensors",
            &json!({"a": {"dtype": "F32"}}),
        );
        let config = json!({"num_parameters": 7});
        assert_eq!(parameters(std::slice::from_ref(&file), &config), Some(7));
        std::fs::write(&file.path, u64::MAX.to_le_bytes()).unwrap();
        file.size_bytes = 8;
        assert_eq!(parameters(&[file], &config), Some(7));
        assert_eq!(parameters(&[], &json!({"hidden_size": 9})), None);
    }
}
