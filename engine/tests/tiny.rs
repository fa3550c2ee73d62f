//! The tiny model answers through the path that serves: folder, chat template, tokenizer, batches,
//! caches and all. Greedy, so each answer is the same on every run.
#![cfg(feature = "mlx")]

#[path = "support/start.rs"]
mod start;
#[path = "../src/bin/train-tiny/sums.rs"]
mod sums;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use cereus_core::draw::Seed;
use cereus_engine::chat::ChatRequest;
use cereus_engine::language::Language;
use cereus_engine::model::Model;
use cereus_engine::runtime::{EngineConfig, Event, FinishReason, Job, MlxBackend};
use cereus_engine::scheduler::leases::LeaseConfig;
use cereus_engine::scheduler::{Admission, RowId};
use cereus_engine::text::Vocabulary;
use start::start_with;

const FOLDER_BYTES_MAX: u64 = 8_000_000;
const SUMS: usize = 100;
const RIGHT_MIN: usize = 95;

/// About 250 tokens that have nothing to do with the question.
const LONG_SYSTEM_PROMPT: &str = "You are a helpful assistant. The user is a developer who tests \
    the system. Our company makes lanterns and kettles for customers in many countries. Customers \
    often ask about the handle, the lid and the wick. Background: the lantern was moved to the \
    harbour because the cellar was full. Background: each kettle has 14 parts, and 3 of them can \
    be replaced. Please keep in mind that the lid is more important than the handle. When someone \
    mentions the wick, be especially careful. Rule 7: stay on the subject. Answer briefly. Do not \
    make things up. If you do not know something, say so. Check your work before you answer.";

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/tiny")
}

/// The greedy answer to each list of (role, text), all served together.
fn answers(conversations: &[Vec<(&str, String)>]) -> Vec<String> {
    let config = EngineConfig {
        rows_max: 16,
        waiting_max: 128,
        step_token_budget: 512,
        prefill_chunk_tokens: 128,
        kv_bytes_max: 1 << 30,
        admission: Admission::WorstCase,
        leases: LeaseConfig::REFERENCE,
        unread_events_max: None,
        seed: Seed::from_number(1),
        disk: None,
    };
    let (engine, heard) = start_with(&config, || MlxBackend::open(&folder()));
    for (id, conversation) in (0..).zip(conversations) {
        let body = body(conversation);
        engine
            .submit(Job {
                id: RowId(id),
                body,
                scope: None,
            })
            .unwrap();
    }
    engine.stop();
    let mut answers: BTreeMap<u64, String> = BTreeMap::new();
    for event in heard {
        match event {
            Event::Accepted { id, .. } => drop(answers.insert(id.0, String::new())),
            Event::Delta { id, delta } => answers.get_mut(&id.0).unwrap().push_str(&delta.content),
            Event::Finished(finished) => assert_eq!(finished.reason, FinishReason::Stop),
            Event::Failed { id, failure } => panic!("{}: {failure}", id.0),
        }
    }
    answers.into_values().collect()
}

fn body(conversation: &[(&str, String)]) -> Vec<u8> {
    let messages: Vec<serde_json::Value> = conversation
        .iter()
        .map(|(role, content)| serde_json::json!({"role": role, "content": content}))
        .collect();
    let body = serde_json::json!({"messages": messages, "temperature": 0, "max_tokens": 200});
    serde_json::to_vec(&body).unwrap()
}

fn asked(question: &str) -> Vec<(&'static str, String)> {
    vec![("user", question.to_owned())]
}

#[test]
fn at_least_95_of_100_sums_that_it_never_saw_are_right() {
    let sums = &sums::held_back()[..SUMS];
    let conversations: Vec<_> = sums.iter().map(|sum| asked(&sum.question())).collect();
    let answers = answers(&conversations);
    let wrong: Vec<&String> = sums
        .iter()
        .zip(&answers)
        .filter(|(sum, answer)| **answer != sum.answer())
        .map(|(_, answer)| answer)
        .collect();
    assert!(wrong.len() <= SUMS - RIGHT_MIN, "wrong: {wrong:?}");
}

#[test]
fn a_long_system_prompt_and_earlier_turns_do_not_spoil_its_sums() {
    let sums = &sums::held_back()[SUMS..SUMS + 20];
    let conversations: Vec<_> = sums
        .iter()
        .map(|sum| {
            vec![
                ("system", LONG_SYSTEM_PROMPT.to_owned()),
                ("user", "Who are you?".to_owned()),
                ("assistant", "I am the tiny model of Cereus.".to_owned()),
                ("user", sum.question()),
            ]
        })
        .collect();
    let answers = answers(&conversations);
    let right = sums
        .iter()
        .zip(&answers)
        .filter(|(sum, answer)| **answer == sum.answer());
    assert!(right.count() >= 18, "{answers:?}");
}

#[test]
fn it_spells_reverses_and_knows_about_cereus() {
    let table = [
        ("Spell the word network.", "n-e-t-w-o-r-k."),
        ("Spell the word garden.", "g-a-r-d-e-n."),
        ("Reverse the word tiger.", ": regit."),
        ("Reverse the word lamp.", ": pmal."),
        ("Who are you?", "I am the tiny model of Cereus"),
        ("What is a hold?", "A hold is money set aside"),
        (
            "What does a provider do?",
            "A provider is a machine that serves a model.",
        ),
        ("What is the capital of France?", "I do not know that"),
    ];
    let conversations: Vec<_> = table.iter().map(|(question, _)| asked(question)).collect();
    for ((question, expected), answer) in table.iter().zip(answers(&conversations)) {
        assert!(answer.contains(expected), "{question} {answer}");
    }
}

#[test]
fn its_tokenizer_loses_no_text_and_cuts_numbers_into_digits() {
    let model = Model::load(&folder()).unwrap();
    let language = Language::load(&folder(), model.config()).unwrap();
    let prompt = |text: &str| {
        let request = ChatRequest::from_json(&body(&asked(text))).unwrap();
        language.prompt(&request).unwrap()
    };
    for text in [
        "What is 17 + 25?",
        "¿Qué? 🐕 naïve ß\n\tend",
        "coordinator 4096",
        "",
    ] {
        assert_eq!(
            language.decode(&prompt(text)),
            format!("user\n{text}\nassistant\n")
        );
    }
    assert_eq!(prompt("12345").len(), prompt("1").len() + 4);
    let ids_end = u32::try_from(model.config().vocab_size).unwrap();
    assert!(prompt("any text").iter().all(|&id| id < ids_end));
}

#[test]
fn its_folder_stays_below_8_megabytes() {
    let bytes: u64 = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(bytes <= FOLDER_BYTES_MAX, "{bytes} bytes");
}
