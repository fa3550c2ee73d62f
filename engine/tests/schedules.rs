//! An answer is a function of its request alone: not of who else is served, of the order, of chunks,
//! pages and prefixes, nor of rows that had to leave and were computed again.
#![cfg(feature = "mlx")]

mod support;

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use cereus_core::draw::Seed;
use cereus_core::time::Span;
use cereus_engine::disk::{DiskConfig, DiskKey};
use cereus_engine::kv::Scope;
use cereus_engine::kv::disk::DiskLimits;
use cereus_engine::runtime::{
    CapacitySnapshot, DiskTier, Engine, EngineConfig, Event, FinishReason, Job, MlxBackend,
    TokenLogprob, Usage,
};
use cereus_engine::scheduler::leases::LeaseConfig;
use cereus_engine::scheduler::{Admission, RowId};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use support::{FAMILIES, LLAMA, QWEN2, QWEN3, QWEN3_MOE, write_byte_folder_of};

const ANSWER_TOKENS: u32 = 24;
const BLOCK_TOKENS: u32 = 64;
/// Generous: only an engine that hangs is so slow.
const PATIENCE: Duration = Duration::from_secs(60);
const A_MOMENT: Duration = Duration::from_millis(2);

/// A folder of each family, and what each prompt is answered when nobody else is served.
static FOLDERS: LazyLock<Vec<Served>> = LazyLock::new(|| {
    let served = |(ix, json): (usize, &&str)| Served::new(json, ix as u64 + 1);
    FAMILIES.iter().enumerate().map(served).collect()
});

struct Served {
    _folder: tempfile::TempDir,
    path: PathBuf,
    /// By prompt of [`prompt`].
    answers: Vec<Heard>,
}

/// One answer, as a caller sees it.
#[derive(Clone, Debug, PartialEq)]
struct Heard {
    text: String,
    /// To the last bit: tokens alone forgive much that went wrong.
    logprobs: Vec<TokenLogprob>,
    reason: FinishReason,
    usage: Usage,
}

/// The families whose layers all have full attention.
const MOVING: &[&str] = &[LLAMA, QWEN2, QWEN3, QWEN3_MOE];

const PROMPTS: usize = 8;

/// Prompts of 20 to 215 tokens, most of which begin alike.
fn prompt(ix: usize) -> String {
    let common = "all of them begin with these very words, and go on with others. ";
    match ix {
        0 => "short".to_owned(),
        1 => common.repeat(3),
        2 => format!("{}and end so", common.repeat(2)),
        3 => format!("{}and end otherwise", common.repeat(2)),
        4 => format!("unlike {common}"),
        other => format!("{}{}", common, "word ".repeat(4 * other)),
    }
}

fn body(prompt_ix: usize) -> Vec<u8> {
    let content = serde_json::to_string(&prompt(prompt_ix)).unwrap();
    format!(
        r#"{{"messages":[{{"role":"user","content":{content}}}],"temperature":0,
            "max_tokens":{ANSWER_TOKENS},"logprobs":true}}"#
    )
    .into_bytes()
}

impl Served {
    fn new(json: &str, seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_byte_folder_of(folder.path(), json, seed);
        let path = folder.path().to_owned();
        let mut running = Running::start(&path, &generous());
        let answers = (0..PROMPTS).map(|ix| {
            running.submit(ix as u64, ix, None);
            running.wait_for_all();
            running.finished[&(ix as u64)].clone()
        });
        Self {
            answers: answers.collect(),
            path,
            _folder: folder,
        }
    }
}

fn generous() -> EngineConfig {
    EngineConfig {
        rows_max: 1,
        waiting_max: 64,
        step_token_budget: 1_024,
        prefill_chunk_tokens: 1_024,
        kv_bytes_max: 64 << 20,
        admission: Admission::WorstCase,
        leases: LeaseConfig::REFERENCE,
        unread_events_max: None,
        seed: Seed::from_number(5),
        disk: None,
    }
}

/// An engine and what was heard of it. The engine waits until each event is heard, so that what is
/// done between two events meets the rows as they are then.
struct Running {
    // Dropped before the engine, which would wait for a hearer.
    events: Receiver<Event>,
    engine: Engine,
    waiting: usize,
    texts: BTreeMap<u64, (String, Vec<TokenLogprob>)>,
    finished: BTreeMap<u64, Heard>,
    failed: BTreeMap<u64, String>,
    /// Events that were heard and that the engine takes for unread, until there are more of them.
    unread: VecDeque<RowId>,
    behind: usize,
}

impl Running {
    fn start(folder: &Path, config: &EngineConfig) -> Self {
        let folder = folder.to_owned();
        let (sender, events) = sync_channel(0);
        let open = move || MlxBackend::open(&folder);
        let engine = Engine::start(config, open, move |event| drop(sender.send(event)));
        Self {
            events,
            engine: engine.unwrap(),
            waiting: 0,
            texts: BTreeMap::new(),
            finished: BTreeMap::new(),
            failed: BTreeMap::new(),
            unread: VecDeque::new(),
            behind: 0,
        }
    }

    fn submit(&mut self, id: u64, prompt_ix: usize, scope: Option<Scope>) {
        let body = body(prompt_ix);
        let id = RowId(id);
        self.engine.submit(Job { id, body, scope }).unwrap();
        self.waiting += 1;
    }

    fn hear(&mut self) {
        // When all rows wait for their readers, these catch up.
        let event = self.events.recv_timeout(A_MOMENT).or_else(|_| {
            self.read_until(0);
            self.events.recv_timeout(PATIENCE)
        });
        match event.expect("the engine goes on") {
            Event::Accepted { .. } => {}
            Event::Delta { id, delta } => {
                self.unread.push_back(id);
                self.read_until(self.behind);
                let (text, logprobs) = self.texts.entry(id.0).or_default();
                text.push_str(&delta.content);
                logprobs.extend(delta.logprobs);
            }
            Event::Finished(finished) => {
                let (text, logprobs) = self.texts.remove(&finished.id.0).unwrap_or_default();
                let heard = Heard {
                    text,
                    logprobs,
                    reason: finished.reason,
                    usage: finished.usage,
                };
                self.finished.insert(finished.id.0, heard);
                self.waiting -= 1;
            }
            Event::Failed { id, failure } => {
                self.failed.insert(id.0, failure.reason.as_str().to_owned());
                self.waiting -= 1;
            }
        }
    }

    fn read_until(&mut self, unread: usize) {
        let count = self.unread.len().saturating_sub(unread);
        for id in self.unread.drain(..count) {
            self.engine.read(id, 1);
        }
    }

    fn wait_for_all(&mut self) {
        while self.waiting > 0 {
            self.hear();
        }
    }

    fn capacity(&self) -> CapacitySnapshot {
        self.engine.capacity()
    }
}

fn scope(tenant: u8) -> Option<Scope> {
    Scope::new(&vec![b's'; usize::from(tenant)])
}

#[derive(Clone, Debug)]
enum Act {
    /// A prompt of a tenant; tenant 0 shares nothing.
    Submit {
        prompt_ix: usize,
        tenant: u8,
    },
    /// One that is taken back after so many events.
    SubmitAndCancel {
        prompt_ix: usize,
        after: u8,
    },
    /// So many rows' worth of memory.
    Grant {
        rows: u8,
    },
    Hear(u8),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..PROMPTS, 0_u8..3).prop_map(|(prompt_ix, tenant)| Act::Submit { prompt_ix, tenant }),
        1 => (0..PROMPTS, 0_u8..20)
            .prop_map(|(prompt_ix, after)| Act::SubmitAndCancel { prompt_ix, after }),
        1 => (2_u8..6).prop_map(|rows| Act::Grant { rows }),
        2 => (1_u8..30).prop_map(Act::Hear),
    ]
}

#[derive(Clone, Debug)]
struct Schedule {
    family: usize,
    rows_max: u16,
    step_token_budget: u32,
    prefill_chunk_tokens: u32,
    rows: u8,
    is_optimistic: bool,
    /// Events of a row that may be unread, and how many the reader of all is behind.
    unread_max: Option<u32>,
    behind: usize,
    /// Blocks leave to a disk of so many rows and come back, where the family's can.
    disk_rows: Option<u8>,
    acts: Vec<Act>,
}

prop_compose! {
    fn schedule()(
        family in 0..FAMILIES.len(),
        rows_max in 1_u16..7,
        step_token_budget in 8_u32..300,
        prefill_chunk_tokens in 1_u32..200,
        rows in 2_u8..6,
        is_optimistic in any::<bool>(),
        unread_max in prop::option::of(1_u32..5),
        behind in 0_usize..8,
        disk_rows in prop::option::of(1_u8..12),
        acts in prop::collection::vec(act(), 1..20),
    ) -> Schedule {
        Schedule {
            family, rows_max, step_token_budget, prefill_chunk_tokens, rows, is_optimistic,
            unread_max, behind, disk_rows, acts,
        }
    }
}

impl Schedule {
    /// Runs it, and says how often a row had to leave and how many prompt tokens were found.
    fn run(&self) -> Result<CapacitySnapshot, TestCaseError> {
        self.run_at(tempfile::tempdir().unwrap().path())
    }

    /// The same, with the disk in a folder.
    fn run_at(&self, disk: &Path) -> Result<CapacitySnapshot, TestCaseError> {
        let served = &FOLDERS[self.family];
        let row_bytes = row_bytes(&served.path);
        let config = EngineConfig {
            rows_max: self.rows_max,
            step_token_budget: self.step_token_budget,
            prefill_chunk_tokens: self.prefill_chunk_tokens,
            kv_bytes_max: u64::from(self.rows) * row_bytes.get(),
            admission: if self.is_optimistic {
                Admission::OPTIMISTIC
            } else {
                Admission::WorstCase
            },
            unread_events_max: self.unread_max,
            disk: self
                .disk_rows
                .map(|rows| disk_tier(disk, row_bytes.get() * u64::from(rows))),
            ..generous()
        };
        let mut running = Running::start(&served.path, &config);
        running.behind = self.behind;
        let mut asked = BTreeMap::new();
        let mut cancelled = BTreeMap::new();
        for (id, act) in (0_u64..).zip(&self.acts) {
            match *act {
                Act::Submit { prompt_ix, tenant } => {
                    running.submit(id, prompt_ix, scope(tenant));
                    asked.insert(id, prompt_ix);
                }
                Act::SubmitAndCancel { prompt_ix, after } => {
                    running.submit(id, prompt_ix, scope(1));
                    cancelled.insert(id, prompt_ix);
                    for _ in 0..after {
                        if running.waiting > 0 {
                            running.hear();
                        }
                    }
                    running.engine.cancel(RowId(id));
                }
                Act::Grant { rows } => running.engine.set_grant(u64::from(rows) * row_bytes.get()),
                Act::Hear(count) => {
                    for _ in 0..count {
                        if running.waiting > 0 {
                            running.hear();
                        }
                    }
                }
            }
        }
        running.wait_for_all();
        for (id, prompt_ix) in asked {
            let expected = &served.answers[prompt_ix];
            prop_assert_eq!(running.failed.get(&id), None);
            let heard = &running.finished[&id];
            prop_assert_eq!(&heard.text, &expected.text);
            prop_assert_eq!(&heard.logprobs, &expected.logprobs);
            prop_assert_eq!(heard.reason, expected.reason);
            let usage = Usage {
                cached_tokens: expected.usage.cached_tokens,
                ..heard.usage
            };
            prop_assert_eq!(usage, expected.usage);
        }
        for (id, prompt_ix) in cancelled {
            if let Some(heard) = running.finished.get(&id) {
                prop_assert!(served.answers[prompt_ix].text.starts_with(&heard.text));
            }
        }
        let capacity = running.capacity();
        prop_assert_eq!(capacity.active_token_budget_used, 0);
        Ok(capacity)
    }
}

/// A disk of so many bytes, which nobody waits for longer than for a moment.
fn disk_tier(folder: &Path, size_max: u64) -> DiskTier {
    let limits = DiskLimits {
        size_max,
        file_blocks_max: 2,
        free_min: 0,
        ..DiskLimits::reference(None)
    };
    let key = DiskKey::from_bytes([1; 32]);
    DiskTier {
        tokens_min: BLOCK_TOKENS,
        read_wait_max: Span::millis(100),
        ..DiskTier::reference(DiskConfig::reference(folder.to_owned(), key, limits))
    }
}

/// What the longest row takes at most.
fn row_bytes(folder: &Path) -> NonZeroU64 {
    let json = std::fs::read(folder.join("config.json")).unwrap();
    let config = cereus_engine::model::Config::from_json(&json).unwrap();
    let layout = config.kv_layout(4, 0);
    let tokens = 256 + ANSWER_TOKENS;
    NonZeroU64::new(layout.bytes(tokens, tokens)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// ENG-07.
    #[test]
    fn an_answer_depends_on_its_request_alone(schedule in schedule()) {
        schedule.run()?;
    }
}

/// ENG-07, where memory is short and the disk next to it, of a family whose blocks move. In a second
/// life of the process all prompts are old.
#[test]
fn an_answer_does_not_depend_on_what_the_disk_has() {
    let families = prop::sample::select(MOVING);
    let schedules = (schedule(), families, 1_u8..12).prop_map(|(schedule, json, disk_rows)| {
        let family = FAMILIES.iter().position(|known| *known == json);
        Schedule {
            family: family.unwrap(),
            disk_rows: Some(disk_rows),
            rows: 2,
            ..schedule
        }
    });
    let read = Cell::new(0);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(40));
    let outcome = runner.run(&schedules, |schedule| {
        let disk = tempfile::tempdir().unwrap();
        for _life in 0..2 {
            let capacity = schedule.run_at(disk.path())?;
            read.set(read.get() + capacity.disk.read);
        }
        Ok(())
    });
    outcome.unwrap();
    assert!(read.get() > 0, "the disk was of no use");
}

/// ENG-04.
#[test]
fn rows_that_had_to_leave_say_the_same() {
    for (family, json) in FAMILIES.iter().enumerate() {
        let submit = |prompt_ix| Act::Submit {
            prompt_ix,
            tenant: 0,
        };
        let acts = [1, 2, 3, 1, 6, 7].map(submit);
        let schedule = Schedule {
            family,
            rows_max: 6,
            step_token_budget: 512,
            prefill_chunk_tokens: 256,
            rows: 5,
            is_optimistic: true,
            unread_max: None,
            behind: 0,
            disk_rows: None,
            acts: [&acts[..], &[Act::Hear(14), Act::Grant { rows: 2 }]].concat(),
        };
        let capacity = schedule.run().unwrap();
        assert!(capacity.preemptions > 0, "{json}");
    }
}

/// ENG-10.
#[test]
fn a_prompt_is_found_by_its_own_tenant_only() {
    for served in FOLDERS.iter() {
        let mut running = Running::start(&served.path, &generous());
        let mut cached = |id: u64, prompt_ix: usize, tenant: u8| {
            running.submit(id, prompt_ix, scope(tenant));
            running.wait_for_all();
            let heard = &running.finished[&id];
            assert_eq!(heard.text, served.answers[prompt_ix].text);
            heard.usage.cached_tokens
        };
        let whole = served.answers[1].usage.prompt_tokens;
        let blocks = (whole - 1) / BLOCK_TOKENS * BLOCK_TOKENS;
        assert_eq!(cached(0, 1, 1), 0, "the first");
        assert_eq!(cached(1, 1, 2), 0, "another tenant's");
        assert_eq!(cached(2, 1, 0), 0, "nobody's");
        let again = cached(3, 1, 1);
        assert!(again > 0 && again <= blocks, "{again} of {blocks}");
        assert_eq!(cached(4, 1, 0), 0, "nobody's, again");
        assert_eq!(cached(5, 0, 1), 0, "too short for a block");
    }
}
