//! Consumers that think, try again and leave.

use super::super::people::{People, Tenants};
use super::*;

fn with(people: People, seed: u64) -> RunConfig {
    RunConfig {
        people,
        ..tight(seed)
    }
}

/// A queue that overflows, so that many are turned down at first.
fn crowded(retries_max: u8) -> RunConfig {
    RunConfig {
        queue_depth_max: 2,
        queue_wait_max: Span::secs(5),
        ..with(
            People {
                retries_max,
                ..People::patient()
            },
            3,
        )
    }
}

#[test]
fn a_request_counts_once_over_its_tries() {
    let arrivals = arrivals(3, 400, 1_600_000);
    let without = report(&crowded(0), &arrivals);
    let with = report(&crowded(4), &arrivals);
    assert_eq!((with.asked, without.asked), (400, 400));
    let people = with.living.people.unwrap();
    assert!(people.retries > people.answered_late && people.answered_late > 20);
    assert!(people.given_up > 0);
    assert!(with.finished > without.finished);
    assert!(
        with.ttft.max_us > without.ttft.max_us,
        "it counts from the first try"
    );
    let refused: u64 = with.refused.values().sum();
    assert_eq!(with.finished + refused, 400);
}

#[test]
fn a_session_waits_for_its_answer_and_thinks() {
    let people = People {
        sessions: 3,
        think_mean: Span::secs(20),
        ..People::patient()
    };
    // The trace would have all of them come at once.
    let at_once = arrivals(4, 120, 1);
    let report = report(&with(people, 4), &at_once);
    assert_eq!((report.asked, report.finished), (120, 120));
    assert!(report.rows_ppm < 400_000, "three at most are under way");
    let turns_us = report.simulated_us * 3 / 120;
    let least_us = 18_000_000 + report.latency.mean_us;
    assert!(
        (least_us..least_us + 8_000_000).contains(&turns_us),
        "{turns_us}"
    );
}

#[test]
fn who_is_impatient_leaves_before_content_and_pays_nothing() {
    let people = People {
        patience_mean: Span::secs(4),
        ..People::patient()
    };
    let arrivals = arrivals(5, 300, 1_500_000);
    let report = report(&with(people, 5), &arrivals);
    let left = report.living.people.unwrap();
    assert!(left.left_before_content > 50, "{left:?}");
    assert_eq!(left.left_amid, 0);
    let cancelled = report.refused.get("request_cancelled").copied();
    let amid = report.failed.get("request_cancelled").copied();
    // An answer may begin, or be over, while word of the leaving travels.
    let cancelled = cancelled.unwrap_or(0) + amid.unwrap_or(0);
    assert!(cancelled <= left.left_before_content);
    assert!(cancelled * 10 >= left.left_before_content * 9);
}

#[test]
fn who_hangs_up_pays_for_what_was_shown() {
    let people = People {
        hang_up: Ratio::new(1, 2),
        ..People::patient()
    };
    let arrivals = arrivals(6, 200, 3_000_000);
    let report = report(&with(people, 6), &arrivals);
    let left = report.living.people.unwrap();
    assert!(left.left_amid > 30, "{left:?}");
    assert_eq!(left.left_before_content, 0);
    let cancelled = report.failed["request_cancelled"];
    assert!(report.living.charged_in_part > 0);
    assert!(report.living.charged_in_part <= cancelled && cancelled <= left.left_amid);
    assert!(report.work.cancels >= cancelled);
}

/// Who shares a cache with everybody finds more than who has one of its own.
#[test]
fn each_account_has_its_own_scope_where_accounts_differ() {
    let zipf = People {
        tenants: Tenants::Zipf,
        ..People::patient()
    };
    // All prompts begin alike, and each conversation goes on in its own way.
    let mut arrivals = turns(7, 300);
    for (ix, arrival) in (0u64..).zip(&mut arrivals) {
        arrival.blocks.insert(0, 1);
        if let Some(second) = arrival.blocks.get_mut(1) {
            *second = 2 + ix % 30;
        }
    }
    let alike = report(&tight(7), &arrivals);
    let apart = report(&with(zipf, 7), &arrivals);
    assert!(apart.cached_prompt_tokens < alike.cached_prompt_tokens);
    assert!(apart.cached_prompt_tokens > 0);
}

/// INV-18, and the promise of [`Pace::Leap`].
#[test]
fn consumers_are_the_same_at_either_pace_and_each_time() {
    for seed in 0..4 {
        let people = People {
            tenants: Tenants::Zipf,
            sessions: 20,
            think_mean: Span::secs(10),
            retries_max: 2,
            retry_after_max: Span::secs(10),
            patience_mean: Span::secs(15),
            hang_up: Ratio::new(1, 10),
        };
        let config = with(people, seed);
        let arrivals = turns(seed, 300);
        let leap = report(&config, &arrivals);
        assert_eq!(leap, report(&config, &arrivals));
        let stepping = RunConfig {
            pace: Pace::Step,
            ..config
        };
        let mut step = report(&stepping, &arrivals);
        step.work.step_events = leap.work.step_events;
        assert_eq!(leap, step);
    }
}
