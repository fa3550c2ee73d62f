//! `cereus-sim shrink SEED`.

use std::process::ExitCode;

use cereus_core::time::Tick;
use cereus_sim::swarm::Plant;
use cereus_sim::swarm::plan::{Only, Plan};
use cereus_sim::swarm::shrink::{Shrunk, shrink};

use super::worlds::named;

/// Examples:
///   cereus-sim shrink 2473
///   cereus-sim shrink 12 --plant reads-over-holes
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// A seed whose world breaks a law.
    seed: u64,
    /// Puts a bug in first.
    #[arg(long, value_parser = named(Plant::ALL, Plant::name))]
    plant: Option<Plant>,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    // A panic is caught, and told with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let mut look = |only: &Only| eprintln!("still fails with: {only}");
    match shrink(args.seed, args.plant, &mut look) {
        Some(shrunk) => {
            print(args, &shrunk);
            ExitCode::SUCCESS
        }
        None => {
            eprintln!(
                "seed {} breaks no law, so there is nothing to shrink",
                args.seed
            );
            ExitCode::FAILURE
        }
    }
}

fn print(args: &Args, shrunk: &Shrunk) {
    let mut plan = Plan::draw(args.seed);
    plan.keep(&shrunk.only);
    println!("{}", shrunk.failure);
    println!(
        "the smallest of {} worlds that break this law has",
        shrunk.runs
    );
    for (number, machine) in (0..).zip(&plan.machines) {
        if machine.joins_at != Tick::NEVER {
            println!("  machine {number}: {machine:?}");
        }
    }
    for (number, ask) in (0..).zip(&plan.asks) {
        if ask.at != Tick::NEVER {
            println!("  request {number}: {ask:?}");
        }
    }
    for timed in &plan.faults {
        println!("  at {} us: {:?}", timed.at.0, timed.fault);
    }
    let plant = args
        .plant
        .map_or_else(String::new, |plant| format!(" --plant {}", plant.name()));
    println!("repeat it with:");
    println!(
        "  cargo xtask sim swarm --seed {} --only '{}'{plant} --trace",
        args.seed, shrunk.only
    );
}
