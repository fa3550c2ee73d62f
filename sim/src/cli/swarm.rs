//! `cereus-sim swarm --seeds N`.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cereus_core::time::Tick;
use cereus_sim::oracle::Violation;
use cereus_sim::swarm::plan::Plan;
use cereus_sim::swarm::{Failure, Plant, Tally, run_seed};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use indicatif::{ProgressBar, ProgressStyle};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many worlds.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first seed; the others follow it.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Puts a bug in, to see that it is found. Ends well when it is.
    #[arg(long, value_parser = plants())]
    plant: Option<Plant>,
    /// Runs each world twice and compares.
    #[arg(long)]
    twice: bool,
    /// Prints what each seed decided.
    #[arg(long)]
    plans: bool,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let began = Instant::now();
    // A panic is caught, and told with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let bar = bar(args.seeds);
    let mut sum = Tally::default();
    for seed in args.seed..args.seed.saturating_add(args.seeds) {
        if args.plans {
            println!("{:#?}", Plan::draw(seed));
        }
        match one(args, seed) {
            Ok(tally) => sum.add(&tally),
            Err(failure) => {
                bar.finish_and_clear();
                return report_failure(args, &failure);
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    print(args, &sum, began.elapsed());
    if let Some(plant) = args.plant {
        eprintln!("the planted bug {} went unnoticed", plant.name());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn one(args: &Args, seed: u64) -> Result<Tally, Box<Failure>> {
    let tally = run_seed(seed, args.plant)?;
    if args.twice {
        let again = run_seed(seed, args.plant)?;
        if tally != again {
            return Err(Box::new(Failure {
                seed,
                at: Tick::ZERO,
                violation: Violation {
                    law: "INV-18",
                    what: format!("two runs of one seed differ: {tally:?} and {again:?}"),
                },
            }));
        }
    }
    Ok(tally)
}

fn report_failure(args: &Args, failure: &Failure) -> ExitCode {
    if let Some(plant) = args.plant {
        println!("planted {}: found. {failure}", plant.name());
        return ExitCode::SUCCESS;
    }
    eprintln!("FAILED {failure}");
    eprintln!(
        "repeat it with: cargo xtask sim swarm --seed {} --seeds 1",
        failure.seed
    );
    ExitCode::FAILURE
}

fn print(args: &Args, sum: &Tally, took: Duration) {
    println!("seeds          {} from {}, clean", args.seeds, args.seed);
    println!(
        "requests       {} answered, {} refused, {} broken off, {} left, {} reset",
        sum.answered, sum.refused, sum.broken, sum.left, sum.reset
    );
    println!(
        "work           {} events, {} frames, {} core steps, {} faults, {} stale events",
        sum.events, sum.frames, sum.core_steps, sum.faults, sum.stale_events
    );
    println!(
        "skipped        {} planned actions found no object",
        sum.skipped
    );
    println!("digest         {:032x}", sum.digest);
    println!("took           {:.1} s", took.as_secs_f64());
}

pub(super) fn bar(seeds: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} seeds, {eta} left");
    ProgressBar::new(seeds).with_style(style.expect("the template is well formed"))
}

fn plants() -> impl TypedValueParser<Value = Plant> {
    PossibleValuesParser::new(Plant::ALL.map(Plant::name)).map(|name| {
        let found = Plant::ALL.into_iter().find(|it| it.name() == name);
        found.expect("only these names are taken")
    })
}
