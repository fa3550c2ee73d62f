//! `cereus-sim swarm --seeds N`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use cereus_core::time::Tick;
use cereus_sim::oracle::Violation;
use cereus_sim::swarm::plan::Plan;
use cereus_sim::swarm::{Failure, Plant, Tally, run_seed};

use super::worlds::{Seeds, named, report_failure};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    seeds: Seeds,
    /// Puts a bug in, to see that it is found. Ends well when it is.
    #[arg(long, value_parser = named(Plant::ALL, Plant::name))]
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
    let bar = args.seeds.bar();
    let mut sum = Tally::default();
    for seed in args.seeds.range() {
        if args.plans {
            println!("{:#?}", Plan::draw(seed));
        }
        match one(args, seed) {
            Ok(tally) => sum.add(&tally),
            Err(failure) => {
                bar.finish_and_clear();
                return report_failure("swarm", args.plant.map(Plant::name), &failure);
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

fn print(args: &Args, sum: &Tally, took: Duration) {
    println!("seeds          {}, clean", args.seeds);
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
