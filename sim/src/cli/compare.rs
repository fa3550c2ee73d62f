//! `cereus-sim compare TRACE`.

use std::error::Error;
use std::process::ExitCode;

use cereus_sim::study::{Comparison, GOODPUT_KEPT_PPM, rate_milli};
use cereus_sim::world::config::RunConfig;
use serde_json::json;

use super::options::{Choice, Options, Ppm, choice_name};
use super::several::{Several, bar};
use super::trace::Trace;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
    cargo xtask sim compare azure.csv --machines 60
        every policy at the speed of the trace, over five seeds
    cargo xtask sim compare azure.csv --machines 60 --load 0.5,0.8,0.95 --policies random,two-choices
        at shares of what the fleet can take; our own policy is always among them
    cargo xtask sim compare azure.csv --machines 60 --seeds 10 --json | jq '.loads[0].policies[1].measures'
        for a script; times in microseconds, shares in a million

Each policy runs with the same seeds: the same arrivals, fleet and draws. The upper table has the median
of the seeds. The lower has the mean of the differences, seed by seed, and its 95 % interval by
Student's t: a difference larger than its interval is more than chance. `busiest` is the time of the
busiest machine over the mean of its kind; `least` is the work of the machine with the fewest requests
over that of the one with the most.

The capacity of a fleet is how fast the arrivals may come until our own policy serves less than 95 % of what
it serves within the objective when they come fifty times slower, found by bisection to within 2 %.")]
pub(crate) struct Args {
    #[command(flatten)]
    trace: Trace,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    several: Several,
    /// Which policies; all where none is named.
    #[arg(long, value_enum, value_delimiter = ',')]
    policies: Vec<Choice>,
    /// Shares of the fleet's capacity, which is measured first.
    #[arg(long, value_delimiter = ',', value_parser = super::options::parse_ppm, conflicts_with = "speedup")]
    load: Vec<Ppm>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    match compare(args) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", args.trace.file.display());
            ExitCode::FAILURE
        }
    }
}

/// What a load is, and the speed-up that makes it.
struct Load {
    share_ppm: Option<u64>,
    speedup_ppm: u64,
}

fn compare(args: &Args) -> Result<String, Box<dyn Error>> {
    let arrivals = args.trace.load()?;
    let config = args.options.config();
    config.check()?;
    let policies = policies(&args.policies);
    let bar = bar(policies.len() * args.load.len().max(1) * args.several.seeds().count());
    let mut loads = vec![Load {
        share_ppm: None,
        speedup_ppm: config.speedup_ppm,
    }];
    let mut capacity_ppm = None;
    if !args.load.is_empty() {
        let found = args.several.capacity(&config, &arrivals, &bar)?;
        capacity_ppm = Some(found);
        let of = |share: &Ppm| Load {
            share_ppm: Some(share.0),
            speedup_ppm: scaled(found, share.0),
        };
        loads = args.load.iter().map(of).collect();
    }
    bar.set_message("");
    let mut comparisons = Vec::new();
    for load in &loads {
        let under = RunConfig {
            speedup_ppm: load.speedup_ppm,
            ..config.clone()
        };
        let contest = args.several.contest(&under, &policies, &arrivals, &bar)?;
        comparisons.push(Comparison {
            load_ppm: load.share_ppm,
            ..contest
        });
    }
    bar.finish_and_clear();
    let capacity = capacity_ppm.map(|ppm| (ppm, rate_milli(&arrivals, ppm)));
    Ok(match args.json {
        true => json_of(args, &config, capacity, &comparisons),
        false => text_of(args, &config, capacity, &comparisons),
    })
}

/// Ours first, then those that are asked for.
fn policies(asked: &[Choice]) -> Vec<Choice> {
    let mut policies = vec![Choice::default()];
    let all = <Choice as clap::ValueEnum>::value_variants();
    let asked = if asked.is_empty() { all } else { asked };
    for &choice in asked {
        if !policies.contains(&choice) {
            policies.push(choice);
        }
    }
    policies
}

pub(super) fn scaled(ppm: u64, share_ppm: u64) -> u64 {
    let scaled = u128::from(ppm) * u128::from(share_ppm) / 1_000_000;
    u64::try_from(scaled).unwrap_or(u64::MAX).max(1)
}

fn text_of(
    args: &Args,
    config: &RunConfig,
    capacity: Option<(u64, u64)>,
    comparisons: &[Comparison],
) -> String {
    let kinds = config.census();
    let kinds = kinds.iter().map(|(kind, count)| format!("{count} {kind}"));
    let mut text = format!(
        "trace          {}\nfleet          {} machines: {}\nmodel          {}\nobjective      TTFT <= {} ms, TPOT <= {} ms\nseeds          {} from {}\n",
        args.trace.file.display(),
        config.machines,
        kinds.collect::<Vec<_>>().join(", "),
        config.model_names(),
        config.slo.ttft.as_millis_floor(),
        config.slo.tpot.as_millis_floor(),
        args.several.seeds,
        args.several.seed,
    );
    if let Some((ppm, rate_milli)) = capacity {
        text += &format!(
            "capacity       {}.{:03} requests/s, {}.{:03} times the trace's: set by {}, {} % of what an idle fleet serves within the objective, mean of {} seeds\n",
            rate_milli / 1_000,
            rate_milli % 1_000,
            ppm / 1_000_000,
            ppm / 1_000 % 1_000,
            choice_name(Choice::default()),
            GOODPUT_KEPT_PPM / 10_000,
            args.several.capacity_seeds().count(),
        );
    }
    for comparison in comparisons {
        text += &format!("\n{comparison}");
    }
    text.trim_end().to_owned()
}

fn json_of(
    args: &Args,
    config: &RunConfig,
    capacity: Option<(u64, u64)>,
    comparisons: &[Comparison],
) -> String {
    let capacity = capacity.map(|(speedup_ppm, rate_milli)| {
        json!({
            "speedup_ppm": speedup_ppm,
            "rate_milli": rate_milli,
            "policy": choice_name(Choice::default()),
            "goodput_kept_ppm": GOODPUT_KEPT_PPM,
            "seeds": args.several.capacity_seeds().collect::<Vec<_>>(),
        })
    });
    let all = json!({
        "trace": args.trace.file.display().to_string(),
        "machines": config.machines,
        "fleet": config.census(),
        "model": config.model_names(),
        "slo_ttft_us": config.slo.ttft.0,
        "slo_tpot_us": config.slo.tpot.0,
        "seeds": args.several.seeds().collect::<Vec<_>>(),
        "capacity": capacity,
        "loads": comparisons.iter().map(Comparison::json).collect::<Vec<_>>(),
    });
    all.to_string()
}
