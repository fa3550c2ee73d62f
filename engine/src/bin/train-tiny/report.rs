//! The README of the model folder, written from what was measured.

use std::fmt::Write as _;

use anyhow::Result;
use cereus_engine::model::{Config, Model};

use crate::corpus::Corpus;
use crate::greedy::{answers, right_count};
use crate::rows::{LONG_ROW, SHORT_ROW, WORDS_FROM_STEP};
use crate::shape::{HEAD, HEADS, HIDDEN, INNER, KV_HEADS, LAYERS, POSITIONS_MAX};
use crate::sums::held_back;
use crate::training::{Plan, Progress};
use crate::vocabulary::{VOCABULARY, Vocabulary};
use crate::words::{reversed, spelt};

/// Rows in one batch of questions.
const BATCH: usize = 200;
/// Of the words that were trained on, so many are asked.
const KNOWN_WORDS: usize = 100;

const SAMPLES: [&str; 14] = [
    "Who are you?",
    "What is 17 + 25?",
    "what's 8 plus 5",
    "90 - 37",
    "I have 12 pears and get 9 more. How many do I have?",
    "Spell the word network.",
    "Reverse the word tiger.",
    "What is a hold?",
    "what does a provider do",
    "Is my prompt private?",
    "How is a request settled?",
    "Count from 7 to 12.",
    "What is the capital of France?",
    "Hello!",
];

pub(crate) fn measured(
    config: &Config,
    plan: &Plan,
    corpus: &Corpus,
    vocabulary: &Vocabulary,
    progress: &Progress,
) -> Result<String> {
    let model = progress.model(config)?;
    let sums = held_back();
    let first_hundred = right_count(&model, vocabulary, &sums[..100])?;
    let mut right = 0;
    for part in sums.chunks(BATCH) {
        right += right_count(&model, vocabulary, part)?;
    }
    let new_words = spelt_and_reversed(&model, vocabulary, corpus.words.held_back())?;
    let known_words = &corpus.words.known()[..KNOWN_WORDS];
    let old_words = spelt_and_reversed(&model, vocabulary, known_words)?;
    let parameters: usize = progress.weights.values().map(mlx_rs::Array::size).sum();

    let mut text = String::new();
    writeln!(text, "# The tiny model\n")?;
    writeln!(
        text,
        "A Qwen3-shaped model of {parameters} parameters (float32) with a byte-pair tokenizer of its \
         own,\ntrained by the project on text that it generates itself: small sums, spelling and \
         reversing\nwords, and questions about Cereus. It is what the demo and the tests serve. Counting \
         is in the text as\nwell, but a model that often counts past the end of its range has not \
         learnt it.\n\nWritten by `cargo xtask train-tiny`; do not edit. The text comes from\n\
         `engine/src/bin/train-tiny/`.\n"
    )?;
    writeln!(text, "| | |\n|---|---|")?;
    writeln!(
        text,
        "| shape | {LAYERS} layers, hidden {HIDDEN}, {HEADS} query heads over {KV_HEADS} key heads of {HEAD}, inner {INNER}, vocabulary {VOCABULARY}, tied embeddings |",
    )?;
    writeln!(
        text,
        "| context | {POSITIONS_MAX} positions, trained on rows of {SHORT_ROW} and {LONG_ROW} tokens |"
    )?;
    writeln!(
        text,
        "| command | `cargo xtask train-tiny --seed {} --steps {} --batch-tokens {}` |",
        plan.seed, plan.steps, plan.batch_tokens
    )?;
    writeln!(text, "| seed | {} |", plan.seed)?;
    writeln!(
        text,
        "| steps | {} of {} tokens |",
        progress.step, plan.batch_tokens
    )?;
    writeln!(
        text,
        "| time | {:.1} minutes by the wall on {} CPU cores, whatever else they did |",
        progress.elapsed.as_secs_f64() / 60.0,
        std::thread::available_parallelism()?
    )?;
    writeln!(
        text,
        "| loss at the end | {:.4} nats per answer token |",
        progress.loss
    )?;
    writeln!(
        text,
        "| held-back sums, first 100 | {first_hundred} right |"
    )?;
    writeln!(
        text,
        "| held-back sums, all | {right} of {} right |",
        sums.len()
    )?;
    writeln!(
        text,
        "| words of the training, spelt and reversed | {old_words} |"
    )?;
    writeln!(
        text,
        "| held-back words, spelt and reversed | {new_words} |"
    )?;
    writeln!(
        text,
        "\nThe first {WORDS_FROM_STEP} steps are half conversations, half bare sums; the rest practise \
         words as well. A pair of\noperands is held back by its hash, in either order and for both \
         operations, and never occurs in\ntraining; the sums counted are additions, and differences \
         that are not negative. Answers are greedy.\nCounted on the training's own forward; \
         `engine/tests/tiny.rs` asks through the engine.\n\n## Answers\n"
    )?;
    for (question, answer) in SAMPLES.iter().zip(answers(&model, vocabulary, &SAMPLES)?) {
        writeln!(text, "- {question}\n  > {answer}")?;
    }
    Ok(text)
}

/// How many of the words it spells and reverses, in words.
fn spelt_and_reversed(model: &Model, vocabulary: &Vocabulary, words: &[&str]) -> Result<String> {
    let right = |way: &str, is_right: &dyn Fn(&str, &str) -> bool| -> Result<usize> {
        let questions: Vec<String> = words.iter().map(|word| way.replace("{}", word)).collect();
        let answers = answers(model, vocabulary, &questions)?;
        let judged = words.iter().zip(&answers);
        Ok(judged
            .filter(|(word, answer)| is_right(word, answer))
            .count())
    };
    let spelt_count = right("Spell the word {}.", &|word, answer| {
        answer == format!("{}.", spelt(word))
    })?;
    let reversed_count = right("Reverse the word {}.", &|word, answer| {
        answer.ends_with(&format!(": {}.", reversed(word)))
    })?;
    let count = words.len();
    Ok(format!("{spelt_count} and {reversed_count} of {count}"))
}
