//! Who waits, who gives way, and how long a refused consumer is told to stay away.

use super::*;

const HOG: AccountId = ACCOUNT;
const GUEST: AccountId = AccountId(2);

fn complete(world: &mut World, (attempt, conn): (AttemptKey, ConnId)) -> Vec<Effect> {
    let effects = world.step(completed((attempt, conn), 10));
    world.persist();
    effects
}

fn shed(effects: &[Effect]) -> Option<RequestId> {
    effects.iter().find_map(|effect| match effect {
        Effect::Refuse {
            request,
            denial: Denial::Full { .. },
        } => Some(*request),
        _ => None,
    })
}

#[test]
fn a_full_queue_takes_a_place_from_the_account_that_has_the_most() {
    let mut world = World::new();
    world.provider(1, 11, 1);
    // One runs, four wait: the queue of four is full.
    for id in 1..=5 {
        world.step(Event::Arrived(ask(id, HOG)));
    }
    let effects = world.step(Event::Arrived(ask(6, GUEST)));
    assert_eq!(shed(&effects), Some(RequestId(5)), "the hog's newest");
    let effects = world.step(Event::Arrived(ask(7, HOG)));
    assert_eq!(shed(&effects), Some(RequestId(7)), "its own excess");
    // Three to one; then two to two, and nobody has more than the newcomer would.
    let effects = world.step(Event::Arrived(ask(8, GUEST)));
    assert_eq!(shed(&effects), Some(RequestId(4)));
    let effects = world.step(Event::Arrived(ask(9, GUEST)));
    assert_eq!(shed(&effects), Some(RequestId(9)));
}

#[test]
fn nobody_loses_a_place_to_an_account_that_cannot_pay() {
    let mut world = World::new();
    world.provider(1, 11, 1);
    for id in 1..=5 {
        world.step(Event::Arrived(ask(id, HOG)));
    }
    let poor = AccountId(3);
    world.step(Event::AccountOpened {
        account: poor,
        balance: MicroUsd(1),
    });
    let effects = world.step(Event::Arrived(ask(6, poor)));
    assert_eq!(refused(&effects), Some(Denial::Broke));
    assert_eq!(world.core.gauges().queued, 4);
}

#[test]
fn an_idle_hour_does_not_count_as_the_pace_of_the_queue() {
    let mut world = World::new();
    world.provider(1, 11, 1);
    let hour = 3_600_000_000;
    for id in 0..3 {
        let running = dispatched(&world.ask(id)).unwrap();
        complete(&mut world, running);
        world.now = Tick(world.now.0 + hour);
        world.step(Event::ProviderVerified { conn: ConnId(1) });
        world.report(ConnId(1), 2 + u64::try_from(id).unwrap(), slot(1, 0));
    }
    for id in 10..15 {
        world.ask(id);
    }
    let Some(Denial::Full { retry_after_s }) = refused(&world.ask(15)) else {
        panic!("the queue is full");
    };
    assert!(retry_after_s <= 3, "{retry_after_s} s after quiet hours");
}

#[test]
fn the_pace_of_a_busy_queue_sets_the_time_to_come_back() {
    let mut world = World::new();
    world.provider(1, 11, 1);
    let mut running = dispatched(&world.ask(1)).unwrap();
    for id in 2..=5 {
        world.ask(id);
    }
    for id in 6..12 {
        world.now = Tick(world.now.0 + 8_000_000);
        world.report(ConnId(1), u64::try_from(id).unwrap(), slot(1, 0));
        running = dispatched(&complete(&mut world, running)).unwrap();
        world.ask(id);
    }
    let Some(Denial::Full { retry_after_s }) = refused(&world.ask(20)) else {
        panic!("the queue is full");
    };
    // Five to go, one in eight seconds, and up to a quarter of spread.
    assert!((40..=51).contains(&retry_after_s), "{retry_after_s}");
}

#[test]
fn a_closed_offer_looks_at_no_waiting_request() {
    let mut world = World::new();
    world.provider(1, 11, 1);
    for id in 1..=5 {
        world.ask(id);
    }
    let looks = world.core.counts().queue_looks;
    for seq in 2..10 {
        world.report(ConnId(1), seq, slot(1, 0));
    }
    assert_eq!(world.core.counts().queue_looks, looks);
}
