//! Machines that come and go.

use super::super::churn::Churn;
use super::super::config::Newcomer;
use super::*;

/// All of a week within half an hour.
fn restless(seed: u64) -> RunConfig {
    RunConfig {
        churn: Churn::Home { hurry: 400 },
        ..RunConfig {
            seed,
            rows_max: 3,
            ..RunConfig::reference(12)
        }
    }
}

/// `conclude` holds the laws of money and of requests; this holds that it happened at all.
#[test]
fn a_fleet_that_sleeps_and_wakes_keeps_every_law() {
    for seed in 0..4 {
        let report = report(&restless(seed), &arrivals(seed, 600, 2_500_000));
        let churn = report.living.churn.unwrap();
        let lost = churn.slept_silently + churn.slept_closed + churn.lost + churn.crashes;
        assert!(lost > 50, "{churn:?}");
        assert!(churn.rows_dropped > 5, "{churn:?}");
        assert!(churn.missed + churn.replaced > 5, "{churn:?}");
        assert!(report.finished > 150, "{}", report.finished);
        assert!(
            report.work.reports < 12 * 1_500 / 5,
            "who is away does not report"
        );
    }
}

/// INV-18, and the promise of [`Pace::Leap`].
#[test]
fn a_restless_fleet_is_the_same_at_either_pace_and_each_time() {
    for seed in 0..4 {
        let arrivals = arrivals(seed, 400, 2_000_000);
        let leap = report(&restless(seed), &arrivals);
        assert_eq!(leap, report(&restless(seed), &arrivals));
        let stepping = RunConfig {
            pace: Pace::Step,
            ..restless(seed)
        };
        let mut step = report(&stepping, &arrivals);
        step.work.step_events = leap.work.step_events;
        assert_eq!(leap, step);
    }
}

#[test]
fn a_silent_machine_is_missed_when_its_heartbeats_are() {
    let mut world = World::new(
        RunConfig::reference(2),
        arrivals(1, 400, 1_000_000).into_iter().map(Ok),
    )
    .unwrap();
    let asleep_at = Tick::ZERO + Span::secs(47);
    let mut missed_at = None;
    let link = Link(0);
    while let Some((now, happening)) = world.queue.pop() {
        if world.links.is_held(link) && now >= asleep_at {
            world.links.drop(0);
            world.fleet.drop_rows(0, now);
            world.links.heard(world.fleet.beat_at(0), link);
            let at = world.links.next_sweep(now, link);
            world
                .queue
                .push(at, Happening::Coming(Coming::Swept { link }));
        }
        world.handle(now, happening).unwrap();
        if missed_at.is_none() && now > asleep_at && !world.links.is_known(link) {
            missed_at = Some(now);
            break;
        }
    }
    let silence = missed_at.unwrap().since(asleep_at);
    assert!(
        (Span::secs(115)..=Span::secs(155)).contains(&silence),
        "{silence:?}"
    );
}

#[test]
fn a_newcomer_joins_when_it_is_due_and_gets_work() {
    let config = RunConfig {
        newcomers: vec![Newcomer {
            place: "m3-ultra/256".parse().unwrap(),
            after: Span::secs(100),
        }],
        ..RunConfig::reference(1)
    };
    let arrivals = arrivals(3, 300, 2_000_000);
    let with = report(&config, &arrivals);
    assert_eq!((with.machines, with.fleet["m3-ultra/256"]), (2, 1));
    assert_eq!(with.living.churn.unwrap().sessions, 2);
    let without = report(&RunConfig::reference(1), &arrivals);
    assert!(with.busy_ppm < without.busy_ppm);
    assert!(with.latency.mean_us < without.latency.mean_us);
}
