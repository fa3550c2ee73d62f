//! `cereus-sim report TRACE`.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use cereus_sim::page::Page;
use cereus_sim::study::{Comparison, Goal, rate_milli};
use cereus_sim::workload::Arrival;
use cereus_sim::world::Ran;
use cereus_sim::world::config::RunConfig;
use indicatif::ProgressBar;

use super::compare::scaled;
use super::options::{Choice, Options};
use super::several::{Several, bar};
use super::trace::Trace;

/// Of the capacity, or of the speed-up that was asked for where there is none.
const LOADS_PPM: [u64; 8] = [
    250_000, 500_000, 700_000, 850_000, 1_000_000, 1_150_000, 1_300_000, 1_500_000,
];

#[derive(Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
    cargo xtask sim report azure.csv --machines 60
        writes report.html: what 60 machines do for these users, beside the usual policy
    cargo xtask sim report azure.csv --machines 200 --speedup 3 --seeds 10 --out three.html
        three times as many users, with narrower intervals
    cargo xtask sim report mooncake.jsonl --machines 300 --slo-ttft-ms 60000 --against random --no-loads
        an objective for long prompts, against chance, without the runs under other loads
    cargo xtask sim report azure.csv --sweep --goal 0.99
        and how few machines of the mix are enough for 99 % of them, as `sweep` finds it

The page holds everything in itself: it needs no network and no script, and can be mailed.")]
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
    /// What it is compared with.
    #[arg(long, value_enum, default_value_t = Choice::LeastOutstanding)]
    against: Choice,
    /// The share of requests that must be served within the objective.
    #[arg(long, default_value = "0.95", value_parser = super::options::parse_ppm)]
    goal: super::options::Ppm,
    /// Looks for the smallest fleet of this mix that meets the objective, and says how sure that is.
    #[arg(long)]
    sweep: bool,
    /// And what the first token of 99 of 100 answers may take in that fleet.
    #[arg(long, requires = "sweep")]
    ttft_p99_ms: Option<u32>,
    /// Leaves out the capacity and the runs under other loads.
    #[arg(long)]
    no_loads: bool,
    /// Where the page is written.
    #[arg(long, default_value = "report.html", value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let page = match page(args) {
        Ok(page) => page,
        Err(error) => {
            eprintln!("{}: {error}", args.trace.file.display());
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = fs::write(&args.out, page.html()) {
        eprintln!("{}: {error}", args.out.display());
        return ExitCode::FAILURE;
    }
    println!("{}", page.comparison);
    println!("wrote {}", args.out.display());
    ExitCode::SUCCESS
}

fn page(args: &Args) -> Result<Page, Box<dyn Error>> {
    let arrivals = args.trace.load()?;
    let config = args.options.config();
    config.check()?;
    let mut policies = vec![args.policy];
    if args.against != args.policy {
        policies.push(args.against);
    }
    let seeds = args.several.seeds().count();
    let loads = if args.no_loads { 0 } else { LOADS_PPM.len() };
    let few = args.several.capacity_seeds().count();
    let bar = bar(policies.len() * (seeds + 1 + loads * few));
    let comparison = args.several.contest(&config, &policies, &arrivals, &bar)?;
    let of_first_seed = policies.iter();
    let of_first_seed = of_first_seed.map(|choice| choice.world(args.several.seed, &config));
    let of_first_seed: Vec<RunConfig> = of_first_seed.collect();
    let runs: Vec<Ran> = args
        .several
        .run(&of_first_seed, &arrivals, &bar, |ran| ran)?;
    let mut loads = Vec::new();
    let mut capacity_milli = None;
    if !args.no_loads {
        let capacity_ppm = args.several.capacity(&config, &arrivals, &bar).ok();
        capacity_milli = capacity_ppm.map(|ppm| rate_milli(&arrivals, ppm));
        let full_ppm = capacity_ppm.unwrap_or(config.speedup_ppm);
        loads = under_loads(args, &config, full_ppm, &policies, &arrivals, &bar)?;
    }
    let mut sizing = None;
    if args.sweep {
        let goal = Goal {
            goodput_ppm: args.goal.0,
            ttft_p99_us: args.ttft_p99_ms.map(|ms| u64::from(ms) * 1_000),
        };
        let found = args
            .several
            .sizing(&config, args.policy, goal, &arrivals, &bar)?;
        sizing = Some((goal, found));
    }
    bar.finish_and_clear();
    Ok(Page {
        command: command(),
        trace: args.trace.file.display().to_string(),
        requests: arrivals.len() as u64,
        config,
        goal_ppm: args.goal.0.min(1_000_000),
        comparison,
        runs,
        loads,
        capacity_milli,
        sizing,
    })
}

fn under_loads(
    args: &Args,
    config: &RunConfig,
    full_ppm: u64,
    policies: &[Choice],
    arrivals: &[Arrival],
    bar: &ProgressBar,
) -> Result<Vec<Comparison>, Box<dyn Error>> {
    bar.set_message("under other loads");
    let few = Several {
        seeds: args.several.capacity_seeds().count() as u64,
        ..args.several
    };
    let mut loads = Vec::new();
    for share_ppm in LOADS_PPM {
        let under = RunConfig {
            speedup_ppm: scaled(full_ppm, share_ppm),
            ..config.clone()
        };
        loads.push(few.contest(&under, policies, arrivals, bar)?);
    }
    Ok(loads)
}

/// What was typed, as far as it can be typed again.
fn command() -> String {
    let words = std::env::args().skip(1);
    let words = words.map(|word| match word.contains(char::is_whitespace) {
        true => format!("'{word}'"),
        false => word,
    });
    format!("cargo xtask sim {}", words.collect::<Vec<_>>().join(" "))
}
