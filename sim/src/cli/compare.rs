//! `cereus-sim compare TRACE`.

use std::error::Error;
use std::process::ExitCode;

use cereus_sim::study::{Apart, Comparison, GOODPUT_KEPT_PPM, Unit, rate_milli};
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
    cargo xtask sim compare azure.csv --machines 200 --load 0.5,0.8,0.95 --seeds 10 --repeat
        figures to quote: medians of ten seeds, and whether ten other seeds say the same within 5 %

Each policy runs with the same seeds: the same arrivals, fleet and draws. The upper table has the median
of the seeds, and from six seeds on between which values it lies with 95 % confidence (`from`, `to`). The
lower has the mean of the differences, seed by seed, and its 95 % interval by
Student's t: a difference larger than its interval is more than chance. `busiest` is the time of the
busiest machine over the mean of its kind; `least` is the work of the machine with the fewest requests
over that of the one with the most.

`oracle` is ours in a world where all lengths and speeds are known beforehand: what knowing more would be
worth to it, and no bound for a policy that chooses otherwise.

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
    /// Runs as many seeds again, those that follow, and says by how much the medians of both sets differ:
    /// fails where times or goodput do by more than 5 %.
    #[arg(long)]
    repeat: bool,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// Two sets of seeds say the same where their medians differ by no more than this.
const APART_MAX_PPM: u64 = 50_000;

pub(crate) fn run(args: &Args) -> ExitCode {
    match compare(args) {
        Ok((text, agrees)) => {
            println!("{text}");
            match agrees {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            }
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

/// What is printed, and whether a second set of seeds agrees.
fn compare(args: &Args) -> Result<(String, bool), Box<dyn Error>> {
    let arrivals = args.trace.load()?;
    let config = args.options.config();
    config.check()?;
    let policies = policies(&args.policies);
    let sets = 1 + usize::from(args.repeat);
    let bar = bar(policies.len() * args.load.len().max(1) * args.several.seeds().count() * sets);
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
    let again = Several {
        seed: args.several.seed + args.several.seeds,
        ..args.several
    };
    let mut comparisons = Vec::new();
    let mut repeats = Vec::new();
    for load in &loads {
        let under = RunConfig {
            speedup_ppm: load.speedup_ppm,
            ..config.clone()
        };
        let contest = args.several.contest(&under, &policies, &arrivals, &bar)?;
        if args.repeat {
            let second = again.contest(&under, &policies, &arrivals, &bar)?;
            repeats.push(contest.apart(&second));
        }
        comparisons.push(Comparison {
            load_ppm: load.share_ppm,
            ..contest
        });
    }
    bar.finish_and_clear();
    let capacity = capacity_ppm.map(|ppm| (ppm, rate_milli(&arrivals, ppm)));
    let each = repeats.iter().flatten().flat_map(|apart| &apart.measures);
    let agrees = each.clone().all(|(_, ppm)| *ppm <= APART_MAX_PPM);
    let text = match args.json {
        true => json_of(args, &config, capacity, &comparisons, &repeats),
        false => text_of(args, &config, capacity, &comparisons, &repeats),
    };
    Ok((text, agrees))
}

/// How far the second set of seeds is from the first.
fn repeat_text(several: Several, repeat: &[Apart]) -> String {
    let first = several.seed + several.seeds;
    let mut text = format!(
        "seeds {first} to {} have medians that differ by so many percent:\n",
        first + several.seeds - 1
    );
    for apart in repeat {
        text += &format!("{:<18}", apart.policy);
        for (measure, ppm) in &apart.measures {
            let value = i64::try_from(*ppm).unwrap_or(i64::MAX);
            let [what, of] = measure.title();
            let what = match of {
                "%" => what.to_owned(),
                of => format!("{what} {}", of.trim_end_matches(" ms")),
            };
            let mark = if *ppm > APART_MAX_PPM { " !" } else { "" };
            text += &format!("  {what} {}{mark}", Unit::Ppm.text(value));
        }
        text += "\n";
    }
    text
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
    repeats: &[Vec<Apart>],
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
    for (ix, comparison) in comparisons.iter().enumerate() {
        text += &format!("\n{comparison}");
        if let Some(repeat) = repeats.get(ix) {
            text += &repeat_text(args.several, repeat);
        }
    }
    text.trim_end().to_owned()
}

fn json_of(
    args: &Args,
    config: &RunConfig,
    capacity: Option<(u64, u64)>,
    comparisons: &[Comparison],
    repeats: &[Vec<Apart>],
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
    let of = |apart: &Apart| {
        let measures = apart.measures.iter();
        let measures = measures.map(|(measure, ppm)| (measure.name().to_owned(), json!(ppm)));
        json!({
            "policy": apart.policy,
            "apart_ppm": measures.collect::<serde_json::Map<_, _>>(),
        })
    };
    let repeats: Vec<Vec<serde_json::Value>> = (repeats.iter())
        .map(|repeat| repeat.iter().map(of).collect())
        .collect();
    let all = json!({
        "repeats": repeats,
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
