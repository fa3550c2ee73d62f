//! `cereus-sim liars --seeds N`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use cereus_sim::liars::{Lie, Plan, Plant, Tally, run_plan};

use super::worlds::{Seeds, named, report_failure};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    seeds: Seeds,
    /// Takes a defence away, to see that it is missed. Ends well when it is.
    #[arg(long, value_parser = named(Plant::ALL, Plant::name))]
    plant: Option<Plant>,
    /// All liars lie in this way alone.
    #[arg(long, value_parser = named(Lie::ALL, Lie::name))]
    lie: Option<Lie>,
    /// Prints what each seed decided.
    #[arg(long)]
    plans: bool,
    /// Goes on after a world that breaks a law, and counts them.
    #[arg(long)]
    keep_going: bool,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let began = Instant::now();
    let bar = args.seeds.bar();
    let mut sum = Tally::default();
    let mut failed = 0u64;
    for seed in args.seeds.range() {
        let plan = match args.lie {
            Some(lie) => Plan::only(seed, lie),
            None => Plan::draw(seed),
        };
        if args.plans {
            println!("{plan:#?}");
        }
        match run_plan(&plan, args.plant) {
            Ok(tally) => sum.add(&tally),
            Err(failure) if args.keep_going => {
                println!("{failure}");
                failed += 1;
            }
            Err(failure) => {
                bar.finish_and_clear();
                return report_failure("liars", args.plant.map(Plant::name), &failure);
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    print(args, &sum, failed, began.elapsed());
    if let Some(plant) = args.plant {
        eprintln!("nobody missed what {} takes away", plant.name());
        return ExitCode::FAILURE;
    }
    if failed > 0 {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn print(args: &Args, sum: &Tally, failed: u64, took: Duration) {
    println!("seeds          {}, {failed} failed", args.seeds);
    println!(
        "requests       {}: {} answered, {} refused, {} broken off by liars",
        sum.requests, sum.answered, sum.refused, sum.broken
    );
    println!(
        "lies           {} by {} liars, of {} attempts",
        sum.lies, sum.liars, sum.attempts
    );
    let ppm = sum.late_lies * 1_000_000 / sum.late_attempts.max(1);
    println!(
        "late           a liar's share is {ppm} of a million attempts, {} of a thousand at most",
        sum.worst_permille
    );
    println!("work           {} core steps", sum.steps);
    println!("digest         {:032x}", sum.digest);
    println!("took           {:.1} s", took.as_secs_f64());
}
