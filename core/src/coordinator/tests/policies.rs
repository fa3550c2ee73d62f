//! The simplest policies do what their names say.

use std::collections::BTreeMap;

use super::*;

/// How many of `asks` requests each of four machines gets, none of which ends.
fn shares(policy: Policy, asks: u128) -> BTreeMap<ConnId, u32> {
    let mut world = World::quiet();
    world.core.set_policy(policy);
    for machine in 1..=4u64 {
        world.provider(machine, u128::from(machine) * 11, 100);
        world.report(ConnId(machine), 2, slot(100, 1_000_000));
    }
    let mut shares = BTreeMap::new();
    for id in 1..=asks {
        let (_, conn) = dispatched(&world.ask(id)).unwrap();
        *shares.entry(conn).or_default() += 1;
    }
    shares
}

#[test]
fn each_in_turn_gets_the_same() {
    let shares = shares(Policy::RoundRobin, 40);
    assert!(shares.values().eq(&[10; 4]), "{shares:?}");
}

#[test]
fn the_fewest_under_way_is_never_two_ahead_of_another() {
    for asks in [4, 10, 23] {
        let shares = shares(Policy::LeastOutstanding, asks);
        let (least, most) = (shares.values().min(), shares.values().max());
        assert!(most.unwrap() - least.unwrap() <= 1, "{shares:?}");
    }
}

#[test]
fn chance_is_even_and_knows_no_load() {
    let mut world = World::quiet();
    world.core.set_policy(Policy::Random);
    world.provider(1, 11, 6);
    world.provider(2, 22, 6);
    for id in 1..=3 {
        dispatched(&world.ask(id)).unwrap();
    }
    let to_first = |id: &u128| world.core.preview(ask(*id, ACCOUNT)) == Some(ConnId(1));
    let count = (100..500).filter(to_first).count();
    // Four standard deviations of 400 throws of a coin.
    assert!(count.abs_diff(200) <= 40, "{count}");
}

#[test]
fn the_less_loaded_of_two_stays_close_to_even() {
    let shares = shares(Policy::TwoChoices, 60);
    assert!(
        shares.values().all(|share| share.abs_diff(15) <= 4),
        "{shares:?}"
    );
}
