//! `cereus-sim sweep TRACE`.

use std::error::Error;
use std::process::ExitCode;

use cereus_sim::study::{Goal, Interval, Sizing, Unit};
use cereus_sim::world::config::MACHINES_MAX;
use serde_json::json;

use super::options::{Choice, Options, Ppm, choice_name};
use super::several::{Several, bar};
use super::trace::Trace;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
    cargo xtask sim sweep azure.csv
        how few machines of the usual mix serve 95 % of these requests within the objective
    cargo xtask sim sweep azure.csv --fleet m4-max/128:1 --goal 0.99 --speedup 2
        the same of one kind, for twice the users and a stricter goal
    cargo xtask sim sweep azure.csv --ttft-p99-ms 8000 --policy two-choices
        by the time to the first token of 99 in 100 that were answered, with another policy

A fleet is good enough when the mean over the seeds reaches the goal. In brackets stand the smallest fleet
whose interval reaches the goal at all, and the smallest whose whole interval does. The size is found by halving,
starting at --machines, and its neighbours are tried too: with few machines the rounding of a mix can make
a larger fleet a slower one, which is told.")]
pub(crate) struct Args {
    #[command(flatten)]
    trace: Trace,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    several: Several,
    /// Which of the machines that could take a request gets it.
    #[arg(long, value_enum, default_value_t = Choice::Expected)]
    policy: Choice,
    /// The share of requests that must be served within the objective.
    #[arg(long, default_value = "0.95", value_parser = super::options::parse_ppm)]
    goal: Ppm,
    /// And the time to first token that 99 of 100 answers must have.
    #[arg(long)]
    ttft_p99_ms: Option<u32>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    match sweep(args) {
        Ok(found) => {
            print(args, &found);
            match found.smallest.machines {
                Some(_) => ExitCode::SUCCESS,
                None => ExitCode::FAILURE,
            }
        }
        Err(error) => {
            eprintln!("{}: {error}", args.trace.file.display());
            ExitCode::FAILURE
        }
    }
}

fn sweep(args: &Args) -> Result<Sizing, Box<dyn Error>> {
    let arrivals = args.trace.load()?;
    let config = args.options.config();
    config.check()?;
    let bar = bar(0);
    let found = args
        .several
        .sizing(&config, args.policy, goal(args), &arrivals, &bar)?;
    bar.finish_and_clear();
    Ok(found)
}

fn goal(args: &Args) -> Goal {
    Goal {
        goodput_ppm: args.goal.0,
        ttft_p99_us: args.ttft_p99_ms.map(|ms| u64::from(ms) * 1_000),
    }
}

fn text(unit: Unit, interval: Interval) -> String {
    let half = interval
        .half_width
        .map_or_else(|| "?".to_owned(), |half| unit.text(half));
    format!("{} +- {half}", unit.text(interval.mean))
}

fn print(args: &Args, found: &Sizing) {
    let Sizing {
        smallest,
        between,
        sizes,
    } = found;
    let goal = goal(args);
    if args.json {
        let sizes = sizes.iter().map(|size| {
            json!({
                "machines": size.machines,
                "is_good_enough": goal.is_met(size),
                "goodput_ppm": size.goodput.mean,
                "goodput_half_width_ppm": size.goodput.half_width,
                "ttft_p99_us": size.ttft_p99.mean,
                "ttft_p99_half_width_us": size.ttft_p99.half_width,
            })
        });
        let all = json!({
            "machines": smallest.machines,
            "machines_between": between.map(|(low, high)| [low, high]),
            "policy": choice_name(args.policy),
            "goal_ppm": args.goal.0,
            "ttft_p99_ms_max": args.ttft_p99_ms,
            "seeds": args.several.seeds().collect::<Vec<_>>(),
            "tried": sizes.collect::<Vec<_>>(),
            "not_good_enough_above": smallest.bad_above().collect::<Vec<_>>(),
        });
        println!("{all}");
        return;
    }
    println!(
        "{:>9}  {:>18}  {:>22}",
        "machines", "goodput %", "TTFT p99 ms"
    );
    for size in sizes {
        println!(
            "{:>9}  {:>18}  {:>22}  {}",
            size.machines,
            text(Unit::Ppm, size.goodput),
            text(Unit::Micros, size.ttft_p99),
            if goal.is_met(size) { "good enough" } else { "" }
        );
    }
    let sure = match between {
        Some((low, high)) => format!(" ({low} to {high} with 95 % confidence)"),
        None => String::new(),
    };
    match smallest.machines {
        Some(machines) => println!(
            "\n{machines} machines{sure} are the fewest that are good enough, with {} over {} seeds",
            choice_name(args.policy),
            args.several.seeds
        ),
        None => println!("\nno fleet of up to {MACHINES_MAX} machines is good enough"),
    }
    for machines in smallest.bad_above() {
        println!("{machines} are not, though they are more");
    }
}
