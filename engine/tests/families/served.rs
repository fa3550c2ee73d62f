//! The whole engine: scheduler, paging, sampling and text, all prompts at once.

use std::path::Path;
use std::sync::mpsc::channel;

use cereus_core::draw::Seed;
use cereus_engine::runtime::{Engine, EngineConfig, Event, FinishReason, Job, MlxBackend};
use cereus_engine::scheduler::RowId;

use crate::Row;

/// Fewer than the longest prompt, so that it is run while others already answer.
const PREFILL_CHUNK_TOKENS: u32 = 16;
/// The same where prompts are long.
const LONG_CHUNK_TOKENS: u32 = 512;
const LONG: usize = 1_000;
/// Of keys and values: several times what the longest prompts take.
const KV_BYTES: u64 = 512 << 20;

/// The tokens that the engine answers each prompt with.
pub(crate) fn ask(folder: &Path, rows: &[Row]) -> Vec<Vec<u32>> {
    let config = EngineConfig {
        prefill_chunk_tokens: if rows.iter().any(|row| row.prompt.len() > LONG) {
            LONG_CHUNK_TOKENS
        } else {
            PREFILL_CHUNK_TOKENS
        },
        ..EngineConfig::reference(KV_BYTES, Seed::from_number(1))
    };
    let (events, heard) = channel();
    let path = folder.to_owned();
    let engine = Engine::start(
        &config,
        move || MlxBackend::open(&path),
        move |event| drop(events.send(event)),
    )
    .unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    for (id, row) in (0..).zip(rows) {
        let body = serde_json::json!({
            "prompt": words(&row.prompt), "temperature": 0, "max_tokens": row.answer.len(),
        });
        let body = serde_json::to_vec(&body).unwrap();
        engine
            .submit(Job {
                id: RowId(id),
                body,
                scope: None,
            })
            .unwrap();
    }
    engine.stop();
    let mut answers = vec![String::new(); rows.len()];
    for event in heard {
        match event {
            Event::Accepted { id, prompt_tokens } => {
                let prompt = &rows[place(id)].prompt;
                assert_eq!(prompt_tokens as usize, prompt.len());
            }
            Event::Delta { id, delta } => answers[place(id)].push_str(&delta.content),
            Event::Finished(finished) => assert_eq!(finished.reason, FinishReason::Length),
            Event::Failed { id, failure } => panic!("{folder:?}, {}: {failure}", id.0),
        }
    }
    answers.iter().map(|answer| tokens(answer)).collect()
}

fn place(id: RowId) -> usize {
    usize::try_from(id.0).unwrap()
}

/// As the tokenizer of `make.py` has them.
fn words(tokens: &[u32]) -> String {
    let words: Vec<String> = tokens.iter().map(|token| format!("t{token}")).collect();
    words.join(" ")
}

fn tokens(words: &str) -> Vec<u32> {
    let token = |word: &str| word.strip_prefix('t').unwrap().parse().unwrap();
    words.split_whitespace().map(token).collect()
}
