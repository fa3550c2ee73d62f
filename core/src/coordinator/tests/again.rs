//! What can be done again, and how long silence is borne.

use super::*;
use crate::time::Span;

fn ask_of(id: u128, delivery: Delivery) -> Ask {
    Ask {
        delivery,
        ..ask(id, ACCOUNT)
    }
}

fn leave(world: &mut World, conn: ConnId) -> Vec<Effect> {
    let cause = GoneCause::Lost;
    world.step(Event::ProviderLeft { conn, cause })
}

/// Two machines; a request has shown its first content to the relay, and its hold is durable or not.
fn started(delivery: Delivery, is_durable: bool) -> (World, ConnId) {
    let mut world = World::new();
    world.provider(1, 11, 4);
    world.provider(2, 22, 4);
    let (attempt, conn) = dispatched(&world.step(Event::Arrived(ask_of(5, delivery)))).unwrap();
    if is_durable {
        world.persist();
    }
    world.step(Event::AttemptStarted { conn, attempt });
    (world, conn)
}

#[test]
fn what_no_consumer_saw_is_done_again_and_what_one_saw_is_not() {
    for (delivery, is_durable, goes_on) in [
        (Delivery::Whole, false, true),
        (Delivery::Whole, true, true),
        (Delivery::Streamed, false, true),
        (Delivery::Streamed, true, false),
    ] {
        let (mut world, conn) = started(delivery, is_durable);
        let effects = leave(&mut world, conn);
        assert_eq!(dispatched(&effects).is_some(), goes_on, "{delivery:?}");
        assert_eq!(refused(&effects).is_none(), goes_on);
    }
}

#[test]
fn a_whole_answer_that_began_twice_is_released_once_and_paid_to_the_second_machine() {
    let (mut world, conn) = started(Delivery::Whole, true);
    let (attempt, second) = dispatched(&leave(&mut world, conn)).unwrap();
    let effects = world.step(Event::AttemptStarted {
        conn: second,
        attempt,
    });
    assert!(effects.is_empty(), "its hold was seen to be durable before");
    world.step(Event::AttemptCompleted {
        conn: second,
        attempt,
        usage: Usage {
            prompt_tokens: 90,
            completion_tokens: 10,
        },
        shown: shown(10, 40),
        ending: Ending::Said,
    });
    world.persist();
    let receipt = world.out.receipts[0];
    assert_eq!(receipt.machine, MachineId(u128::from(second.0) * 11));
    assert_eq!(receipt.attempts, 2);
    world.core.invariant_quiescent();
}

#[test]
fn a_faulted_request_waits_at_the_head_of_its_lane_where_another_machine_can_take_it_later() {
    let mut world = World::new();
    world.provider(1, 11, 1);
    world.provider(2, 22, 1);
    let (_, first) = dispatched(&world.ask(1)).unwrap();
    let (attempt, second) = dispatched(&world.ask(2)).unwrap();
    assert!(dispatched(&world.ask(3)).is_none(), "it waits");
    assert_eq!(leave(&mut world, first), [], "so does the first, before it");
    let effects = world.step(Event::AttemptFailed {
        conn: second,
        attempt,
        fault: AttemptFault::ConsumerStalled,
    });
    let next = effects.iter().find_map(|effect| match effect {
        Effect::Dispatch { request, .. } => Some(*request),
        _ => None,
    });
    // The engine may still be at what stalled: the place is free with the next report.
    let next = next.or_else(|| {
        let effects = world.report(second, 2, slot(1, 0));
        effects.iter().find_map(|effect| match effect {
            Effect::Dispatch { request, .. } => Some(*request),
            _ => None,
        })
    });
    assert_eq!(next, Some(RequestId(1)));
}

/// The machine accepts, or not, and then says nothing. Returns how long that was borne, and where
/// the request went then.
fn silence(world: &mut World, id: u128, accepts: bool) -> (Span, ConnId, Option<ConnId>) {
    let (attempt, conn) = dispatched(&world.ask(id)).unwrap();
    let sent_at = world.now;
    if accepts {
        world.step(Event::AttemptAccepted { conn, attempt });
    }
    let effects = loop {
        let effects = world.wake();
        let is_given_up = |effect: &Effect| matches!(effect, Effect::CancelAttempt { .. });
        if effects.iter().any(is_given_up) {
            break effects;
        }
    };
    let next = dispatched(&effects).map(|(_, conn)| conn);
    (world.now.since(sent_at), conn, next)
}

#[test]
fn silence_is_borne_for_seconds_beside_an_idle_machine_and_is_remembered() {
    for accepts in [false, true] {
        let mut world = World::new();
        world.provider(1, 11, 8);
        world.provider(2, 22, 8);
        let (borne, silent, next) = silence(&mut world, 5, accepts);
        assert!(borne <= Span::secs(10), "{borne:?}");
        assert_ne!(next, Some(silent));
        assert!(next.is_some(), "another machine is asked");
        for id in 10..14 {
            let (_, conn) = dispatched(&world.ask(id)).unwrap();
            assert_ne!(conn, silent, "the next requests do not go there again");
        }
    }
}

#[test]
fn a_slow_machine_is_given_the_time_that_its_own_figures_explain() {
    let mut world = World::new();
    world.provider(1, 11, 8);
    let slow = SlotReport {
        prefill_mtps: 10_000,
        ..slot(8, 0)
    };
    world.report(ConnId(1), 2, slow);
    let (borne, _, _) = silence(&mut world, 5, true);
    assert!(borne >= Span::secs(40), "ten seconds of prefill: {borne:?}");
}

/// An answer of at most so many tokens begins and then says nothing: how long that is borne.
fn pause(world: &mut World, output_tokens_max: u32) -> Span {
    let ask = Ask {
        output_tokens_max,
        ..ask(5, ACCOUNT)
    };
    let (attempt, conn) = dispatched(&world.step(Event::Arrived(ask))).unwrap();
    world.persist();
    world.step(Event::AttemptStarted { conn, attempt });
    let heard_at = world.now;
    while failed(&world.wake()).is_none() {}
    world.now.since(heard_at)
}

fn failed(effects: &[Effect]) -> Option<Denial> {
    effects.iter().find_map(|effect| match effect {
        Effect::Fail { denial, .. } => Some(*denial),
        _ => None,
    })
}

#[test]
fn a_pause_is_borne_for_as_long_as_the_whole_answer_may_take_by_the_machines_own_figures() {
    for (decode_mtps, output_tokens_max, at_least_s, at_most_s) in [
        (500_000, 50, 30, 31),
        (500_000, 3_000, 30, 31),
        (10_000, 1_000, 200, 300),
        (10, 3_000, 600, 601),
    ] {
        let mut world = World::new();
        world.provider(1, 11, 8);
        let slot = SlotReport {
            decode_mtps,
            ..slot(8, 0)
        };
        world.report(ConnId(1), 2, slot);
        let borne = pause(&mut world, output_tokens_max);
        assert!(
            (Span::secs(at_least_s)..=Span::secs(at_most_s)).contains(&borne),
            "{decode_mtps} and {output_tokens_max}: {borne:?}"
        );
        world.core.invariant_quiescent();
    }
}

#[test]
fn a_pause_that_the_prompts_of_others_explain_is_borne() {
    let mut world = World::new();
    world.provider(1, 11, 8);
    let slow_reader = SlotReport {
        decode_mtps: 500_000,
        prefill_mtps: 10_000,
        ..slot(8, 0)
    };
    world.report(ConnId(1), 2, slow_reader);
    let (attempt, conn) = dispatched(&world.ask(5)).unwrap();
    world.persist();
    world.step(Event::AttemptStarted { conn, attempt });
    let heard_at = world.now;
    let long = Ask {
        prompt_tokens: 300,
        ..ask(6, ACCOUNT)
    };
    let (reading, _) = dispatched(&world.step(Event::Arrived(long))).unwrap();
    world.step(Event::AttemptAccepted {
        conn,
        attempt: reading,
    });
    world.now = heard_at + Span::secs(50);
    assert_eq!(
        failed(&world.step(Event::Woke)),
        None,
        "a minute of prefill"
    );
    world.step(Event::AttemptStarted {
        conn,
        attempt: reading,
    });
    while failed(&world.wake()).is_none() {}
    let borne = world.now.since(heard_at);
    assert!(
        borne <= Span::secs(95),
        "what was read explains no more: {borne:?}"
    );
}

#[test]
fn a_stranger_gets_one_request_at_a_time_until_an_answer_goes_on() {
    let mut world = World::new();
    world.stranger(1, 11, 8);
    let (attempt, conn) = dispatched(&world.ask(1)).unwrap();
    world.persist();
    assert_eq!(dispatched(&world.ask(2)), None);
    assert_eq!(dispatched(&world.ask(3)), None);
    let effects = world.step(Event::AttemptStarted { conn, attempt });
    assert_eq!(dispatched(&effects), None, "a word is cheap");
    let effects = world.step(Event::AttemptProgressed {
        conn,
        attempt,
        shown: shown(32, 120),
    });
    let sent = effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Dispatch { .. }));
    assert_eq!(sent.count(), 2, "all that wait");
}

/// Where `asks` requests go, one after the other, with nothing else under way.
fn previews(world: &World, asks: u128) -> std::collections::BTreeMap<ConnId, u32> {
    let mut counts = std::collections::BTreeMap::new();
    for id in 100..100 + asks {
        let conn = world.core.preview(ask(id, ACCOUNT)).unwrap();
        *counts.entry(conn).or_default() += 1;
    }
    counts
}

#[test]
fn where_all_are_strangers_the_fastest_is_taken() {
    let mut world = World::quiet();
    for stranger in 1..=3u64 {
        world.stranger(stranger, u128::from(stranger) * 11, 8);
    }
    let fast = SlotReport {
        decode_mtps: 400_000,
        ..slot(8, 0)
    };
    world.report(ConnId(3), 2, fast);
    let counts = previews(&world, 160);
    assert!(counts[&ConnId(3)] > 130, "{counts:?}");
}

#[test]
fn machines_that_served_nobody_yet_do_not_say_for_all_that_there_is_no_room() {
    let mut world = World::new();
    // One that has served, and is full.
    world.provider(9, 99, 1);
    let (attempt, conn) = dispatched(&world.ask(1)).unwrap();
    world.persist();
    world.step(Event::AttemptStarted { conn, attempt });
    for machine in 1..=4u64 {
        world.provider(machine, u128::from(machine) * 11, 8);
    }
    let mut effects = world.ask(2);
    let mut refusals = 0;
    while let Some((attempt, conn)) = dispatched(&effects) {
        let fault = AttemptFault::Busy;
        effects = world.step(Event::AttemptFailed {
            conn,
            attempt,
            fault,
        });
        refusals += 1;
    }
    assert_eq!(
        (refusals, refused(&effects)),
        (4, None),
        "it waits for the one"
    );
}

#[test]
fn all_attempts_and_waits_of_a_request_share_one_deadline() {
    let mut config = config();
    config.limits.first_content_wait_max = Span::secs(20);
    let mut world = World::of(config);
    for machine in 1..=6u64 {
        world.provider(machine, u128::from(machine) * 11, 1);
    }
    let asked_at = world.now;
    let mut last = dispatched(&world.ask(5));
    let denial = loop {
        if let Some((attempt, conn)) = last {
            world.step(Event::AttemptAccepted { conn, attempt });
        }
        let effects = world.wake();
        if let Some(denial) = refused(&effects) {
            break denial;
        }
        last = dispatched(&effects);
    };
    assert_eq!(denial, Denial::Timeout);
    assert!(world.now.since(asked_at) <= Span::millis(20_100));
    world.core.invariant_quiescent();
}

#[test]
fn who_leaves_a_few_words_that_silence_followed_pays_nothing() {
    for (pieces, silent_s, is_free) in
        [(1, 0, false), (1, 9, false), (1, 11, true), (32, 11, false)]
    {
        let mut world = World::new();
        world.provider(1, 11, 4);
        let (attempt, conn) = dispatched(&world.ask(5)).unwrap();
        world.persist();
        world.step(Event::AttemptStarted { conn, attempt });
        world.step(Event::AttemptProgressed {
            conn,
            attempt,
            shown: shown(pieces, 4 * pieces),
        });
        world.now = world.now + Span::secs(silent_s);
        let effects = world.step(Event::ConsumerLeft {
            request: RequestId(5),
        });
        assert_eq!(failed(&effects), Some(Denial::Cancelled));
        world.step(Event::AttemptCompleted {
            conn,
            attempt,
            usage: Usage {
                prompt_tokens: 90,
                completion_tokens: pieces,
            },
            shown: shown(pieces, 4 * pieces),
            ending: Ending::Said,
        });
        world.persist();
        world.core.invariant_quiescent();
        let left = world.core.books().account(ACCOUNT).unwrap().available;
        assert_eq!(left == MicroUsd(1_000_000), is_free, "{silent_s}");
    }
}
