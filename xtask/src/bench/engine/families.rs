//! The same tokens and logits: runs the engine's own test and makes a table of what it says.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Found;
use crate::failure::Failure;
use crate::families::Prompts;
use crate::{families, run, say};

/// Begins a line of the test that says what was found.
const COMPARED: &str = "compared ";
/// Ends the name of a model that differs in its file alone.
const PUBLISHED: &str = "-published";

/// A model, over all ways in which it was held.
#[derive(Default)]
struct Row {
    millions: f64,
    off_max: f64,
    /// From the logits of the weights before they were quantised: ours, then mlx-lm's.
    quantising: Option<(f64, f64)>,
}

pub(super) fn measure() -> Result<Found, Failure> {
    say::note("the engine answers for models of every family (about two minutes) ...");
    let text = run::answer(
        "read which model differs above",
        &mut families::test(Prompts::Daily)?,
    )?;
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    for line in text.lines() {
        let Some((name, found)) = line.strip_prefix(COMPARED).and_then(read) else {
            continue;
        };
        let row = rows.entry(name).or_default();
        row.millions = found.millions;
        row.off_max = row.off_max.max(found.off_max);
        row.quantising = row.quantising.or(found.quantising);
    }
    if rows.is_empty() {
        return Err(Failure::new(
            "the test of the families says nothing that is understood",
            "bring its lines and `xtask/src/bench/engine/families.rs` together",
        ));
    }
    rows.retain(|name, _| !name.ends_with(PUBLISHED));
    let json: Vec<Value> = rows
        .iter()
        .map(|(name, row)| {
            json!({
                "model": name,
                "million_parameters": row.millions,
                "logit_off_max": row.off_max,
                "quantising_error": row.quantising.map(|(ours, _)| ours),
                "quantising_error_mlx_lm": row.quantising.map(|(_, theirs)| theirs),
            })
        })
        .collect();
    Ok(Found {
        table: table(&rows),
        json: json.into(),
    })
}

/// The model's name and what is said of it.
fn read(line: &str) -> Option<(&str, Row)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |ix: usize| words.get(ix)?.parse::<f64>().ok();
    // The third and fourth say how it was held.
    let row = Row {
        millions: number(1)?,
        off_max: number(4)?,
        quantising: number(5).zip(number(6)),
    };
    Some((words[0], row))
}

fn table(rows: &BTreeMap<&str, Row>) -> String {
    let mut text = "| random model | parameters | farthest logit from mlx-lm | \
         from the unquantised weights: here | mlx-lm |\n|---|---:|---:|---:|---:|\n"
        .to_owned();
    for (name, row) in rows {
        let (ours, theirs) = row.quantising.map_or_else(Default::default, |(a, b)| {
            (format!("{a:.4}"), format!("{b:.4}"))
        });
        text.push_str(&format!(
            "| {name} | {:.1} M | {:.1e} | {ours} | {theirs} |\n",
            row.millions, row.off_max
        ));
    }
    text.push_str(
        "\nIn float32, over prompts of 1, 11, 37 and, without quantising, 600 tokens: wherever mlx-lm's \
         margin is above twice what a logit may be off, the 64 tokens after each are mlx-lm's, \
         however the matrices are held, alone and served together. The farthest \
         logit is that of any token, after the prompt and after the answer; the largest logits are \
         about ten. What quantising itself changes is the same on both sides.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_test_is_read_with_and_without_quantising() {
        let (name, row) = read("qwen3-4bit    2.5 Packed Kept 3.1e-5 7.02348 7.02347").unwrap();
        assert_eq!(name, "qwen3-4bit");
        assert_eq!(row.quantising, Some((7.023_48, 7.023_47)));
        let (_, row) = read("llama    2.2 Packed Unpacked 3.1e-5").unwrap();
        assert_eq!(row.quantising, None);
        assert!(row.off_max < 4e-5 && row.off_max > 3e-5);
    }
}
