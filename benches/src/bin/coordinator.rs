//! The control plane on one core: how long one decision takes, at the median and at its slowest hundredth,
//! and how many requests and reports it carries a second, at several sizes of the fleet.
//!
//! A decision is looked at by itself, with the clock read around each; what that reading takes is printed
//! beside it. Then comes the core's share of a whole world. Run by `cargo xtask bench coordinator`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use cereus_benches::fleet::Fleet;
use clap::Parser;
use serde_json::json;

#[derive(Parser)]
#[command(about = "Decisions, requests and reports of the core, at several sizes of the fleet")]
struct Cli {
    /// Machines, each with its models: `10000` for one model that all have, `10000x20` for twenty, of which
    /// each machine has three
    #[arg(
        value_delimiter = ',',
        default_value = "100,1000,10000,100000,10000x20"
    )]
    fleets: Vec<String>,
    /// Decisions, requests and reports of each
    #[arg(long, default_value_t = 300_000)]
    count: u32,
    /// Leave the whole world out
    #[arg(long)]
    no_world: bool,
    /// One JSON object a fleet in place of the table, and no world
    #[arg(long)]
    json: bool,
}

/// What one fleet took.
struct Taken {
    fleet: String,
    clock_ns: u64,
    decision_p50_ns: u64,
    decision_p99_ns: u64,
    decision_mean_ns: u64,
    lifecycle_ns: u64,
    heartbeat_ns: u64,
}

fn main() {
    let cli = Cli::parse();
    if !cli.json {
        println!(
            "| fleet | decision p50 | p99 | mean | whole request | requests a second | report |\n\
             |---|---:|---:|---:|---:|---:|---:|"
        );
    }
    for fleet in &cli.fleets {
        match measure(fleet, cli.count.max(1_000)) {
            Ok(taken) => print(&taken, cli.json),
            Err(unread) => {
                eprintln!("{unread}: say machines, or machines x models, as in 10000x20");
                std::process::exit(2);
            }
        }
    }
    if !cli.json && !cli.no_world {
        cereus_benches::share::print();
    }
}

fn measure(name: &str, count: u32) -> Result<Taken, String> {
    let (machines, models) = name.split_once('x').unwrap_or((name, "1"));
    let unread = |_| format!("`{name}` is no fleet");
    let machines: u32 = machines.parse().map_err(unread)?;
    let models: u16 = models.parse().map_err(unread)?;
    if machines < 2 || models == 0 {
        return Err(format!("`{name}` is no fleet"));
    }
    let mut fleet = Fleet::with(machines, models);
    // As long as it takes until all machines are known and what was measured of them has settled.
    for turn in 0..machines.max(count) {
        fleet.lifecycle();
        fleet.heartbeat(turn % machines);
    }
    let mut decisions: Vec<u64> = (0..count)
        .map(|_| nanos(&timed(|| fleet.decide())))
        .collect();
    decisions.sort_unstable();
    let mut clock: Vec<u64> = (0..count).map(|_| nanos(&timed(|| ()))).collect();
    clock.sort_unstable();
    let decide = timed(|| (0..count).for_each(|_| assert!(fleet.decide().is_some())));
    let live = timed(|| (0..count).for_each(|_| fleet.lifecycle()));
    let report = timed(|| (0..count).for_each(|turn| fleet.heartbeat(turn % machines)));
    let each = |all: Duration| nanos(&all) / u64::from(count);
    Ok(Taken {
        fleet: name.to_owned(),
        clock_ns: clock[clock.len() / 2],
        decision_p50_ns: decisions[decisions.len() / 2],
        decision_p99_ns: decisions[decisions.len() * 99 / 100],
        decision_mean_ns: each(decide),
        lifecycle_ns: each(live),
        heartbeat_ns: each(report),
    })
}

fn timed<T>(run: impl FnOnce() -> T) -> Duration {
    let began = Instant::now();
    black_box(run());
    began.elapsed()
}

fn nanos(time: &Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn print(taken: &Taken, as_json: bool) {
    let a_second = 1_000_000_000 / taken.lifecycle_ns.max(1);
    if as_json {
        let row = json!({
            "fleet": taken.fleet,
            "clock_ns": taken.clock_ns,
            "decision_p50_ns": taken.decision_p50_ns,
            "decision_p99_ns": taken.decision_p99_ns,
            "decision_mean_ns": taken.decision_mean_ns,
            "lifecycle_ns": taken.lifecycle_ns,
            "lifecycles_a_second": a_second,
            "heartbeat_ns": taken.heartbeat_ns,
        });
        println!("{row}");
        return;
    }
    println!(
        "| {} | {} ns | {} ns | {} ns | {} ns | {a_second} | {} ns |",
        taken.fleet,
        taken.decision_p50_ns,
        taken.decision_p99_ns,
        taken.decision_mean_ns,
        taken.lifecycle_ns,
        taken.heartbeat_ns
    );
}
