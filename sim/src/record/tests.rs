//! The record agrees with the report of the same run, and says what the report leaves out.

use cereus_core::time::{Span, Tick};

use super::*;
use crate::stream::Stream;
use crate::workload::Arrival;
use crate::world::config::RunConfig;
use crate::world::{Ran, World};

fn arrivals(count: u32, gap_us: u64) -> Vec<Arrival> {
    let mut stream = Stream::new(4, "test arrivals");
    let mut after = 0;
    let one = |ix| {
        after += stream.exponential(gap_us);
        Arrival {
            after: Span(after),
            prompt_tokens: u32::try_from(stream.between(1, 6_000)).unwrap(),
            output_tokens: u32::try_from(stream.between(1, 900)).unwrap(),
            blocks: vec![u64::from(ix % 7)],
        }
    };
    (0..count).map(one).collect()
}

fn crowded() -> Ran {
    let config = RunConfig {
        queue_depth_max: 6,
        queue_wait_max: Span::secs(4),
        ..RunConfig::reference(8)
    };
    let arrivals = arrivals(500, 1_000_000);
    let world = World::new(config, arrivals.into_iter().map(Ok)).unwrap();
    world.keeping(Keep::Rows).run_recorded(|_| {}).unwrap()
}

#[test]
fn rows_parts_and_series_count_what_the_report_counts() {
    let Ran { report, record, .. } = crowded();
    let refused: u64 = report.refused.values().sum();
    assert!(
        refused > 10 && report.good > 100,
        "{refused} {}",
        report.good
    );
    assert_eq!(record.rows.len(), 500);
    let count = |name| {
        let rows = record.rows.iter();
        rows.filter(|row| row.outcome.name() == name).count() as u64
    };
    assert_eq!(count("good"), report.good);
    assert_eq!(count("refused"), refused);
    assert_eq!(count("good") + count("late"), report.finished);
    let sum = |of: fn(&Bucket) -> u64| record.series.buckets.iter().map(of).sum::<u64>();
    assert_eq!(sum(|bucket| bucket.asked), report.asked);
    assert_eq!(sum(|bucket| bucket.refused), refused);
    assert_eq!(sum(|bucket| bucket.good), report.good);
    let lengths = record.by_length.iter().map(|part| part.asked);
    assert_eq!(lengths.sum::<u64>(), report.asked);
    let kinds = record.by_kind.values().map(|part| part.finished);
    assert_eq!(kinds.sum::<u64>(), report.finished);
    assert_eq!(record.all.goodput_ppm(), report.goodput_ppm);
    let ttft = &record.all.ttft_us;
    assert_eq!(ttft.per_mille(990), report.ttft.p99_us);
    let cached = record.rows.iter().map(|row| u64::from(row.cached_tokens));
    assert!(cached.sum::<u64>() <= report.cached_prompt_tokens);
    assert!(record.rows.iter().any(|row| row.cached_tokens > 0));
}

#[test]
fn a_row_is_in_the_order_of_its_life() {
    for row in crowded().record.rows {
        let dispatched = row.dispatched_at.unwrap_or(row.sent_at);
        let first = row.first_at.unwrap_or(dispatched);
        assert!(row.sent_at <= dispatched && dispatched <= first && first <= row.ended_at);
        assert_eq!(row.attempts > 0, row.machine.is_some());
        assert!(row.account > 0);
        assert_eq!(row.outcome.reason().is_empty(), row.first_at.is_some());
    }
}

/// The area under the queue is the sum of the waits, as Little's law has it.
#[test]
fn the_series_holds_the_time_that_requests_waited() {
    let record = crowded().record;
    let waits = || {
        record.rows.iter().map(|row| {
            let until = row.dispatched_at.unwrap_or(row.ended_at);
            until.since(row.sent_at).0
        })
    };
    let waited: u64 = record.series.buckets.iter().map(|it| it.waiting_us).sum();
    // A second attempt's dispatch is later than the first's, up to which it waited.
    let all: u64 = waits().sum();
    let retried = record.rows.iter().zip(waits());
    let retried: u64 = retried
        .filter(|(row, _)| row.attempts > 1)
        .map(|(_, wait)| wait)
        .sum();
    assert!(retried < all / 10, "{retried} of {all}");
    assert!((all - retried..=all).contains(&waited), "{waited} of {all}");
}

#[test]
fn a_long_run_has_no_more_buckets_than_a_short_one() {
    let mut series = Series::new(Tick(5));
    for second in 0..100_000u64 {
        series.asked(Tick(5 + second * 1_000_000));
        series.dispatched(Tick(5 + second * 1_000_000 + 250_000));
        series.ended(Tick(5 + second * 1_000_000 + 750_000), false);
    }
    assert!((240..=480).contains(&series.buckets.len()));
    assert_eq!(series.width, Span::secs(256));
    let sum = |of: fn(&Bucket) -> u64| series.buckets.iter().map(of).sum::<u64>();
    assert_eq!(sum(|bucket| bucket.asked), 100_000);
    assert_eq!(sum(|bucket| bucket.waiting_us), 100_000 * 250_000);
    assert_eq!(sum(|bucket| bucket.serving_us), 100_000 * 500_000);
    // All but the last are full.
    let full = Bucket {
        asked: 256,
        waiting_us: 256 * 250_000,
        serving_us: 256 * 500_000,
        ..Bucket::default()
    };
    let (_, before) = series.buckets.split_last().unwrap();
    assert!(before.iter().all(|bucket| *bucket == full));
}

#[test]
fn fairness_compares_machines_of_one_kind() {
    let mut recorder = Recorder::new(Tick(0), ["a", "a", "b"].map(str::to_owned).into_iter());
    for (machine, attempts) in [(0, 4), (1, 2), (2, 8)] {
        recorder.record.machines[machine].attempts = attempts;
    }
    let record = recorder.close(Tick(1), [300, 100, 1_000].into_iter());
    let expected = Fairness {
        busiest_milli: 1_500,
        least_ppm: 250_000,
    };
    assert_eq!(record.fairness(), expected);
}

fn watched(config: &RunConfig, watch: Watch) -> Watch {
    let arrivals = arrivals(60, 1_500_000).into_iter().map(Ok);
    let world = World::new(config.clone(), arrivals).unwrap();
    world.watching(watch).run_recorded(|_| {}).unwrap().watch
}

#[test]
fn two_policies_part_where_one_first_sends_a_request_elsewhere() {
    let digests = |config: &RunConfig| match watched(config, Watch::Digests(Vec::new())) {
        Watch::Digests(digests) => digests,
        Watch::Nothing | Watch::Shown { .. } | Watch::Timed(_) => {
            unreachable!("it was asked for digests")
        }
    };
    let ours = RunConfig::reference(8);
    let other = RunConfig {
        policy: cereus_core::coordinator::Policy::RoundRobin,
        ..ours.clone()
    };
    let (one, two) = (digests(&ours), digests(&other));
    assert_eq!(first_difference(&one, &digests(&ours)), None);
    let at = first_difference(&one, &two).unwrap() as u64;
    let shown = |config: &RunConfig| match watched(config, Watch::shown(at - 1..at + 1)) {
        Watch::Shown { lines, .. } => lines,
        Watch::Nothing | Watch::Digests(_) | Watch::Timed(_) => {
            unreachable!("it was asked for lines")
        }
    };
    let (one, two) = (shown(&ours), shown(&other));
    assert_eq!(one[0], two[0], "the step before is the same");
    let event = |lines: &[String]| lines[1].lines().next().unwrap().to_owned();
    assert_eq!(event(&one), event(&two), "they decide on the same event");
    assert_ne!(one[1], two[1]);
    assert!(
        one[1].contains("Dispatch") && two[1].contains("Dispatch"),
        "{}",
        one[1]
    );
}

#[test]
fn an_explanation_is_of_the_machine_that_the_request_went_to() {
    let explain = |number| {
        let arrivals = arrivals(60, 1_500_000).into_iter().map(Ok);
        let world = World::new(RunConfig::reference(8), arrivals).unwrap();
        world.explain(number).unwrap()
    };
    for number in [0, 17, 59] {
        let explained = explain(number).unwrap();
        assert_eq!(explained.row.number, number);
        let first = explained.explanation.weighed[0];
        let machine = explained.row.machine.unwrap();
        assert_eq!(first.conn.0, u64::from(machine) + 1);
        assert!(explained.row.sent_at < explained.at);
    }
    assert_eq!(explain(60), None);
}
