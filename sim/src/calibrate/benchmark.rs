//! What `cereus benchmark --json` prints.

use cereus_core::ids::AttemptKey;
use cereus_core::time::Tick;
use cereus_engine::kv::KvLayout;
use cereus_engine::scheduler::SchedulerConfig;
use serde::Deserialize;
use thiserror::Error;

use super::{Decode, Noise, Points, Prefill};
use crate::hardware::Chip;
use crate::machine::{Job, Machine, Pace};

/// Of one size of prompts. What else is printed is not needed here.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Benchmark {
    pub model: String,
    /// Of each answer.
    pub new_tokens: u32,
    pub model_load_ms: Option<u64>,
    pub cells: Vec<Cell>,
}

/// Of one size of batch.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Cell {
    pub rows: u16,
    /// Of a prompt, on average.
    pub prompt_tokens: f64,
    pub prefill_tokens_per_second: f64,
    /// Of all rows together.
    pub decode_tokens_per_second: f64,
}

#[derive(Debug, Error)]
pub enum BenchmarkError {
    #[error("not what `cereus benchmark --json` prints: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it holds no benchmark; run `cereus benchmark FOLDER --json` and keep what it prints")]
    Empty,
    #[error(
        "it is of {0} and of {1}; calibrate with one model at a time, whose name `--model` gives"
    )]
    Models(String, String),
    #[error("a cell of {0} rows has a figure that is not above zero, or more than 1,024 rows")]
    Absurd(u16),
}

impl Benchmark {
    /// One, or several behind one another.
    ///
    /// # Errors
    /// It is something else.
    pub fn read_all(text: &str) -> Result<Vec<Self>, BenchmarkError> {
        let all = serde_json::Deserializer::from_str(text).into_iter();
        let all = all.collect::<Result<Vec<Self>, _>>()?;
        if all.iter().all(|one| one.cells.is_empty()) {
            return Err(BenchmarkError::Empty);
        }
        for cell in all.iter().flat_map(|one| &one.cells) {
            let is_sound = |figure: f64| figure.is_finite() && figure > 0.0;
            let figures = [
                cell.prompt_tokens,
                cell.prefill_tokens_per_second,
                cell.decode_tokens_per_second,
            ];
            if !figures.into_iter().all(is_sound) || !(1..=1_024).contains(&cell.rows) {
                return Err(BenchmarkError::Absurd(cell.rows));
            }
        }
        Ok(all)
    }

    /// What several of one machine and one model say.
    ///
    /// # Errors
    /// They are of two models.
    pub fn points(all: &[Self]) -> Result<Points, BenchmarkError> {
        let first = all.first().ok_or(BenchmarkError::Empty)?;
        if let Some(other) = all.iter().find(|other| other.model != first.model) {
            let (one, other) = (first.model.clone(), other.model.clone());
            return Err(BenchmarkError::Models(one, other));
        }
        let cells = all.iter().flat_map(|one| {
            let each = one.cells.iter();
            each.map(|cell| (*cell, f64::from(one.new_tokens)))
        });
        let cells: Vec<(Cell, f64)> = cells.collect();
        Ok(Points {
            decode: cells.iter().map(|(cell, new)| cell.decode(*new)).collect(),
            prefill: cells.iter().map(|(cell, _)| cell.prefill()).collect(),
            // Whatever it is: all points are alike.
            noise: Noise {
                share: 0.01,
                jitter_ns: 0.0,
            },
            travel: false,
            load_ms: all.iter().filter_map(|one| one.model_load_ms).min(),
        })
    }
}

impl Cell {
    fn decode(&self, new_tokens: f64) -> Decode {
        let rows = f64::from(self.rows);
        Decode {
            steps: 1.0,
            rows,
            // From the first token of an answer to its last.
            context_tokens: rows * (self.prompt_tokens + new_tokens / 2.0),
            took_ns: rows / self.decode_tokens_per_second * 1e9,
        }
    }

    fn prefill(&self) -> Prefill {
        let tokens = self.prompt_tokens;
        let rows = f64::from(self.rows);
        Prefill {
            tokens: rows * tokens,
            pairs: rows * tokens * (tokens + 1.0) / 2.0,
            steps: super::float(steps_to_read(self.rows, super::whole(tokens))),
            took_ns: rows * tokens / self.prefill_tokens_per_second * 1e9,
        }
    }
}

/// Steps that the engine's own scheduler takes for a batch of prompts that are handed in together.
pub(super) fn steps_to_read(rows: u16, prompt_tokens: u64) -> u64 {
    /// Takes the same for every step.
    const CHIP: Chip = Chip {
        memory_gb: 1,
        bandwidth_gbs: 1,
        prefill_ns_per_token: 0,
        attention_ps_per_pair: 0,
        step_ns: 1_000,
        row_ns: 0,
        context_ps_per_token: 0,
        kv_size: 0,
        kv_size_per_token: 1,
        weights_size: 0,
    };
    let prompt_tokens = u32::try_from(prompt_tokens.max(1)).unwrap_or(1 << 24);
    let prompt_tokens = prompt_tokens.min(1 << 24);
    let config = SchedulerConfig {
        rows_max: rows,
        waiting_max: rows,
        ..SchedulerConfig::reference(prompt_tokens + 1)
    };
    let room = u64::from(rows) * u64::from(prompt_tokens + 1) + (1 << 20);
    let layout = KvLayout::full_attention(1, 2 * room);
    let machine = Machine::new(CHIP, config, layout, Pace::Step);
    let mut machine = machine.expect("a batch and its room");
    let mut due = None;
    for slot in 0..u32::from(rows) {
        let job = Job {
            attempt: AttemptKey {
                slot,
                generation: 1,
            },
            prompt_tokens,
            output_tokens_max: 1,
            output_tokens_true: 1,
        };
        let begun = machine.submit(Tick::ZERO, &job, &[]);
        due = begun.expect("there is room for the batch").or(due);
    }
    let mut notes = Vec::new();
    while let Some(step) = due {
        notes.clear();
        due = machine.step_done(step.epoch, &mut notes);
    }
    machine.steps
}
