//! A network by itself, with a cache for each row.

use std::path::Path;

use cereus_engine::model::{Load, Model, Output, RowCache, RowStep};
use mlx_rs::ops::indexing::IndexOp;

use crate::Row;

/// A prompt is run in pieces of this length: no multiple of a window, nor a divisor.
const PIECE: usize = 7;
/// The same for long ones.
const LONG_PIECE: usize = 149;
const LONG: usize = 100;

/// What a network says to a prompt.
pub(crate) struct Told {
    pub(crate) prefill_logits: Vec<f32>,
    pub(crate) answer: Vec<u32>,
    pub(crate) last_logits: Vec<f32>,
}

/// Prompts run alone and in pieces, then the expected answers of all rows together: what is told at
/// each place is what the network would say there.
pub(crate) fn ask(folder: &Path, load: Load, rows: &[Row]) -> Vec<Told> {
    let model = Model::load_as(folder, load).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut caches = Vec::new();
    let mut told = Vec::new();
    for row in rows {
        let mut cache = RowCache::new(model.config());
        let mut logits = vec![];
        let piece = if row.prompt.len() > LONG {
            LONG_PIECE
        } else {
            PIECE
        };
        for piece in row.prompt.chunks(piece) {
            logits = run(&model, std::iter::once((&mut cache, piece))).remove(0);
        }
        caches.push(cache);
        told.push(Told {
            prefill_logits: logits.clone(),
            answer: vec![],
            last_logits: logits,
        });
    }
    for ix in 0..rows[0].answer.len() {
        for told in &mut told {
            told.answer.push(argmax(&told.last_logits));
        }
        let newest = rows.iter().map(|row| &row.answer[ix..=ix]);
        let logits = run(&model, caches.iter_mut().zip(newest));
        for (told, logits) in told.iter_mut().zip(logits) {
            told.last_logits = logits;
        }
    }
    told
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
