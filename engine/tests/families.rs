//! Every family gives what mlx-lm gives: the same tokens, and the same logits to a thousandth.
//!
//! `CEREUS_FAMILIES_DIR` names a folder that `families/make.py` has filled; `cargo xtask test
//! families` does both. Without it there is nothing to compare with, and the tests say so.
#![cfg(feature = "mlx")]

use std::fs;
use std::path::{Path, PathBuf};

use cereus_engine::model::{Layout, Load, Model, Output, QuantisedMatrices, RowCache, RowStep};
use mlx_rs::ops::indexing::IndexOp;
use serde::Deserialize;

/// Between two ways of summing the same numbers, in single precision; logits are about ten.
const TOLERANCE: f32 = 1e-3;
/// A prompt is run in pieces of this length: no multiple of a window, nor a divisor.
const PIECE: usize = 7;

#[derive(Deserialize)]
struct Expected {
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    prompt: Vec<u32>,
    prefill_logits: Vec<f32>,
    answer: Vec<u32>,
    last_logits: Vec<f32>,
}

fn folders() -> Vec<PathBuf> {
    let Some(folder) = std::env::var_os("CEREUS_FAMILIES_DIR") else {
        println!("skipped: CEREUS_FAMILIES_DIR is not set; see `cargo xtask test families`");
        return vec![];
    };
    let entries = fs::read_dir(&folder).unwrap();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.retain(|folder| folder.join("expected.json").is_file());
    folders.sort();
    assert!(!folders.is_empty(), "{folder:?} should hold models");
    folders
}

/// One step of several rows, each by its cache and its tokens; the logits of each.
fn run<'a>(
    model: &Model,
    rows: impl Iterator<Item = (&'a mut RowCache, &'a [u32])>,
) -> Vec<Vec<f32>> {
    let mut rows: Vec<RowStep<'_>> = rows
        .map(|(cache, tokens)| RowStep {
            cache,
            tokens,
            output: Output::Logits,
        })
        .collect();
    let logits = model.step(&mut rows).unwrap().unwrap();
    let count = i32::try_from(rows.len()).unwrap();
    let row = |place: i32| logits.index(place).to_vec_exact::<f32>().unwrap();
    (0..count).map(row).collect()
}

fn argmax(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    u32::try_from(best.unwrap().0).unwrap()
}

fn distance(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    let differences = left.iter().zip(right).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max)
}

/// Prompts run alone and in pieces, answers of all rows together. Returns the greatest difference
/// of a logit.
fn compare(folder: &Path, load: Load) -> f32 {
    let expected = fs::read(folder.join("expected.json")).unwrap();
    let expected: Expected = serde_json::from_slice(&expected).unwrap();
    let model = Model::load_as(folder, load).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut furthest = 0.0_f32;
    let mut caches = Vec::new();
    let mut logits = Vec::new();
    for row in &expected.rows {
        let mut cache = RowCache::new(model.config());
        let mut last = vec![];
        for piece in row.prompt.chunks(PIECE) {
            last = run(&model, std::iter::once((&mut cache, piece))).remove(0);
        }
        furthest = furthest.max(distance(&last, &row.prefill_logits));
        caches.push(cache);
        logits.push(last);
    }
    let mut answers: Vec<Vec<u32>> = vec![vec![]; caches.len()];
    for _ in 0..expected.rows[0].answer.len() {
        let next: Vec<[u32; 1]> = logits.iter().map(|logits| [argmax(logits)]).collect();
        for (answer, next) in answers.iter_mut().zip(&next) {
            answer.extend(next);
        }
        let rows = caches.iter_mut().zip(next.iter().map(<[u32; 1]>::as_slice));
        logits = run(&model, rows);
    }
    for ((row, answer), logits) in expected.rows.iter().zip(&answers).zip(&logits) {
        assert_eq!(*answer, row.answer, "{folder:?}, {load:?}");
        furthest = furthest.max(distance(logits, &row.last_logits));
    }
    assert!(
        furthest < TOLERANCE,
        "{folder:?}, {load:?}: a logit is off by {furthest}"
    );
    furthest
}

#[test]
fn every_family_answers_as_mlx_lm_does() {
    for folder in folders() {
        for layout in [Layout::Joined, Layout::Packed] {
            let load = Load {
                layout,
                quantised: QuantisedMatrices::Unpacked,
            };
            let furthest = compare(&folder, load);
            let name = folder.file_name().unwrap().display();
            println!("{name:<24} {layout:?} {furthest:.1e}");
        }
    }
}

#[test]
fn quantised_matrices_answer_as_mlx_lm_does_without_being_unpacked() {
    for folder in folders() {
        let config = fs::read_to_string(folder.join("config.json")).unwrap();
        if !config.contains("\"quantization") {
            continue;
        }
        let furthest = compare(&folder, Load::AS_STORED);
        println!(
            "{:<24} {furthest:.1e}",
            folder.file_name().unwrap().display()
        );
    }
}
