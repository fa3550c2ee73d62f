//! Prefill and decode for several numbers of rows, with the models in process on both sides.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::sides::Sides;
use super::{Found, Spread, lines, rounds};
use crate::cli::EngineBenchArgs;
use crate::failure::Failure;
use crate::{project, say};

const SCRIPT: &str = "benches/mlx_lm/throughput.py";
const MODELS: [&str; 2] = ["qwen3-6m", "qwen3-60m"];
const ROWS: &str = "1,4,8,16";
const TOKENS: &str = "64";
const RATES: [(&str, &str); 2] = [
    ("decode", "decode_tokens_per_s"),
    ("prefill", "prefill_tokens_per_s"),
];

/// By rate and rows, one value a round.
type Rounds = BTreeMap<(&'static str, u64), Vec<f64>>;

pub(super) fn measure(
    models: &Path,
    sides: &Sides,
    args: &EngineBenchArgs,
) -> Result<Found, Failure> {
    let (names, rows) = if args.smoke {
        (&MODELS[..1], "1,4")
    } else {
        (&MODELS[..], ROWS)
    };
    let rounds = rounds(args);
    let mut table = head(sides);
    let mut json = vec![];
    for name in names {
        let folder = models.join(name);
        let mut by_side: Vec<Rounds> = vec![];
        by_side.resize_with(1 + sides.theirs.len(), Rounds::new);
        for round in 1..=rounds {
            say::note(&format!("{name}, round {round} of {rounds}: cereus"));
            let mut ours = sides.ours.program("throughput");
            ours.arg(&folder);
            let with = [
                "--prompt-tokens",
                TOKENS,
                "--tokens",
                TOKENS,
                "--rows",
                rows,
            ];
            note(&lines(ours.args(with))?, &mut by_side[0]);
            for (place, side) in sides.theirs.iter().enumerate() {
                say::note(&format!("{name}, round {round} of {rounds}: {}", side.name));
                let mut theirs = side.python();
                theirs.arg(project::root().join(SCRIPT)).arg(&folder);
                note(&lines(theirs.args(with))?, &mut by_side[1 + place]);
            }
        }
        for key in by_side[0].keys() {
            let of_side: Vec<&[f64]> = by_side
                .iter()
                .map(|rounds| rounds.get(key).map_or(&[][..], Vec::as_slice))
                .collect();
            table.push_str(&line(name, *key, &of_side));
            json.push(record(name, *key, &of_side, sides));
        }
    }
    table.push_str(&format!(
        "\nTokens a second, the middle of as many rounds as the sides took turns ({rounds}); prompts of {TOKENS} tokens, \
         {TOKENS} new ones, float32, greedy. A ratio says how many times as fast Cereus is: the \
         middle, least and greatest of its rounds.\n"
    ));
    Ok(Found {
        table,
        json: json.into(),
    })
}

fn note(found: &[Value], rounds: &mut Rounds) {
    for value in found {
        for (name, field) in RATES {
            let rows = value["rows"].as_u64().unwrap_or_default();
            let rate = value[field].as_f64().unwrap_or(f64::NAN);
            rounds.entry((name, rows)).or_default().push(rate);
        }
    }
}

fn head(sides: &Sides) -> String {
    let mut head = "| model | | rows | Cereus |".to_owned();
    let mut rule = "|---|---|---:|---:|".to_owned();
    for side in &sides.theirs {
        head.push_str(&format!(" {} | ratio |", side.name));
        rule.push_str("---:|---:|");
    }
    format!("{head}\n{rule}\n")
}

fn line(name: &str, (rate, rows): (&str, u64), of_side: &[&[f64]]) -> String {
    let middle = |values: &[f64]| format!("{:.0}", Spread::of(values.to_vec()).middle);
    let mut line = format!("| {name} | {rate} | {rows} | {} |", middle(of_side[0]));
    for theirs in &of_side[1..] {
        let ratio = ratio(of_side[0], theirs).ratio();
        line.push_str(&format!(" {} | {ratio} |", middle(theirs)));
    }
    line.push('\n');
    line
}

/// Round by round: what the machine did meanwhile was about the same for both.
fn ratio(ours: &[f64], theirs: &[f64]) -> Spread {
    let pairs = ours.iter().zip(theirs);
    Spread::of(pairs.map(|(ours, theirs)| ours / theirs).collect())
}

fn record(name: &str, (rate, rows): (&str, u64), of_side: &[&[f64]], sides: &Sides) -> Value {
    let names = std::iter::once("cereus").chain(sides.theirs.iter().map(|side| side.name));
    let rounds: BTreeMap<&str, &[f64]> = names.zip(of_side.iter().copied()).collect();
    json!({ "model": name, "rate": rate, "rows": rows, "tokens_per_s_of_rounds": rounds })
}
