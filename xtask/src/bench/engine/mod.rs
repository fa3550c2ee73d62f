//! `cargo xtask bench engine`: the engine beside mlx-lm, on the same machine, with the same weights in
//! the same precision, in one run. The two sides take turns, so that whatever else the machine does
//! falls on both.

mod families;
mod readme;
mod served;
mod sides;
mod throughput;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Map, Value, json};

use super::{MEND, PACKAGE};
use crate::cli::{EngineBenchArgs, EnginePart};
use crate::demo::cargo_in_tree;
use crate::failure::{Doing, Failure};
use crate::{cache, project, python, run, say, setup};
use sides::Sides;

/// Makes the models of [`throughput`] and [`served`].
const SCRIPT: &str = "benches/mlx_lm/make.py";
/// Below the cache.
const MODELS: &str = "bench";
/// Enough for a middle and a spread.
const ROUNDS: u32 = 3;

/// Turns that each side takes.
fn rounds(args: &EngineBenchArgs) -> u32 {
    if args.smoke {
        return 1;
    }
    args.rounds.unwrap_or(ROUNDS)
}

/// What a part found: for docs/figures.md, and for a script.
struct Found {
    table: String,
    json: Value,
}

pub(super) fn compare(args: &EngineBenchArgs) -> Result<(), Failure> {
    setup::ensure()?;
    let parts = [
        (EnginePart::Families, "families"),
        (EnginePart::Throughput, "throughput"),
        (EnginePart::Served, "served"),
    ];
    let machine = readme::machine();
    say::note(&machine);
    let mut all = Map::new();
    all.insert("machine".to_owned(), json!(machine));
    let mut models = None;
    for (part, name) in parts {
        if !(args.only.is_empty() || args.only.contains(&part)) {
            continue;
        }
        say::heading(&format!("{name}, beside mlx-lm"));
        if models.is_none() && part != EnginePart::Families {
            models = Some((made_models()?, sides()?));
        }
        let found = match (part, &models) {
            (EnginePart::Throughput, Some((models, sides))) => {
                throughput::measure(models, sides, args)?
            }
            (EnginePart::Served, Some((models, sides))) => served::measure(models, sides, args)?,
            (EnginePart::Families | EnginePart::Throughput | EnginePart::Served, _) => {
                families::measure()?
            }
        };
        println!("\n{}", found.table);
        if !args.smoke {
            readme::replace(name, &found.table, &machine)?;
        }
        all.insert(name.to_owned(), found.json);
    }
    if let Some(path) = &args.json {
        let text = format!("{:#}\n", Value::Object(all));
        fs::write(path, text).doing(format!("write {}", path.display()), "name another file")?;
    }
    Ok(())
}

pub(super) fn made_models() -> Result<PathBuf, Failure> {
    cache::made(
        MODELS,
        SCRIPT,
        &[],
        "mlx-lm makes two random models",
        &python::MLX_LM,
    )
}

/// Builds ours and finds the other.
fn sides() -> Result<Sides, Failure> {
    say::heading("build cereus and the benches");
    let mut command = cargo_in_tree("build");
    command.args(["--release", "--package", "cereus", "--bin", "cereus"]);
    command.args(["--package", PACKAGE, "--features", "cereus-benches/engine"]);
    command.args(["--bin", "throughput", "--bin", "served"]);
    run::openly(MEND, &mut command)?;
    Sides::find(project::target()?.join("release"))
}

/// So much of a command's standard output as it prints, line by line.
fn lines(command: &mut Command) -> Result<Vec<Value>, Failure> {
    let text = run::answer("read the message above", command)?;
    let line = run::line(command);
    text.lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .doing(format!("read what `{line}` prints"), "run it by itself")
}

/// The value in the middle, the least and the greatest.
#[derive(Clone, Copy)]
struct Spread {
    middle: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        assert!(!values.is_empty(), "there is at least one round");
        values.sort_by(f64::total_cmp);
        Self {
            middle: f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]),
            least: values[0],
            most: values[values.len() - 1],
        }
    }

    /// As a ratio: `4.2x (4.0 to 4.4)`.
    fn ratio(self) -> String {
        let Self {
            middle,
            least,
            most,
        } = self;
        format!("{middle:.2}x ({least:.2} to {most:.2})")
    }
}

/// Of sorted values.
fn at_percent(sorted: &[f64], percent: usize) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted
        .get((last * percent).div_ceil(100))
        .copied()
        .unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_told_by_its_middle_and_its_ends() {
        let spread = Spread::of(vec![3.0, 1.0, 2.0]);
        assert_eq!(spread.ratio(), "2.00x (1.00 to 3.00)");
        let spread = Spread::of(vec![2.0, 1.0]);
        assert_eq!(spread.ratio(), "1.50x (1.00 to 2.00)");
    }

    #[test]
    fn the_highest_percentile_of_few_values_is_the_greatest() {
        assert_eq!(
            at_percent(&[1.0, 2.0, 3.0, 4.0], 99).to_bits(),
            4.0_f64.to_bits()
        );
        assert_eq!(at_percent(&[1.0], 50).to_bits(), 1.0_f64.to_bits());
    }
}
