//! What was measured, for people and for scripts.

use std::fmt::Write as _;

use cereus_engine::runtime::CapacitySnapshot;
use serde_json::{Value, json};

use super::measure::{Cell, Plan};
use crate::paint::Paint;

#[derive(Debug)]
pub(super) struct Report {
    model: String,
    plan: Plan,
    /// By the number of rows, fewest first.
    pub(super) cells: Vec<(u16, Cell)>,
    /// Why the others are not there.
    unmeasured: Vec<(u16, String)>,
    /// The engine's own figures at the end.
    pub(super) engine: Option<CapacitySnapshot>,
}

impl Report {
    pub(super) const fn new(model: String, plan: Plan) -> Self {
        Self {
            model,
            plan,
            cells: vec![],
            unmeasured: vec![],
            engine: None,
        }
    }

    pub(super) fn add(&mut self, rows: u16, cell: Result<Cell, String>) {
        match cell {
            Ok(cell) => self.cells.push((rows, cell)),
            Err(reason) => self.unmeasured.push((rows, reason)),
        }
    }

    /// How much of so many times the speed of one row a batch reaches; absent without one row.
    fn linearity(&self, rows: u16, cell: &Cell) -> Option<f64> {
        let one = self.cells.first().filter(|(rows, _)| *rows == 1)?;
        Some(cell.decode_per_second / (f64::from(rows) * one.1.decode_per_second))
    }

    pub(super) fn as_json(&self) -> Value {
        let cell = |(rows, cell): &(u16, Cell)| {
            json!({
                "rows": rows,
                "prompt_tokens": rounded(cell.prompt_tokens),
                "prefill_tokens_per_second": rounded(cell.prefill_per_second),
                "first_token_ms": rounded(cell.first_token_ms),
                "decode_tokens_per_second": rounded(cell.decode_per_second),
                "decode_tokens_per_second_per_row":
                    rounded(cell.decode_per_second / f64::from(*rows)),
                "decode_linearity": self.linearity(*rows, cell).map(rounded),
            })
        };
        let unmeasured = |(rows, reason): &(u16, String)| json!({"rows": rows, "reason": reason});
        let engine = self.engine.as_ref();
        json!({
            "model": self.model,
            "version": env!("CARGO_PKG_VERSION"),
            "is_optimised": !cfg!(debug_assertions),
            "prompt_tokens": self.plan.prompt_tokens,
            "new_tokens": self.plan.new_tokens,
            "iterations": self.plan.iterations,
            "model_load_ms": engine.map(|engine| engine.model_load_time_ms),
            "kv_bytes_per_token": engine.map(|engine| engine.kv_bytes_per_token),
            "memory_peak_bytes": engine.map(|engine| engine.memory.peak_bytes),
            "cells": self.cells.iter().map(cell).collect::<Vec<_>>(),
            "unmeasured": self.unmeasured.iter().map(unmeasured).collect::<Vec<_>>(),
        })
    }

    pub(super) fn as_text(&self, paint: Paint) -> String {
        let Plan {
            prompt_tokens,
            new_tokens,
            iterations,
        } = self.plan;
        let mut text = paint.bold(&self.model);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  prompts of {prompt_tokens} tokens, {new_tokens} new ones, median of {iterations}\n"
        );
        let head = format!(
            "{:>5}  {:>13}  {:>14}  {:>12}  {:>9}  {:>9}",
            "rows", "prefill tok/s", "first token ms", "decode tok/s", "of a row", "linearity"
        );
        let _ = writeln!(text, "{}", paint.dim(&head));
        for (rows, cell) in &self.cells {
            let linearity = self.linearity(*rows, cell);
            let linearity = linearity.map_or("-".to_owned(), |share| format!("{share:.2}"));
            let _ = writeln!(
                text,
                "{rows:>5}  {:>13.1}  {:>14.2}  {:>12.1}  {:>9.1}  {linearity:>9}",
                cell.prefill_per_second,
                cell.first_token_ms,
                cell.decode_per_second,
                cell.decode_per_second / f64::from(*rows),
            );
        }
        for (rows, reason) in &self.unmeasured {
            let _ = writeln!(text, "{}", paint.yellow(&format!("{rows:>5}  {reason}")));
        }
        if cfg!(debug_assertions) {
            let hint = "\nbuilt with assertions; figures to compare are of a release build";
            let _ = writeln!(text, "{}", paint.dim(hint));
        }
        text
    }
}

/// Three decimals say more than any two runs agree on.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
