//! `cereus-sim swarm --seeds N`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use cereus_core::time::Tick;
use cereus_sim::oracle::Violation;
use cereus_sim::swarm::marks::Mark;
use cereus_sim::swarm::plan::{Only, Plan};
use cereus_sim::swarm::{Failure, Observer, Plant, Tally, Trial, run_seed};

use super::replay::show;
use super::worlds::{Seeds, named, report_failure};

/// From so many seeds on a run that found nothing shows first that it would have found something.
const CANARY_FROM: u64 = 1_000;
/// Seeds in which the canary must be found.
const CANARY_SEEDS: u64 = 50;

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
    /// Prints each event that the coordinator handled, with its effects.
    #[arg(long)]
    trace: bool,
    /// Leaves a part of each world alone, as `shrink` prints it: machines=, asks= and faults= list the
    /// numbers of what stays, without= names what goes.
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "PARTS"
    )]
    only: Only,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let began = Instant::now();
    // A panic is caught, and told with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let bar = args.seeds.bar();
    let mut sum = Tally::default();
    for seed in args.seeds.range() {
        if args.plans {
            let mut plan = Plan::draw(seed);
            plan.keep(&args.only);
            println!("{plan:#?}");
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
    if args.plant.is_none() && args.seeds.count() >= CANARY_FROM && !is_canary_found() {
        eprintln!("FAILED the oracles are blind: a piece of an answer was lost and nobody noticed");
        return ExitCode::FAILURE;
    }
    print(args, &sum, began.elapsed());
    if let Some(plant) = args.plant {
        eprintln!("the planted bug {} went unnoticed", plant.name());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Whether a bug that nearly every world shows is noticed.
fn is_canary_found() -> bool {
    (0..CANARY_SEEDS).any(|seed| run_seed(seed, Some(Plant::DroppedChunk)).is_err())
}

fn one(args: &Args, seed: u64) -> Result<Tally, Box<Failure>> {
    let trial = Trial {
        plant: args.plant,
        only: args.only.clone(),
        observer: args.trace.then_some(show as Observer),
        ..Trial::of(seed)
    };
    let tally = trial.run()?;
    if args.twice {
        let again = trial.run()?;
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
    print_marks(sum);
    println!("digest         {:032x}", sum.digest);
    let simulated_s = sum.simulated_us / 1_000_000;
    println!("simulated      {simulated_s} s");
    println!("took           {:.1} s", took.as_secs_f64());
}

/// Which rare branches were reached, the rarest first, and which were not.
fn print_marks(sum: &Tally) {
    let mut reached: Vec<(u64, Mark)> = Mark::all()
        .map(|mark| (sum.marks.count(mark), mark))
        .filter(|(count, _)| *count > 0)
        .collect();
    reached.sort_unstable();
    println!("reached");
    for (count, mark) in reached {
        println!("  {count:>10}  {mark}");
    }
    let missing: Vec<Mark> = sum.marks.missing().collect();
    println!("never reached  {}", missing.len());
    for mark in missing {
        println!("              {mark}");
    }
}
