//! `cereus-sim bisect runs TRACE` and `cereus-sim bisect journals A B`.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cereus_sim::record::{Watch, digest_of, first_difference, show};
use cereus_sim::workload::Arrival;
use cereus_sim::world::World;
use cereus_sim::world::config::RunConfig;

use super::options::{Choice, Options, choice_name};
use super::trace::Trace;

/// Steps that both have in common and that are shown before the first that differs.
const BEFORE: usize = 2;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
    cargo xtask sim bisect runs azure.csv --machines 60 --other-policy random
        the first event after which the coordinator decides otherwise by chance
    cargo xtask sim bisect runs azure.csv --machines 60 --seed 1 --other-seed 1
        nothing, or the simulator is broken
    cargo xtask sim bisect journals before.journal after.journal
        where two recordings of a coordinator part

Both are compared step by step: the moment, the event, and every effect that it had. It ends with 0 where
nothing differs, and with 1 where something does.")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Two runs of a trace, with two policies or two seeds.
    Runs(Runs),
    /// Two journals that coordinators recorded.
    Journals { one: PathBuf, other: PathBuf },
}

#[derive(Debug, clap::Args)]
struct Runs {
    #[command(flatten)]
    trace: Trace,
    #[command(flatten)]
    options: Options,
    /// The seed of the first run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The policy of the first run.
    #[arg(long, value_enum, default_value_t = Choice::Expected)]
    policy: Choice,
    /// The seed of the second; the first's where none is given.
    #[arg(long)]
    other_seed: Option<u64>,
    /// The policy of the second; the first's where none is given.
    #[arg(long, value_enum)]
    other_policy: Option<Choice>,
}

/// What two of a kind came to.
struct Found {
    names: [String; 2],
    steps: [usize; 2],
    /// The number of the first step that differs, and what both did there and before.
    parted: Option<(usize, [Vec<String>; 2])>,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let found = match &args.what {
        What::Runs(runs) => bisect_runs(runs),
        What::Journals { one, other } => bisect_journals(one, other),
    };
    match found {
        Ok(found) => print(&found),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn bisect_runs(runs: &Runs) -> Result<Found, Box<dyn Error>> {
    let name = |error: Box<dyn Error>| format!("{}: {error}", runs.trace.file.display());
    let arrivals = runs.trace.load().map_err(name)?;
    let base = runs.options.config();
    let pairs = [
        (runs.policy, runs.seed),
        (
            runs.other_policy.unwrap_or(runs.policy),
            runs.other_seed.unwrap_or(runs.seed),
        ),
    ];
    let configs = pairs.map(|(policy, seed)| policy.world(seed, &base));
    let mut digests = Vec::new();
    for config in &configs {
        let watch = watched(config, &arrivals, Watch::Digests(Vec::new()))?;
        let Watch::Digests(of_one) = watch else {
            unreachable!("it was asked for digests");
        };
        digests.push(of_one);
    }
    let names = pairs.map(|(policy, seed)| format!("{}, seed {seed}", choice_name(policy)));
    let steps = [digests[0].len(), digests[1].len()];
    let parted = match first_difference(&digests[0], &digests[1]) {
        None => None,
        Some(at) => {
            let wanted = at.saturating_sub(BEFORE) as u64..at as u64 + 1;
            let mut shown: [Vec<String>; 2] = Default::default();
            for (config, shown) in configs.iter().zip(&mut shown) {
                let watch = watched(config, &arrivals, Watch::shown(wanted.clone()))?;
                let Watch::Shown { lines, .. } = watch else {
                    unreachable!("it was asked for lines");
                };
                *shown = lines;
            }
            Some((at, shown))
        }
    };
    Ok(Found {
        names,
        steps,
        parted,
    })
}

fn watched(
    config: &RunConfig,
    arrivals: &[Arrival],
    watch: Watch,
) -> Result<Watch, Box<dyn Error>> {
    let world = World::new(config.clone(), arrivals.iter().cloned().map(Ok))?;
    Ok(world.watching(watch).run_recorded(|_| {})?.watch)
}

fn bisect_journals(one: &Path, other: &Path) -> Result<Found, Box<dyn Error>> {
    let files = [one, other];
    let mut digests = Vec::new();
    for file in files {
        let mut of_one = Vec::new();
        replayed(file, |ix, step| {
            assert_eq!(ix, of_one.len(), "steps are counted");
            of_one.push(step.digest);
        })?;
        digests.push(of_one);
    }
    let parted = match first_difference(&digests[0], &digests[1]) {
        None => None,
        Some(at) => {
            let mut shown: [Vec<String>; 2] = Default::default();
            for (file, shown) in files.into_iter().zip(&mut shown) {
                replayed(file, |ix, step| {
                    if (at.saturating_sub(BEFORE)..=at).contains(&ix) {
                        shown.push((step.text)());
                    }
                })?;
            }
            Some((at, shown))
        }
    };
    Ok(Found {
        names: files.map(|file| file.display().to_string()),
        steps: [digests[0].len(), digests[1].len()],
        parted,
    })
}

/// One step of a journal.
struct Step<'a> {
    digest: u64,
    text: &'a dyn Fn() -> String,
}

fn replayed(file: &Path, mut each: impl FnMut(usize, Step<'_>)) -> Result<(), Box<dyn Error>> {
    let name = |error: &dyn Error| format!("{}: {error}", file.display());
    let bytes = fs::read(file).map_err(|error| name(&error))?;
    let mut ix = 0;
    cereus_sim::replay::replay(&bytes, |at, event, effects| {
        let text = || show(at, event, effects);
        let digest = digest_of(at, event, effects);
        each(
            ix,
            Step {
                digest,
                text: &text,
            },
        );
        ix += 1;
    })
    .map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(())
}

fn print(found: &Found) -> ExitCode {
    let [one, other] = &found.names;
    let Some((at, shown)) = &found.parted else {
        println!(
            "the same: {} steps of {one}, and of {other}",
            found.steps[0]
        );
        return ExitCode::SUCCESS;
    };
    println!(
        "they part at step {at}, of {} and {}\n",
        found.steps[0], found.steps[1]
    );
    let common = (*at).min(BEFORE);
    for line in shown[0].iter().take(common) {
        println!("  both  {line}");
    }
    for (name, lines) in [one, other].into_iter().zip(shown) {
        match lines.get(common) {
            Some(line) => println!("\n{name}:\n{line}"),
            None => println!("\n{name}: ends before"),
        }
    }
    ExitCode::FAILURE
}
