//! Finds the models on this machine by their names and small files. Nothing here reads the weights or
//! hashes them: a list of models must come at once, and weights are read by the gigabyte.

use std::env;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cereus_core::memory::{KvRate, config_kv_rate, loaded_bytes};
use cereus_core::wire::Text;
use cereus_core::wire::messages::ModelEntry;
use cereus_engine::model::Config;
use serde_json::Value;

use super::files::{FilesError, ModelFile, model_files};
use super::parameters::parameters;
use super::template::{Rendering, rendering};
use crate::report::gib;

const CONFIG_SIZE_MAX: u64 = 4 << 20;
/// Entries of one folder that are looked at.
const ENTRIES_MAX: usize = 4_096;
const WEIGHT_FILES: [&str; 3] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "weights.npz",
];
const NO_WEIGHTS: &str = "it holds no weights";
/// In the lower-case name of a model, first match first.
const QUANTISATION_WORDS: [(&str, &str); 11] = [
    ("4bit", "4bit"),
    ("q4", "4bit"),
    ("int4", "4bit"),
    ("8bit", "8bit"),
    ("q8", "8bit"),
    ("int8", "8bit"),
    ("3bit", "3bit"),
    ("q3", "3bit"),
    ("bf16", "bf16"),
    ("fp16", "fp16"),
    ("f16", "fp16"),
];

/// A model on this machine, as far as its small files tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundModel {
    pub id: String,
    pub folder: PathBuf,
    /// Empty when the config does not say.
    pub model_type: String,
    /// Of its weight files.
    pub size_bytes: u64,
    pub parameters: Option<u64>,
    pub quantisation: Option<String>,
    pub is_vision: bool,
    pub kv: KvRate,
    /// Plain weights of 16 bits.
    pub has_narrow_floats: bool,
    /// Why the engine cannot serve it.
    pub unsupported: Option<String>,
    pub template: Rendering,
}

/// Where the engine computes on the CPU it widens 16-bit floats to 32.
const WIDENING: u64 = if cfg!(target_os = "macos") { 1 } else { 2 };

impl FoundModel {
    /// Its weights as the engine holds them.
    #[must_use]
    pub const fn weights_bytes(&self) -> u64 {
        self.size_bytes.saturating_mul(self.widening())
    }

    /// What a token costs, as the engine holds it.
    #[must_use]
    pub const fn kv_rate(&self) -> KvRate {
        KvRate {
            bytes_per_token: self.kv.bytes_per_token.saturating_mul(WIDENING),
            ..self.kv
        }
    }

    /// What it takes in memory, for the wire's `estimated_memory_gb`.
    #[must_use]
    pub const fn estimated_bytes(&self) -> u64 {
        loaded_bytes(self.weights_bytes())
    }

    const fn widening(&self) -> u64 {
        if self.has_narrow_floats { WIDENING } else { 1 }
    }

    /// What `register` says of it.
    #[must_use]
    pub fn entry<'a>(&'a self, weight_hash: Option<&'a str>) -> ModelEntry<'a> {
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        ModelEntry {
            id: Text::from(self.id.as_str()),
            size_bytes: count(self.size_bytes),
            model_type: Text::from(self.model_type.as_str()),
            quantization: Text::from(self.quantisation.as_deref().unwrap_or("")),
            weight_hash: Text::from(weight_hash.unwrap_or("")),
            is_vision: self.is_vision,
            template_render_ok: self.template.is_ok(),
            estimated_memory_gb: gib(self.estimated_bytes()),
            parameters: self.parameters.map_or(0, count),
        }
    }
}

/// The Hugging Face cache of this user, as its own library finds it.
#[must_use]
pub fn hub_folder() -> Option<PathBuf> {
    let variable = |name| {
        env::var_os(name)
            .filter(|it| !it.is_empty())
            .map(PathBuf::from)
    };
    variable("HF_HUB_CACHE")
        .or_else(|| variable("HF_HOME").map(|home| home.join("hub")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/huggingface/hub")))
}

/// A folder that is no model, or none that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    pub folder: PathBuf,
    pub why: String,
}

/// What a folder holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// The smallest first.
    pub models: Vec<FoundModel>,
    /// By their names.
    pub passed_over: Vec<PassedOver>,
}

/// All models below a folder, the smallest first: a Hugging Face cache, a folder of model folders,
/// or one model. What cannot be read is passed over.
#[must_use]
pub fn scan(root: &Path) -> Vec<FoundModel> {
    scan_whole(root).models
}

/// The same, with what is passed over.
#[must_use]
pub fn scan_whole(root: &Path) -> Scan {
    let mut scan = Scan::default();
    for (id, folder) in candidates(root, &mut scan.passed_over) {
        match open_model(&folder, &id) {
            Ok(model) if model.size_bytes > 0 => scan.models.push(model),
            Ok(_) => scan.pass_over(folder, NO_WEIGHTS),
            Err(error) => scan.pass_over(folder, &error.to_string()),
        }
    }
    let models = &mut scan.models;
    models.sort_by(|a, b| (a.size_bytes, &a.id).cmp(&(b.size_bytes, &b.id)));
    scan.passed_over.sort_by(|a, b| a.folder.cmp(&b.folder));
    scan
}

impl Scan {
    fn pass_over(&mut self, folder: PathBuf, why: &str) {
        let why = why.to_owned();
        self.passed_over.push(PassedOver { folder, why });
    }
}

/// One model folder, under the name that it is to have.
///
/// # Errors
/// It cannot be listed.
pub fn open_model(folder: &Path, id: &str) -> Result<FoundModel, FilesError> {
    let files = model_files(folder)?;
    let weights = files.iter().filter(|file: &&ModelFile| file.is_weight);
    let size_bytes = weights.map(|file| file.size_bytes).sum();
    let text = small_file(&folder.join("config.json")).unwrap_or_default();
    let config: Value = serde_json::from_slice(&text).unwrap_or(Value::Null);
    Ok(FoundModel {
        id: id.to_owned(),
        folder: folder.to_owned(),
        model_type: config["model_type"].as_str().unwrap_or("").to_owned(),
        size_bytes,
        parameters: parameters(&files, &config),
        quantisation: quantisation(id, folder, &config),
        is_vision: !config["vision_config"].is_null(),
        kv: config_kv_rate(&text, size_bytes),
        has_narrow_floats: has_narrow_floats(&config),
        unsupported: Config::from_json(&text)
            .err()
            .map(|error| error.to_string()),
        template: rendering(folder),
    })
}

fn candidates(root: &Path, passed_over: &mut Vec<PassedOver>) -> Vec<(String, PathBuf)> {
    let name = |folder: &Path| Some(folder.file_name()?.to_str()?.to_owned());
    if looks_like_a_model(root) {
        // `.` and `..` have a name only once they are resolved.
        let whole = root.canonicalize().unwrap_or_else(|_| root.to_owned());
        return name(&whole)
            .map(|id| (id, root.to_owned()))
            .into_iter()
            .collect();
    }
    let mut candidates = Vec::new();
    let mut pass_over = |folder: PathBuf, why: &str| {
        let why = why.to_owned();
        passed_over.push(PassedOver { folder, why });
    };
    // A folder with weights or a config, but not both, was meant to be a model: its owner should
    // hear why it is none.
    if has_weight_file(root) || root.join("config.json").is_file() {
        pass_over(root.to_owned(), lack(root));
    }
    for folder in folders_in(root) {
        let Some(name) = name(&folder) else { continue };
        if let Some(id) = name.strip_prefix("models--") {
            let id = id.replace("--", "/");
            match newest(&folder.join("snapshots")) {
                Some(snapshot) if is_mlx(&id, &snapshot) => candidates.push((id, snapshot)),
                Some(snapshot) => {
                    let why = lack(&snapshot);
                    pass_over(snapshot, why);
                }
                None => pass_over(folder, "it holds no snapshot"),
            }
        } else if looks_like_a_model(&folder) {
            candidates.push((name, folder));
        } else if !is_of_others(&name) {
            let why = lack(&folder);
            pass_over(folder, why);
        }
    }
    candidates
}

/// What keeps a folder from being a model.
fn lack(folder: &Path) -> &'static str {
    if has_weight_file(folder) {
        "it holds no config.json"
    } else {
        NO_WEIGHTS
    }
}

/// Beside models lie a cache's own folders and what else it keeps.
fn is_of_others(name: &str) -> bool {
    [".", "datasets--", "spaces--"]
        .iter()
        .any(|start| name.starts_with(start))
}

fn looks_like_a_model(folder: &Path) -> bool {
    has_weight_file(folder) && folder.join("config.json").is_file()
}

fn has_weight_file(folder: &Path) -> bool {
    let is_shard = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("model-00001-of-") && name.ends_with(".safetensors")
    };
    let mut entries = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .take(ENTRIES_MAX);
    // The engine takes shards without their index as well.
    WEIGHT_FILES.iter().any(|name| folder.join(name).is_file()) || entries.any(is_shard)
}

/// Whether a snapshot of the cache is a model for MLX.
fn is_mlx(id: &str, snapshot: &Path) -> bool {
    let name = id.to_lowercase();
    let is_quantised = ["4bit", "8bit", "quantized"]
        .iter()
        .any(|word| name.contains(word));
    let has_config = snapshot.join("config.json").is_file();
    name.contains("mlx") || (has_weight_file(snapshot) && (is_quantised || has_config))
}

fn folders_in(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).into_iter().flatten().take(ENTRIES_MAX);
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut folders: Vec<PathBuf> = paths.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

/// The folder that was changed last.
fn newest(snapshots: &Path) -> Option<PathBuf> {
    let changed_at = |path: &PathBuf| {
        let metadata = fs::metadata(path).and_then(|it| it.modified());
        metadata.unwrap_or(SystemTime::UNIX_EPOCH)
    };
    folders_in(snapshots).into_iter().max_by_key(changed_at)
}

fn small_file(path: &Path) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let file = File::open(path).ok()?.take(CONFIG_SIZE_MAX + 1);
    { file }.read_to_end(&mut text).ok()?;
    (text.len() as u64 <= CONFIG_SIZE_MAX).then_some(text)
}

fn has_narrow_floats(config: &Value) -> bool {
    let is_quantised = ["quantization", "quantization_config"]
        .iter()
        .any(|key| !config[*key].is_null());
    let text = &config["text_config"];
    let names = [config, text].map(|part| [&part["torch_dtype"], &part["dtype"]]);
    let kind = names.iter().flatten().find_map(|name| name.as_str());
    !is_quantised && matches!(kind, Some("bfloat16" | "float16"))
}

/// By its name, else by the files that quantising tools leave.
fn quantisation(id: &str, folder: &Path, config: &Value) -> Option<String> {
    let name = id.to_lowercase();
    let named = QUANTISATION_WORDS.iter().find(|(it, _)| name.contains(it));
    if let Some((_, word)) = named {
        return Some((*word).to_owned());
    }
    let text = small_file(&folder.join("quantize_config.json")).unwrap_or_default();
    let own: Value = serde_json::from_slice(&text).unwrap_or(Value::Null);
    let bits = own["bits"].as_u64();
    // MLX writes it into the config itself.
    let bits = bits.or_else(|| config["quantization"]["bits"].as_u64())?;
    Some(format!("{bits}bit"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;

    fn lay(root: &TempDir, path: &str, bytes: &[u8]) {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn a_cache_is_scanned_as_its_library_lays_it_out() {
        let root = tempfile::tempdir().unwrap();
        let old = "models--acme--Big-8bit/snapshots/old";
        let new = "models--acme--Big-8bit/snapshots/new";
        lay(&root, &format!("{old}/model.safetensors"), &[0; 99]);
        lay(&root, &format!("{new}/model.safetensors"), &[0; 30]);
        lay(&root, &format!("{new}/part/more.npz"), &[0; 3]);
        lay(&root, &format!("{new}/tokenizer.json"), &[0; 50]);
        let folder = File::open(root.path().join(old)).unwrap();
        folder
            .set_modified(SystemTime::now() - Duration::from_secs(60))
            .unwrap();
        // The cache holds links to blobs.
        lay(&root, "models--small-mlx/blobs/b", &[0; 7]);
        lay(&root, "models--small-mlx/snapshots/a/config.json", b"{}");
        std::os::unix::fs::symlink(
            "../../blobs/b",
            root.path().join("models--small-mlx/snapshots/a/odd.bin"),
        )
        .unwrap();
        // No weights, no model; no name and no config, no MLX; another kind of entry.
        lay(
            &root,
            "models--acme--mlx-empty/snapshots/a/config.json",
            b"{}",
        );
        lay(
            &root,
            "models--acme--gguf/snapshots/a/model.safetensors",
            b"x",
        );
        lay(
            &root,
            "datasets--acme--x/snapshots/a/model.safetensors",
            b"x",
        );

        let found = scan(root.path());
        let seen: Vec<(&str, u64)> = found
            .iter()
            .map(|model| (model.id.as_str(), model.size_bytes))
            .collect();
        assert_eq!(seen, [("small-mlx", 7), ("acme/Big-8bit", 33)]);
        assert_eq!(found[1].folder, root.path().join(new));
        assert_eq!(found[1].quantisation.as_deref(), Some("8bit"));
    }

    #[test]
    fn plain_folders_are_found_by_their_names() {
        let root = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            lay(&root, &format!("{name}/config.json"), b"{}");
            lay(&root, &format!("{name}/model.safetensors"), b"x");
        }
        lay(&root, "three/config.json", b"{}");
        lay(&root, "four/model.safetensors", b"x");
        lay(&root, "five/config.json", b"{}");
        lay(&root, "five/model-00001-of-00002.safetensors", b"x");
        lay(&root, ".git/config", b"");
        let ids = |found: Vec<FoundModel>| -> Vec<String> {
            found.into_iter().map(|model| model.id).collect()
        };
        assert_eq!(ids(scan(root.path())), ["five", "one", "two"]);
        let reasons = |root: &Path| -> Vec<(PathBuf, String)> {
            let passed_over = scan_whole(root).passed_over.into_iter();
            passed_over.map(|one| (one.folder, one.why)).collect()
        };
        let reason = |name: &str, why: &str| (root.path().join(name), why.to_owned());
        let expected = [
            reason("four", "it holds no config.json"),
            reason("three", "it holds no weights"),
        ];
        assert_eq!(reasons(root.path()), expected);
        assert_eq!(reasons(&root.path().join("three")), [expected[1].clone()]);
        assert_eq!(ids(scan(&root.path().join("two"))), ["two"]);
        assert_eq!(ids(scan(&root.path().join("nowhere"))), [""; 0]);
    }

    #[test]
    fn parameters_and_vision_are_read_from_the_config() {
        let of = |config: &str| {
            let root = tempfile::tempdir().unwrap();
            lay(&root, "config.json", config.as_bytes());
            open_model(root.path(), "it").unwrap()
        };
        // 12 * 896 * 896 * 24, and 151 936 * 896.
        let model = of(
            r#"{"model_type":"qwen2","hidden_size":896,"num_hidden_layers":24,
            "vocab_size":151936,"num_attention_heads":14,"num_key_value_heads":2}"#,
        );
        assert_eq!(model.parameters, Some(231_211_008 + 136_134_656));
        assert_eq!(model.model_type, "qwen2");
        assert_eq!(model.kv.bytes_per_token, 12_288);
        assert!(!model.is_vision);
        assert!(!model.has_narrow_floats);
        let narrow = of(r#"{"text_config":{"dtype":"bfloat16"}}"#);
        assert!(narrow.has_narrow_floats);
        assert_eq!(narrow.weights_bytes(), narrow.size_bytes * WIDENING);
        let packed = of(r#"{"torch_dtype":"float16","quantization":{"bits":4}}"#);
        assert!(!packed.has_narrow_floats);
        let model = of(r#"{"num_parameters":5,"vision_config":{}}"#);
        assert_eq!((model.parameters, model.is_vision), (Some(5), true));
        let defaults = of(r#"{"hidden_size":1000,"num_hidden_layers":1}"#);
        assert_eq!(defaults.parameters, Some(12_000_000 + 32_000_000));
        assert_eq!(
            of(r#"{"hidden_size":18446744073709551615,"num_hidden_layers":9}"#).parameters,
            None
        );
        assert_eq!(of("no json").parameters, None);
    }

    #[test]
    fn the_quantisation_is_the_first_word_of_the_name_else_what_the_files_say() {
        let root = tempfile::tempdir().unwrap();
        let of = |id| open_model(root.path(), id).unwrap().quantisation;
        let table = [
            ("acme/M-4bit-8bit", Some("4bit")),
            ("acme/M-Q8_0", Some("8bit")),
            ("acme/M-INT4", Some("4bit")),
            ("acme/M-3bit", Some("3bit")),
            ("acme/M-bf16", Some("bf16")),
            ("acme/M-F16", Some("fp16")),
            ("acme/M", None),
        ];
        for (id, word) in table {
            assert_eq!(of(id).as_deref(), word, "{id}");
        }
        lay(&root, "config.json", br#"{"quantization":{"bits":6}}"#);
        assert_eq!(of("acme/M").as_deref(), Some("6bit"));
        lay(&root, "quantize_config.json", br#"{"bits":5}"#);
        assert_eq!(of("acme/M").as_deref(), Some("5bit"));
    }
}
