//! `cargo xtask test` and `cargo xtask ci`: one list of named stages, run in order, timed.
//!
//! A stage is added here and nowhere else: the list below is what `--list` prints, what CI runs
//! and what the closing table shows.

use std::io;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cli::StageArgs;
use crate::demo;
use crate::failure::Failure;
use crate::families::Prompts;
use crate::{families, numerics, project, run, say, setup, tidy};

/// Seeds of the swarm in every test run: a few seconds' worth. The full swarm is
/// `cargo xtask sim swarm --seeds 2000`.
const SWARM_SEEDS: &str = "200";
/// Worlds of liars in every test run, as long as the swarm takes, and at night.
const LIARS_SEEDS: &str = "100";
const LIARS_SEEDS_NIGHTLY: &str = "5000";
const SDK_SCRIPT: &str = "shells/cereus/tests/openai_sdk.py";
/// Rounds of the crash script in every test run; the full run is `cargo xtask kill9`.
const KILL9_ROUNDS: &str = "3";

/// Every stage that builds the whole workspace builds it with the same features, so that nothing is
/// compiled twice. The trainer and the benches bring the tensors with them.
pub(crate) const TENSORS: &[&str] = &["--features", "cereus-engine/train,cereus-benches/engine"];

struct Stage {
    name: &'static str,
    about: &'static str,
    /// Whether it needs MLX and the system's packages.
    needs_setup: bool,
    run: fn(Output) -> Result<Outcome, Failure>,
}

/// Where the output of a stage's programs goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Output {
    /// Standard output stays free for the summary.
    Aside,
    Plain,
}

enum Outcome {
    Passed,
    Skipped(&'static str),
}

/// What holds of the text, cheapest first.
const CHECKS: &[Stage] = &[
    Stage {
        name: "fmt",
        about: "cargo fmt --all --check",
        needs_setup: false,
        run: |output| {
            cargo(
                output,
                "fmt",
                &["--all", "--check"],
                "run `cargo fmt --all`",
            )
        },
    },
    Stage {
        name: "tidy",
        about: "the checks of `cargo xtask tidy`",
        needs_setup: false,
        run: |_| tidy::stage().map(|()| Outcome::Passed),
    },
    Stage {
        name: "clippy",
        about: "cargo clippy --workspace --all-targets, warnings denied",
        needs_setup: true,
        run: |output| {
            let workspace = [&["--workspace"], TENSORS].concat();
            clippy(output, &workspace)?;
            // Cargo leaves it out of all targets, because it is not run with all tests.
            let left_out = ["--test", families::TEST, "--", "-D", "warnings"];
            let words = [&workspace[..], &left_out].concat();
            cargo(output, "clippy", &words, "mend what clippy names")
        },
    },
    Stage {
        name: "pure",
        about: "the same for core, engine and sim alone, without the tensors",
        needs_setup: false,
        run: |output| {
            clippy(
                output,
                &[
                    "-p",
                    "cereus-core",
                    "-p",
                    "cereus-engine",
                    "-p",
                    "cereus-sim",
                ],
            )
        },
    },
    Stage {
        name: "fuzz",
        about: "format and clippy for the fuzz targets, which stand outside the workspace",
        needs_setup: false,
        run: |output| {
            let manifest = ["--manifest-path", "fuzz/Cargo.toml"];
            let format = [&manifest[..], &["--check"]].concat();
            cargo(
                output,
                "fmt",
                &format,
                "run `cargo fmt --manifest-path fuzz/Cargo.toml`",
            )?;
            // The same folder: most of what they need is there.
            clippy(
                output,
                &[&manifest[..], &["--target-dir", "target"]].concat(),
            )
        },
    },
    Stage {
        name: "doc",
        about: "cargo doc --workspace, warnings denied",
        needs_setup: true,
        run: |output| {
            let mut command = demo::cargo_in_tree("doc");
            command.args(["--workspace", "--no-deps"]).args(TENSORS);
            // Not RUSTFLAGS: those would rebuild every dependency.
            command.env("RUSTDOCFLAGS", "-D warnings");
            open(output, "mend what rustdoc names", command)
        },
    },
];

const TESTS: &[Stage] = &[
    Stage {
        name: "workspace",
        about: "cargo test --workspace: unit, property and simulated tests, real sockets, real MLX",
        needs_setup: true,
        run: |output| {
            let kinds = [
                "--workspace",
                "--no-fail-fast",
                "--lib",
                "--bins",
                "--tests",
                "--examples",
            ];
            cargo(
                output,
                "test",
                &[&kinds[..], TENSORS].concat(),
                "run the failing test alone: cargo test -p CRATE NAME",
            )
        },
    },
    Stage {
        name: "doctests",
        about: "cargo test --workspace --doc",
        needs_setup: true,
        run: |output| {
            cargo(
                output,
                "test",
                &[&["--workspace", "--doc"], TENSORS].concat(),
                "mend the example that failed",
            )
        },
    },
    Stage {
        name: "families",
        about: "every family of models beside mlx-lm: the same tokens, the same logits",
        needs_setup: true,
        run: |output| families(output, Prompts::Daily),
    },
    Stage {
        name: "numerics",
        about: "the numeric tests as on other CPUs, and with narrow vectors",
        needs_setup: true,
        run: |output| {
            for (machine, command) in numerics::tests() {
                say::note(&format!("as on {machine}"));
                open(
                    output,
                    "run it alone with the variable named above",
                    command,
                )?;
            }
            Ok(Outcome::Passed)
        },
    },
    Stage {
        name: "templates",
        about: "small templates, and whole ones in the manner of nine families, beside Jinja2 itself",
        needs_setup: true,
        run: |output| {
            open(
                output,
                "run engine/tests/templates/cases.py and read what changed",
                families::templates()?,
            )
        },
    },
    Stage {
        name: "swarm",
        about: "the simulated swarm on a few hundred seeds, oracles on",
        needs_setup: false,
        run: |output| {
            let mut command = demo::sim_command();
            command.args(["swarm", "--seeds", SWARM_SEEDS]);
            open(
                output,
                "repeat the failing seed with the command that it printed",
                command,
            )
        },
    },
    Stage {
        name: "liars",
        about: "worlds in which up to a third of the machines lie, oracles on",
        needs_setup: false,
        run: |output| liars(output, LIARS_SEEDS),
    },
    Stage {
        name: "demo",
        about: "cereus demo --once: one private answer and its receipt",
        needs_setup: true,
        run: |output| {
            let binary = demo::build_cereus_for_tests()?;
            let mut command = demo::demo_command(&binary, &demo::tiny_model()?);
            command.arg("--once");
            open(output, "run it alone: cargo xtask demo --once", command)
        },
    },
    Stage {
        name: "sdk",
        about: "the official openai Python package, unmodified, against a running coordinator",
        needs_setup: true,
        run: |output| script(output, SDK_SCRIPT, &[]),
    },
    Stage {
        name: "kill9",
        about: "a few rounds of kill -9 under load, then the books",
        needs_setup: true,
        run: |output| script(output, demo::KILL9_SCRIPT, &["--rounds", KILL9_ROUNDS]),
    },
];

/// What takes too long for every change.
const NIGHTLY: &[Stage] = &[
    Stage {
        name: "families-long",
        about: "every family beside mlx-lm on prompts over a block, a chunk and a window",
        needs_setup: true,
        run: |output| families(output, Prompts::Long),
    },
    Stage {
        name: "liars-long",
        about: "thousands of worlds in which up to a third of the machines lie",
        needs_setup: false,
        run: |output| liars(output, LIARS_SEEDS_NIGHTLY),
    },
];

pub(crate) fn test(args: &StageArgs) -> Result<(), Failure> {
    perform("test", &TESTS.iter().collect::<Vec<_>>(), args)
}

pub(crate) fn ci(args: &StageArgs) -> Result<(), Failure> {
    perform("ci", &CHECKS.iter().chain(TESTS).collect::<Vec<_>>(), args)
}

pub(crate) fn nightly(args: &StageArgs) -> Result<(), Failure> {
    perform("nightly", &NIGHTLY.iter().collect::<Vec<_>>(), args)
}

fn perform(command: &str, stages: &[&Stage], args: &StageArgs) -> Result<(), Failure> {
    if args.list {
        for stage in stages {
            println!("{:<13} {}", stage.name, stage.about);
        }
        return Ok(());
    }
    let chosen = choose(stages, &args.stages)?;
    let began = Instant::now();
    if chosen.iter().any(|stage| stage.needs_setup) {
        setup::ensure()?;
    }
    let output = if args.json {
        Output::Aside
    } else {
        Output::Plain
    };
    let mut rows: Vec<Row> = vec![];
    for stage in chosen {
        say::heading(&format!("{}: {}", stage.name, stage.about));
        let at = Instant::now();
        let result = (stage.run)(output);
        if let Err(failure) = &result {
            say::failure(failure);
        }
        let failed = result.is_err();
        rows.push(Row {
            name: stage.name,
            took: at.elapsed(),
            result,
        });
        if failed && !args.keep_going {
            break;
        }
    }
    report(&rows, began.elapsed(), args.json);
    let failed: Vec<&str> = rows
        .iter()
        .filter(|row| row.result.is_err())
        .map(|row| row.name)
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        format!("failed: {}", failed.join(", ")),
        format!(
            "mend it and run it alone: cargo xtask {command} {}",
            failed.join(" ")
        ),
    ))
}

/// The stages named, in the order of the list; all of them if none is named.
fn choose<'a>(stages: &[&'a Stage], names: &[String]) -> Result<Vec<&'a Stage>, Failure> {
    if let Some(unknown) = names
        .iter()
        .find(|name| stages.iter().all(|it| it.name != **name))
    {
        let known: Vec<&str> = stages.iter().map(|stage| stage.name).collect();
        return Err(Failure::new(
            format!("there is no stage named {unknown}"),
            format!("choose from: {}", known.join(", ")),
        ));
    }
    let wanted = |stage: &Stage| names.is_empty() || names.iter().any(|name| name == stage.name);
    Ok(stages
        .iter()
        .copied()
        .filter(|stage| wanted(stage))
        .collect())
}

struct Row {
    name: &'static str,
    took: Duration,
    result: Result<Outcome, Failure>,
}

fn report(rows: &[Row], took: Duration, as_json: bool) {
    say::heading(&format!("summary ({})", say::duration(took)));
    for row in rows {
        let line = format!("{:<13} {:>12}", row.name, say::duration(row.took));
        match &row.result {
            Ok(Outcome::Passed) => say::good(&line),
            Ok(Outcome::Skipped(why)) => say::note(&format!("{line}   skipped: {why}")),
            Err(_) => say::bad(&line),
        }
    }
    if !as_json {
        return;
    }
    let stages: Vec<_> = rows
        .iter()
        .map(|row| {
            let outcome = match &row.result {
                Ok(Outcome::Passed) => "passed",
                Ok(Outcome::Skipped(_)) => "skipped",
                Err(_) => "failed",
            };
            json!({ "name": row.name, "outcome": outcome, "seconds": row.took.as_secs_f64() })
        })
        .collect();
    println!(
        "{}",
        json!({ "seconds": took.as_secs_f64(), "stages": stages })
    );
}

fn liars(output: Output, seeds: &str) -> Result<Outcome, Failure> {
    let mut command = demo::sim_command();
    command.args(["liars", "--seeds", seeds]);
    open(
        output,
        "repeat the failing seed with the command that it printed",
        command,
    )
}

fn families(output: Output, prompts: Prompts) -> Result<Outcome, Failure> {
    open(
        output,
        "read which model differs above",
        families::test(prompts)?,
    )
}

fn clippy(output: Output, packages: &[&str]) -> Result<Outcome, Failure> {
    let words = [packages, &["--all-targets", "--", "-D", "warnings"]].concat();
    cargo(
        output,
        "clippy",
        &words,
        "mend what clippy names; `cargo clippy --fix` may help",
    )
}

fn cargo(output: Output, word: &str, args: &[&str], next: &str) -> Result<Outcome, Failure> {
    // `cargo fmt` takes its manifest its own way; standing in the tree serves them all.
    let mut command = project::cargo();
    command.current_dir(project::root()).arg(word).args(args);
    open(output, next, command)
}

fn open(output: Output, next: &str, mut command: Command) -> Result<Outcome, Failure> {
    if output == Output::Aside {
        command.stdout(io::stderr());
    }
    run::openly(next, &mut command)?;
    Ok(Outcome::Passed)
}

fn script(output: Output, path: &str, args: &[&str]) -> Result<Outcome, Failure> {
    let Ok(script) = demo::test_script(path) else {
        return Ok(Outcome::Skipped("its script is not in the tree"));
    };
    let binary = demo::build_cereus_for_tests()?;
    let mut command = demo::script_command(&script, &binary)?;
    command.args(args);
    open(output, "read what the script says above", command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_has_a_name_of_its_own() {
        let all = CHECKS.iter().chain(TESTS).chain(NIGHTLY);
        let mut names: Vec<&str> = all.map(|stage| stage.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn an_unknown_stage_is_refused_with_the_names_that_exist() {
        let all: Vec<&Stage> = TESTS.iter().collect();
        let failure = choose(&all, &["sdc".to_owned()])
            .err()
            .expect("no stage has that name");
        assert!(failure.what.contains("sdc"));
        assert!(failure.next.contains("sdk"));
    }

    #[test]
    fn chosen_stages_keep_the_order_of_the_list() {
        let all: Vec<&Stage> = TESTS.iter().collect();
        let names = ["sdk".to_owned(), "workspace".to_owned()];
        let chosen = choose(&all, &names).expect("both exist");
        let chosen: Vec<&str> = chosen.iter().map(|stage| stage.name).collect();
        assert_eq!(chosen, ["workspace", "sdk"]);
    }
}
