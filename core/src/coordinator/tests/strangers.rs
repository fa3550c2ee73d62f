//! Who is new is tried: in its turn, whatever it claims, and soon.

use std::collections::BTreeMap;

use super::*;

/// What each connection gets of these requests, each of which is called off before the next comes.
fn tries(world: &mut World, prompts: impl Iterator<Item = u32>, gap: Span) -> Vec<ConnId> {
    let mut tried = Vec::new();
    for (id, prompt_tokens) in (100..).zip(prompts) {
        world.now = world.now + gap;
        let asked = Ask {
            prompt_tokens,
            ..ask(id, ACCOUNT)
        };
        let (attempt, conn) = dispatched(&world.step(Event::Arrived(asked))).unwrap();
        let fault = AttemptFault::Cancelled;
        world.step(Event::AttemptFailed {
            conn,
            attempt,
            fault,
        });
        tried.push(conn);
    }
    tried
}

fn boast(world: &mut World, stranger: u64) {
    world.stranger(stranger, u128::from(stranger) * 11, 8);
    let boast = SlotReport {
        decode_mtps: 1_000_000,
        prefill_mtps: 50_000_000,
        ..slot(8, 0)
    };
    world.report(ConnId(stranger), 2, boast);
}

#[test]
fn strangers_that_claim_any_speed_get_one_request_in_some_each_in_its_turn() {
    let mut world = World::new();
    world.provider(1, 11, 8);
    (2..=12).for_each(|stranger| boast(&mut world, stranger));
    let tried = tries(&mut world, core::iter::repeat_n(100, 16 * 33), Span::ZERO);
    let mut counts = BTreeMap::<ConnId, u32>::new();
    for conn in tried {
        *counts.entry(conn).or_default() += 1;
    }
    let strangers: Vec<u32> = counts.values().skip(1).copied().collect();
    assert_eq!(strangers, [3; 11]);
}

#[test]
fn who_comes_to_many_is_tried_soon_and_who_came_first_is_not_kept_out_by_a_flood() {
    let mut world = World::new();
    world.provider(1, 11, 8);
    (2..=21).for_each(|stranger| boast(&mut world, stranger));
    let mut tried = Vec::new();
    for newest in 22..42 {
        boast(&mut world, newest);
        tried.extend(tries(&mut world, core::iter::repeat_n(100, 16), Span::ZERO));
    }
    tried.retain(|conn| conn.0 > 1);
    assert_eq!(tried.len(), 20);
    let (of_newest, of_oldest): (Vec<ConnId>, _) = tried.iter().partition(|conn| conn.0 > 21);
    assert_eq!(of_newest.len(), 10, "{tried:?}");
    let first: Vec<ConnId> = (2..12).map(ConnId).collect();
    assert_eq!(of_oldest, first);
}

#[test]
fn a_stranger_is_tried_within_a_minute_where_a_request_comes_each_ten_seconds() {
    let mut world = World::new();
    world.provider(1, 11, 8);
    tries(&mut world, core::iter::repeat_n(100, 20), Span::millis(10));
    world.stranger(2, 22, 8);
    for round in 0..4 {
        for conn in [1, 2] {
            world.report(ConnId(conn), 3 + round, slot(8, 0));
        }
        let tried = tries(&mut world, core::iter::repeat_n(100, 6), Span::secs(4));
        if tried.contains(&ConnId(2)) {
            return;
        }
    }
    panic!("never");
}

#[test]
fn a_short_prompt_is_taken_for_it_where_one_comes() {
    let mut world = World::new();
    world.provider(1, 11, 8);
    for id in 0..8 {
        let (attempt, conn) = dispatched(&world.ask(id)).unwrap();
        world.step(Event::AttemptStarted { conn, attempt });
        world.step(completed((attempt, conn), 5));
        world.persist();
    }
    // Answers were to prompts of a hundred tokens.
    world.stranger(2, 22, 8);
    let prompts = [2_000, 2_000, 90];
    let tried = tries(&mut world, prompts.into_iter().cycle().take(60), Span::ZERO);
    let of_it = tried.iter().zip(prompts.into_iter().cycle());
    let of_it = of_it.filter(|(conn, _)| **conn == ConnId(2));
    let lengths: Vec<u32> = of_it.map(|(_, length)| length).collect();
    assert!(
        lengths.len() >= 3 && lengths.iter().all(|it| *it == 90),
        "{lengths:?}"
    );
    let tried = tries(&mut world, core::iter::repeat_n(2_000, 40), Span::ZERO);
    assert!(
        tried.contains(&ConnId(2)),
        "in the end a long one has to do"
    );
}
