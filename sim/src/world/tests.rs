//! Whole worlds, small: the same report whatever the pace, and every law of the end.

mod closed_loop;
mod comings;
mod conditions;
mod models;
mod people;
mod spread;

use super::config::PrefixCache;
use super::*;
use crate::machine::Pace;
use crate::report::Histogram;
use crate::stream::{Ratio, Stream};

fn arrivals(seed: u64, count: u32, gap_us: u64) -> Vec<Arrival> {
    let mut stream = Stream::new(seed, "test arrivals");
    let mut after = 0;
    let one = |_| {
        after += stream.exponential(gap_us);
        Arrival {
            after: Span(after),
            prompt_tokens: u32::try_from(stream.between(1, 6_000)).unwrap(),
            output_tokens: u32::try_from(stream.between(0, 900)).unwrap(),
            blocks: Vec::new(),
        }
    };
    (0..count).map(one).collect()
}

fn report(config: &RunConfig, arrivals: &[Arrival]) -> Report {
    let world = World::new(config.clone(), arrivals.iter().cloned().map(Ok)).unwrap();
    world.run(|_| {}).unwrap()
}

fn tight(seed: u64) -> RunConfig {
    RunConfig {
        seed,
        queue_depth_max: 6,
        queue_wait_max: Span::secs(20),
        rows_max: 3,
        ..RunConfig::reference(4)
    }
}

#[test]
fn token_by_token_gives_the_same_report_as_macro_steps() {
    for seed in 0..6 {
        let arrivals = arrivals(seed, 400, 1_400_000);
        let leap = report(&tight(seed), &arrivals);
        let stepping = RunConfig {
            pace: Pace::Step,
            ..tight(seed)
        };
        let mut step = report(&stepping, &arrivals);
        assert!(leap.work.step_events < step.work.step_events);
        step.work.step_events = leap.work.step_events;
        assert_eq!(leap, step);
        assert!(
            !leap.refused.is_empty(),
            "the queue overflows in this world"
        );
        assert!(leap.finished > 100, "and most of the work is done");
    }
}

/// Conversations in turns: each prompt begins as the one before of its conversation.
fn turns(seed: u64, count: u32) -> Vec<Arrival> {
    let mut arrivals = arrivals(seed, count, 1_500_000);
    for (ix, arrival) in (0u64..).zip(&mut arrivals) {
        let (conversation, turn) = (ix % 8, ix / 8);
        let blocks = arrival.prompt_tokens.div_ceil(512);
        let shared = (turn * 3).min(u64::from(blocks));
        let own = (shared..u64::from(blocks)).map(|block| 1_000_000 + ix * 100 + block);
        let common = (0..shared).map(|block| conversation * 1_000 + block);
        arrival.blocks = common.chain(own).collect();
    }
    arrivals
}

#[test]
fn a_prefix_cache_brings_the_first_token_sooner_at_either_pace() {
    let arrivals = turns(5, 300);
    let on = report(&tight(5), &arrivals);
    let stepping = RunConfig {
        pace: Pace::Step,
        ..tight(5)
    };
    let mut step = report(&stepping, &arrivals);
    step.work.step_events = on.work.step_events;
    assert_eq!(on, step);
    let off = RunConfig {
        prefix_cache: PrefixCache::Off,
        ..tight(5)
    };
    let off = report(&off, &arrivals);
    assert!(on.prefix_hit_ppm > 100_000, "{}", on.prefix_hit_ppm);
    assert_eq!(off.cached_prompt_tokens, 0);
    assert!(on.ttft.mean_us < off.ttft.mean_us);
    assert!(on.goodput_ppm > off.goodput_ppm);
}

#[test]
fn without_names_a_prefix_cache_changes_nothing() {
    let named = turns(6, 100);
    let nameless: Vec<Arrival> = (named.iter())
        .map(|arrival| Arrival {
            blocks: Vec::new(),
            ..*arrival
        })
        .collect();
    let off = RunConfig {
        prefix_cache: PrefixCache::Off,
        ..tight(6)
    };
    assert_eq!(report(&off, &named), report(&tight(6), &nameless));
}

/// INV-18.
#[test]
fn two_runs_of_one_seed_are_one_run() {
    let arrivals = turns(9, 200);
    assert_eq!(report(&tight(9), &arrivals), report(&tight(9), &arrivals));
    assert_ne!(
        report(&tight(9), &arrivals).digest,
        report(&tight(10), &arrivals).digest
    );
}

/// Whatever the clock says: no decision sees it.
#[test]
fn a_profile_counts_every_step_and_every_request_and_changes_nothing() {
    const fn stopped() -> u64 {
        7
    }
    let arrivals = turns(8, 200);
    let world = World::new(tight(8), arrivals.iter().cloned().map(Ok)).unwrap();
    let ran = world.timed_by(stopped).run_recorded(|_| {}).unwrap();
    assert_eq!(ran.report, report(&tight(8), &arrivals));
    let profile = ran.profile.unwrap();
    // What opens and fills accounts comes before.
    let before = 2 * u64::from(tight(8).accounts);
    assert_eq!(profile.steps.count() + before, ran.report.work.core_steps);
    let by_event = profile.by_event.values().map(Histogram::count);
    assert_eq!(by_event.sum::<u64>(), profile.steps.count());
    assert_eq!(profile.by_event["request arrived"].count(), 200);
    assert_eq!(profile.requests.count(), 200, "each ends once");
}

#[test]
fn poor_accounts_are_refused_and_pay_nothing() {
    let config = RunConfig {
        balance: cereus_core::money::MicroUsd(300),
        ..tight(2)
    };
    let report = report(&config, &arrivals(2, 100, 2_000_000));
    assert!(report.refused["insufficient_quota"] > 0);
    assert_eq!(report.money.sum, 0);
    assert_eq!(report.asked, 100);
}

#[test]
fn losses_delay_and_lose_nothing() {
    let mut config = tight(4);
    config.net.loss = Ratio::new(1, 4);
    let report = report(&config, &arrivals(4, 100, 2_000_000));
    assert!(report.work.resends > 100);
    assert_eq!(report.finished + report.refused.values().sum::<u64>(), 100);
}

/// Whatever the latencies, and however short an answer is.
#[test]
fn answers_of_no_token_and_of_one_are_reported_as_they_are() {
    for latency_ms in [0, 8] {
        let mut config = RunConfig::reference(4);
        config.net.latency_min = Span::millis(latency_ms);
        config.net.latency_spread = Span::ZERO;
        config.net.loss = Ratio::ppm(0);
        config.store.write_min = Span::millis(40);
        let arrival = |ix: u64| Arrival {
            after: Span(ix * 500_000),
            prompt_tokens: 1 + (ix as u32 % 7),
            output_tokens: u32::try_from(ix % 2).unwrap(),
            blocks: Vec::new(),
        };
        let arrivals: Vec<Arrival> = (0..60).map(arrival).collect();
        let report = report(&config, &arrivals);
        assert_eq!((report.finished, report.empty), (60, 30));
        assert_eq!((report.ttft.count, report.tpot.count), (30, 0));
        assert_eq!(report.completion_tokens, 30);
    }
}

#[test]
fn the_mix_of_a_fleet_is_the_same_for_every_seed_and_only_its_order_is_drawn() {
    let of = |seed| RunConfig {
        seed,
        ..RunConfig::reference(24)
    };
    let census = of(1).census();
    assert_eq!(census.values().sum::<u32>(), 24);
    assert_eq!(
        census["m3-max/64"], 5,
        "a fifth of 24, rounded by the largest remainder"
    );
    assert_eq!(census["m4/24"], 2);
    assert_eq!(of(2).census(), census);
    assert_ne!(of(1).places(), of(2).places());
}

#[test]
fn impossible_worlds_are_refused() {
    let refusal = |config: RunConfig| {
        World::new(config, std::iter::empty())
            .err()
            .expect("refused")
    };
    let mut slow = RunConfig::reference(1);
    slow.net.latency_min = Span::secs(3);
    assert_eq!(refusal(slow), RunError::Config(RunConfigError::SlowNetwork));
    let mut idle = RunConfig::reference(1);
    idle.rows_max = 0;
    assert_eq!(refusal(idle), RunError::Config(RunConfigError::Rows));
    let none = RunConfig::reference(0);
    assert_eq!(refusal(none), RunError::Config(RunConfigError::NoMachines));
}

/// What the coordinator did up to `until`, in a world of these arrivals.
fn decisions(arrivals: &[Arrival], until: Tick) -> u128 {
    let mut world = World::new(tight(3), arrivals.iter().cloned().map(Ok)).unwrap();
    while let Some((now, happening)) = world.queue.pop() {
        if now > until {
            break;
        }
        world.handle(now, happening).unwrap();
    }
    world.core.running_digest()
}

/// INV-19: the true length of an answer is the simulator's secret until it shows.
#[test]
fn decisions_do_not_depend_on_truth_that_is_yet_to_come() {
    let arrival = |ix: u64, output_tokens| Arrival {
        after: Span(ix * 1_000),
        prompt_tokens: 3_000,
        output_tokens,
        blocks: Vec::new(),
    };
    let long: Vec<Arrival> = (0..40).map(|ix| arrival(ix, 250)).collect();
    let short: Vec<Arrival> = (0..40)
        .map(|ix| arrival(ix, 1 + (ix as u32 * 7) % 250))
        .collect();
    let before_any_end = Tick::ZERO + WARM_UP + Span::millis(200);
    assert_eq!(
        decisions(&long, before_any_end),
        decisions(&short, before_any_end)
    );
    let after_some = Tick::ZERO + WARM_UP + Span::secs(60);
    assert_ne!(decisions(&long, after_some), decisions(&short, after_some));
}
