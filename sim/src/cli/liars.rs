//! `cereus-sim liars --seeds N`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use cereus_sim::liars::{Lie, Plan, Plant, Tally, run_plan};
use cereus_sim::swarm::Failure;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::swarm::bar;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many worlds.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first seed; the others follow it.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Takes a defence away, to see that it is missed. Ends well when it is.
    #[arg(long, value_parser = plants())]
    plant: Option<Plant>,
    /// All liars lie in this way alone.
    #[arg(long, value_parser = lies())]
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
    let bar = bar(args.seeds);
    let mut sum = Tally::default();
    let mut failed = 0u64;
    for seed in args.seed..args.seed.saturating_add(args.seeds) {
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
                return report_failure(args, &failure);
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

fn report_failure(args: &Args, failure: &Failure) -> ExitCode {
    if let Some(plant) = args.plant {
        println!("planted {}: found. {failure}", plant.name());
        return ExitCode::SUCCESS;
    }
    eprintln!("FAILED {failure}");
    eprintln!(
        "repeat it with: cargo xtask sim liars --seed {} --seeds 1",
        failure.seed
    );
    ExitCode::FAILURE
}

fn print(args: &Args, sum: &Tally, failed: u64, took: Duration) {
    println!(
        "seeds          {} from {}, {failed} failed",
        args.seeds, args.seed
    );
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

fn plants() -> impl TypedValueParser<Value = Plant> {
    PossibleValuesParser::new(Plant::ALL.map(Plant::name)).map(|name| {
        let found = Plant::ALL.into_iter().find(|it| it.name() == name);
        found.expect("only these names are taken")
    })
}

fn lies() -> impl TypedValueParser<Value = Lie> {
    PossibleValuesParser::new(Lie::ALL.map(Lie::name)).map(|name| {
        let found = Lie::ALL.into_iter().find(|it| it.name() == name);
        found.expect("only these names are taken")
    })
}
