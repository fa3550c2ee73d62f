//! Prompts that left memory, or that an earlier life of the process computed, are read from disk: the
//! answers are the same to the last token, and nobody finds what is not theirs.
#![cfg(feature = "mlx")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use cereus_core::draw::Seed;
use cereus_core::time::Span;
use cereus_engine::disk::{DiskConfig, DiskKey};
use cereus_engine::kv::Scope;
use cereus_engine::kv::disk::DiskLimits;
use cereus_engine::runtime::{
    DiskTier, Engine, EngineConfig, Event, Finished, Job, MlxBackend, TokenLogprob,
};
use cereus_engine::scheduler::RowId;
use support::{
    GEMMA3, GPT_OSS, LLAMA, QWEN2, QWEN3, QWEN3_MOE, QWEN35, write_byte_folder,
    write_byte_folder_of,
};

const BLOCK_TOKENS: u32 = 64;
const TENANT: u8 = 1;
/// Generous: only an engine that hangs is so slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// A model's folder and one for its blocks.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(json: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("model")).unwrap();
        write_byte_folder_of(&folder.path().join("model"), json, 3);
        Self { folder }
    }

    fn model(&self) -> PathBuf {
        self.folder.path().join("model")
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn config(&self) -> EngineConfig {
        EngineConfig {
            disk: Some(tier(&self.cache())),
            ..EngineConfig::reference(64 << 20, Seed::from_number(5))
        }
    }

    /// The files of blocks.
    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.cache()).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| !path.ends_with("lock")).collect()
    }

    /// What one life of the process answers to one prompt.
    fn life(&self, prompt: &str, tenant: u8) -> Answer {
        let life = Life::start(&self.model(), &self.config());
        assert!(life.engine.has_disk());
        let answer = life.ask(1, prompt, tenant);
        life.engine.stop();
        answer
    }
}

fn tier(folder: &Path) -> DiskTier {
    let limits = DiskLimits {
        free_min: 0,
        ..DiskLimits::reference(None)
    };
    let key = DiskKey::from_bytes([1; 32]);
    // The disk of a busy machine may be slow.
    let files = DiskConfig {
        queue_jobs_max: 64,
        ..DiskConfig::reference(folder.to_owned(), key, limits)
    };
    DiskTier {
        tokens_min: 2 * BLOCK_TOKENS,
        read_wait_max: Span::secs(60),
        ..DiskTier::reference(files)
    }
}

/// With the bits of its log-probabilities: greedy tokens alone forgive much.
#[derive(Debug, PartialEq)]
struct Answer {
    text: String,
    logprobs: Vec<TokenLogprob>,
    prompt_tokens: u32,
    cached_tokens: u32,
}

impl Answer {
    fn said(&self) -> (&str, &[TokenLogprob]) {
        (&self.text, &self.logprobs)
    }

    /// Of a prompt, one token is always computed.
    fn whole_blocks(&self) -> u32 {
        (self.prompt_tokens - 1) / BLOCK_TOKENS * BLOCK_TOKENS
    }
}

struct Life {
    engine: Engine,
    events: Receiver<Event>,
}

impl Life {
    fn start(model: &Path, config: &EngineConfig) -> Self {
        let (sender, events) = channel();
        let model = model.to_owned();
        let open = move || MlxBackend::open(&model);
        let engine = Engine::start(config, open, move |event| drop(sender.send(event)));
        Self {
            engine: engine.unwrap(),
            events,
        }
    }

    /// Tenant 0 shares nothing.
    fn submit(&self, id: u64, prompt: &str, tenant: u8) {
        let content = serde_json::to_string(prompt).unwrap();
        let body = format!(
            r#"{{"messages":[{{"role":"user","content":{content}}}],"temperature":0,
                "max_tokens":12,"logprobs":true,"top_logprobs":3}}"#
        );
        let job = Job {
            id: RowId(id),
            body: body.into_bytes(),
            scope: Scope::new(&vec![b's'; usize::from(tenant)]),
        };
        self.engine.submit(job).unwrap();
    }

    fn ask(&self, id: u64, prompt: &str, tenant: u8) -> Answer {
        self.submit(id, prompt, tenant);
        let mut text = String::new();
        let mut logprobs = vec![];
        loop {
            match self.events.recv_timeout(PATIENCE).unwrap() {
                Event::Accepted { .. } => {}
                Event::Delta { delta, .. } => {
                    text.push_str(&delta.content);
                    logprobs.extend(delta.logprobs);
                }
                Event::Failed { failure, .. } => panic!("{failure}"),
                Event::Finished(Finished { usage, .. }) => {
                    return Answer {
                        text,
                        logprobs,
                        prompt_tokens: usage.prompt_tokens,
                        cached_tokens: usage.cached_tokens,
                    };
                }
            }
        }
    }
}

/// About 270 tokens.
fn prompt(name: &str) -> String {
    format!("{name}: {}", "these words come again and again. ".repeat(7))
}

/// ENG-07.
#[test]
fn what_an_earlier_life_computed_is_read_and_answered_to_the_last_token() {
    for json in [LLAMA, QWEN2, QWEN3, QWEN3_MOE] {
        let place = Place::new(json);
        let first = place.life(&prompt("a"), TENANT);
        assert_eq!(first.cached_tokens, 0);
        assert!(first.whole_blocks() >= 3 * BLOCK_TOKENS);
        let again = Answer {
            cached_tokens: first.whole_blocks(),
            ..place.life(&prompt("a"), 0)
        };
        assert_eq!(again.said(), first.said(), "computed anew");
        assert_eq!(place.life(&prompt("a"), TENANT), again, "read");
        // What was read is not written again, and a longer prompt finds its beginning.
        let files = place.files().len();
        assert_eq!(place.life(&prompt("a"), TENANT), again, "read once more");
        assert_eq!(place.files().len(), files);
        let longer = place.life(&format!("{}and so on", prompt("a")), TENANT);
        assert!(longer.cached_tokens >= 3 * BLOCK_TOKENS, "{longer:?}");
    }
}

/// ENG-10.
#[test]
fn nobody_finds_what_another_tenant_or_another_model_left() {
    let place = Place::new(LLAMA);
    let first = place.life(&prompt("a"), TENANT);
    for tenant in [0, 2] {
        assert_eq!(place.life(&prompt("a"), tenant), first, "{tenant}");
    }
    // The same shapes, other weights.
    let other = Place::new(LLAMA);
    write_byte_folder_of(&other.model(), LLAMA, 4);
    let alone = other.life(&prompt("a"), TENANT);
    assert_ne!(alone.text, first.text);
    fs::rename(place.cache(), other.folder.path().join("given")).unwrap();
    let config = EngineConfig {
        disk: Some(tier(&other.folder.path().join("given"))),
        ..other.config()
    };
    let life = Life::start(&other.model(), &config);
    assert_eq!(life.ask(1, &prompt("a"), TENANT), alone);
}

/// ENG-11, as far as a request can see it.
#[test]
fn a_damaged_cache_is_no_cache() {
    let damages: [fn(&mut Vec<u8>); 4] = [
        |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        },
        |bytes| bytes[0] ^= 1,
        |bytes| bytes.truncate(bytes.len() - 1),
        |bytes| bytes.clear(),
    ];
    for (ix, damage) in damages.into_iter().enumerate() {
        let place = Place::new(QWEN3);
        let first = place.life(&prompt("a"), TENANT);
        let files = place.files();
        assert!(!files.is_empty());
        for file in &files {
            let mut bytes = fs::read(file).unwrap();
            damage(&mut bytes);
            fs::write(file, bytes).unwrap();
        }
        assert_eq!(place.life(&prompt("a"), TENANT), first, "damage {ix}");
        // Written anew by then.
        let read = place.life(&prompt("a"), TENANT);
        assert_eq!(read.said(), first.said());
        assert_eq!(read.cached_tokens, first.whole_blocks());
    }
}

/// The damage is done while the engine runs, to files that it knows as whole.
#[test]
fn a_file_that_turns_out_damaged_is_computed_instead() {
    let place = Place::new(QWEN3);
    let first = place.life(&prompt("a"), TENANT);
    let life = Life::start(&place.model(), &place.config());
    for file in place.files() {
        let mut bytes = fs::read(&file).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&file, bytes).unwrap();
    }
    assert_eq!(life.ask(1, &prompt("a"), TENANT), first);
    life.engine.stop();
    let read = place.life(&prompt("a"), TENANT);
    assert_eq!(read.cached_tokens, first.whole_blocks());
}

#[test]
fn what_had_to_leave_memory_comes_back() {
    let place = Place::new(LLAMA);
    // Room for one row of about 300 tokens and a bit: 2 layers of 4 heads of 8 numbers.
    let token_bytes = 2 * 2 * 4 * 8 * 4;
    let config = EngineConfig {
        kv_bytes_max: token_bytes * 400,
        ..place.config()
    };
    let names = ["a", "b", "c", "d"];
    let life = Life::start(&place.model(), &config);
    let firsts = names.map(|name| life.ask(1, &prompt(name), TENANT));
    life.engine.stop();
    let life = Life::start(&place.model(), &config);
    for (name, first) in names.into_iter().zip(&firsts).cycle().take(8) {
        assert_eq!(first.cached_tokens, 0);
        let again = life.ask(1, &prompt(name), TENANT);
        assert_eq!(again.said(), first.said());
        assert_eq!(again.cached_tokens, first.whole_blocks(), "{name}");
    }
    let capacity = life.engine.capacity();
    assert_eq!(capacity.active_token_budget_used, 0);
    let read = capacity.disk.read * u64::from(BLOCK_TOKENS);
    assert!(read >= capacity.cached_tokens / 2, "{:?}", capacity.disk);
}

#[test]
fn a_model_with_windows_or_states_leaves_the_folder_alone() {
    for json in [GEMMA3, GPT_OSS, QWEN35] {
        let place = Place::new(json);
        let life = Life::start(&place.model(), &place.config());
        assert!(!life.engine.has_disk());
        life.ask(1, &prompt("a"), TENANT);
        life.engine.stop();
        assert!(!place.cache().exists());
    }
}

#[test]
fn a_folder_in_use_is_an_error_that_says_so() {
    let place = Place::new(QWEN3);
    let life = Life::start(&place.model(), &place.config());
    let model = place.model();
    let second = Engine::start(&place.config(), move || MlxBackend::open(&model), drop);
    let error = second.unwrap_err().to_string();
    assert!(error.contains("in use by another process"), "{error}");
    life.engine.stop();
}

/// Whatever becomes of a row while its blocks are read, it ends once.
#[test]
fn rows_that_wait_for_the_disk_end_once() {
    let place = Place::new(QWEN3);
    write_byte_folder(&place.model(), 3);
    for name in ["a", "b", "c"] {
        place.life(&prompt(name), TENANT);
    }
    for round in 0..24 {
        let life = Life::start(&place.model(), &place.config());
        for (id, name) in (0..).zip(["a", "b", "c"]) {
            life.submit(id, &prompt(name), TENANT);
        }
        match round % 4 {
            0 => (0..3).for_each(|id| life.engine.cancel(RowId(id))),
            1 => {
                life.engine.set_grant(1);
                life.engine.set_grant(64 << 20);
            }
            2 => {
                life.events.recv_timeout(PATIENCE).unwrap();
                life.engine.cancel(RowId(1));
            }
            _ => life.engine.drain(),
        }
        life.engine.stop();
        let mut ends: Vec<u64> = life
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Finished(finished) => Some(finished.id.0),
                Event::Failed { id, .. } => Some(id.0),
                Event::Accepted { .. } | Event::Delta { .. } => None,
            })
            .collect();
        ends.sort_unstable();
        assert_eq!(ends, [0, 1, 2], "round {round}");
    }
}
