//! `cereus-sim explain TRACE REQUEST`.

use std::error::Error;
use std::process::ExitCode;

use cereus_core::time::Tick;
use cereus_sim::world::{Explained, World};

use super::options::{Choice, Options};
use super::trace::Trace;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
    cargo xtask sim explain azure.csv 4711 --machines 60
        why the trace's request 4711, counted from 0, goes where it goes
    cargo xtask sim run azure.csv --machines 60 --csv rows.csv
        which requests there are: the number is the first column, the machine the seventh

The costs are those that the coordinator itself compares at that moment; nothing is computed again for
people. A policy that compares no costs names its pick alone. Connection N is machine N - 1.")]
pub(crate) struct Args {
    #[command(flatten)]
    trace: Trace,
    /// The number of the request in the trace, from 0, or its id in this run.
    #[arg(value_parser = parse_number)]
    request: u64,
    #[command(flatten)]
    options: Options,
    /// What chance draws from: the order of the fleet, the links, what is told.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Which of the machines that could take a request gets it.
    #[arg(long, value_enum, default_value_t = Choice::Expected)]
    policy: Choice,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    match explain(args) {
        Ok(explained) => {
            print(&explained);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", args.trace.file.display());
            ExitCode::FAILURE
        }
    }
}

fn explain(args: &Args) -> Result<Explained, Box<dyn Error>> {
    let arrivals = args.trace.load()?;
    let config = args.policy.world(args.seed, &args.options.config());
    let world = World::new(config, arrivals.iter().cloned().map(Ok))?;
    let explained = world.explain(args.request)?;
    let count = arrivals.len();
    explained.ok_or_else(|| {
        format!(
            "the trace has {count} requests, numbered from 0: none is {}",
            args.request
        )
        .into()
    })
}

fn print(explained: &Explained) {
    let row = &explained.row;
    let since = |at: Tick| format!("{} ms", at.since(row.sent_at).as_millis_floor());
    println!(
        "sent at {}.{:03} s, heard of after {}\n",
        row.sent_at.0 / 1_000_000,
        row.sent_at.0 / 1_000 % 1_000,
        since(explained.at)
    );
    println!("{}", explained.explanation);
    match (row.machine, row.dispatched_at, &explained.kind) {
        (Some(machine), Some(at), Some(kind)) => println!(
            "went to machine {machine} ({kind}) after {}, attempt {}; {} of {} prompt tokens were found there",
            since(at),
            row.attempts,
            row.cached_tokens,
            row.prompt_tokens
        ),
        _ => println!("went to no machine"),
    }
    match row.first_at {
        Some(first) => println!("first token after {}", since(first)),
        None => println!("no first token"),
    }
    println!(
        "{} {} after {}, {} tokens",
        row.outcome.name(),
        row.outcome.reason(),
        since(row.ended_at),
        row.output_tokens
    );
}

/// Ids end with the number of their request.
fn parse_number(text: &str) -> Result<u64, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let bits = u128::from_str_radix(&digits, 16).ok();
    let bits = bits.filter(|_| digits.len() == 32);
    let bits = bits.ok_or_else(|| format!("`{text}` is neither a number nor an id"))?;
    Ok(u64::try_from(bits & u128::from(u64::MAX)).expect("masked"))
}
