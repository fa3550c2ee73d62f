//! Requests that wait, run on, are given up: nothing is lost, and nothing stays behind.

use super::*;

fn ends_of(effects: &[Effect], id: u128) -> usize {
    let ends = effects.iter().filter(|effect| match effect {
        Effect::Refuse { request, .. } | Effect::Fail { request, .. } => request.0 == id,
        _ => false,
    });
    ends.count()
}

/// One request runs and one waits. The latter's consumer leaves, its time is up, and the machine falls
/// free: in every order, and leaving twice.
#[test]
fn who_leaves_while_a_place_falls_free_ends_once_and_holds_nothing() {
    for order in permutations(4) {
        let mut world = World::new();
        world.provider(1, 11, 1);
        let running = dispatched(&world.ask(1)).unwrap();
        assert_eq!(conn_of(&world.ask(2)), None, "it waits");
        let mut ends = 0;
        for what in &order {
            let effects = match what {
                0 | 1 => leave(&mut world, 2),
                2 => world.step(completed(running, 10)),
                _ => {
                    world.now = world.now + Limits::reference().queue_wait_max;
                    world.step(Event::Woke)
                }
            };
            ends += ends_of(&effects, 2);
        }
        assert_eq!(ends, 1, "{order:?}");
        world.persist();
        leave(&mut world, 1);
        world.step(Event::ProviderVerified { conn: ConnId(1) });
        tell(&mut world, 1, &[slot(1, 0)]);
        assert_eq!(world.core.gauges().held, 0, "{order:?}");
        assert_eq!(conn_of(&world.ask(3)), Some(1), "{order:?}");
    }
}

/// All orders of the numbers below `count`.
fn permutations(count: usize) -> Vec<Vec<usize>> {
    let Some(last) = count.checked_sub(1) else {
        return vec![Vec::new()];
    };
    let mut all = Vec::new();
    for shorter in permutations(last) {
        for at in 0..=last {
            let mut longer = shorter.clone();
            longer.insert(at, last);
            all.push(longer);
        }
    }
    all
}

#[test]
fn who_is_refused_at_one_moment_does_not_come_back_at_one() {
    let mut world = World::new();
    world.provider(1, 11, 1);
    let mut running = dispatched(&world.ask(1)).unwrap();
    for id in 2..=5 {
        world.ask(id);
    }
    for id in 6..12 {
        world.now = world.now + Span::secs(8);
        tell(&mut world, 1, &[slot(1, 0)]);
        let effects = world.step(completed(running, 10));
        running = dispatched(&effects).unwrap();
        world.persist();
        world.ask(id);
    }
    let told: Vec<u16> = (100..300)
        .map(|id| match refused(&world.ask(id)) {
            Some(Denial::Full { retry_after_s }) => retry_after_s,
            other => panic!("the queue is full: {other:?}"),
        })
        .collect();
    // Five to go, one in eight seconds; and a spread of up to a quarter, of which each second is as likely.
    assert!(told.iter().all(|s| (40..=51).contains(s)), "{told:?}");
    let most = (40..=51).map(|s| told.iter().filter(|told| **told == s).count());
    // Five standard deviations of a binomial with 200 draws of an eleventh are 20.
    assert!(most.max().unwrap() <= 18 + 20, "{told:?}");
}

#[test]
fn a_report_looks_at_no_request_that_its_machine_has_no_room_for() {
    let mut config = config();
    config.limits.queue_depth_max = 256;
    let mut world = World::of(config);
    world.is_checked = false;
    world.provider(1, 11, 8);
    tell(&mut world, 1, &[slot(8, 4_000)]);
    for id in 0..100 {
        let large = Ask {
            output_tokens_max: 3_000,
            ..ask(id, ACCOUNT)
        };
        world.step(Event::Arrived(large));
    }
    assert_eq!(world.core.gauges().queued, 99);
    let looks = world.core.counts().queue_looks;
    for _ in 0..50 {
        tell(&mut world, 1, &[slot(8, 4_000)]);
    }
    assert_eq!(world.core.counts().queue_looks, looks);
}

#[test]
fn what_was_cancelled_counts_as_work_until_a_report_says_that_it_is_over() {
    let mut world = World::new();
    world.provider(1, 11, 1);
    let (attempt, conn) = dispatched(&world.ask(1)).unwrap();
    world.step(Event::AttemptAccepted { conn, attempt });
    let effects = leave(&mut world, 1);
    let is_told = |effect: &Effect| matches!(effect, Effect::CancelAttempt { .. });
    assert!(effects.iter().any(is_told));
    assert_eq!(conn_of(&world.ask(2)), None, "it may still run");
    let at_it = SlotReport {
        running: 1,
        ..slot(1, 0)
    };
    assert_eq!(conn_of(&tell(&mut world, 1, &[at_it])), None, "it does");
    assert_eq!(conn_of(&tell(&mut world, 1, &[slot(1, 0)])), Some(1));
}

#[test]
fn an_answer_that_goes_on_is_never_too_long() {
    let mut world = World::new();
    world.provider(1, 11, 4);
    let long = Ask {
        output_tokens_max: 3_900,
        ..ask(1, ACCOUNT)
    };
    let (attempt, conn) = dispatched(&world.step(Event::Arrived(long))).unwrap();
    world.persist();
    world.step(Event::AttemptStarted { conn, attempt });
    let began = world.now;
    for pieces in 2..1_000 {
        pass(&mut world, Span::secs(25));
        world.step(Event::AttemptProgressed {
            conn,
            attempt,
            shown: shown(pieces, 4 * pieces),
        });
        assert_eq!(world.core.gauges().requests, 1, "after {pieces} pieces");
    }
    assert!(world.now.since(began) > Span::secs(6 * 3_600));
    world.step(completed((attempt, conn), 1_000));
    assert!(matches!(world.persist()[..], [Effect::Finish { .. }]));
}
