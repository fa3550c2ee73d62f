//! The core's share of a world as large as a published fleet was, in which machines come and go:
//! percentiles, which loops of one thing cannot show.

use std::sync::OnceLock;
use std::time::Instant;

use cereus_core::time::Span;
use cereus_sim::stream::Stream;
use cereus_sim::workload::Arrival;
use cereus_sim::world::churn::Churn;
use cereus_sim::world::config::RunConfig;
use cereus_sim::world::{Ran, World};

/// Connected machines and requests a second of the published fleet in its busiest weeks.
const MACHINES: u32 = 1_250;
const REQUESTS_PER_S: u64 = 46;
const SECONDS: u64 = 1_200;
/// Times faster than at home, so that twenty minutes see as many comings and goings as three hours.
const HURRY: u32 = 10;
/// What 99 of 100 events, and of 100 requests all of their events together, may take.
const CORE_P99_MAX_NS: u64 = 1_000_000;

/// Prompts of 200 to 2,100 tokens and answers of 20 to 400.
fn chats() -> impl Iterator<Item = Arrival> {
    let mut stream = Stream::new(1, "chats");
    let mut after = Span::ZERO;
    (0..REQUESTS_PER_S * SECONDS).map(move |_| {
        after = after + Span(stream.exponential(1_000_000 / REQUESTS_PER_S));
        let mut between =
            |low, high| u32::try_from(stream.between(low, high)).expect("some tokens");
        Arrival {
            after,
            prompt_tokens: between(200, 2_100),
            output_tokens: between(20, 400),
            blocks: Vec::new(),
        }
    })
}

fn clock_ns() -> u64 {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let since = BEGAN.get_or_init(Instant::now).elapsed();
    u64::try_from(since.as_nanos()).expect("less than centuries")
}

/// Runs the world and prints what the core took of it. Half of the machines are away at any time.
pub fn print() {
    let mut config = RunConfig::reference(2 * MACHINES);
    config.churn = Churn::Home { hurry: HURRY };
    let world = World::new(config, chats().map(Ok)).expect("a sound world");
    let Ran {
        report, profile, ..
    } = (world.timed_by(clock_ns).run_recorded(|_| {})).expect("chats are sound");
    let profile = profile.expect("there was a clock");
    println!(
        "\n{} requests at {REQUESTS_PER_S} a second, {MACHINES} of {} machines here at a time\n\n{profile}",
        report.asked,
        2 * MACHINES,
    );
    for (what, taken) in [
        ("an event", &profile.steps),
        ("a request", &profile.requests),
    ] {
        let p99_ns = taken.per_mille(990);
        println!(
            "99 times of 100 {what} takes the core at most {}.{:02} us, of {} us: {}",
            p99_ns / 1_000,
            p99_ns / 10 % 100,
            CORE_P99_MAX_NS / 1_000,
            if p99_ns <= CORE_P99_MAX_NS {
                "good"
            } else {
                "TOO LONG"
            }
        );
    }
}
