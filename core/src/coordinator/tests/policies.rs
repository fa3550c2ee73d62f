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

#[test]
fn an_account_stays_with_one_machine_until_that_has_more_than_its_share() {
    let mut world = World::quiet();
    world.core.set_policy(Policy::Sticky);
    for machine in 1..=4u64 {
        world.provider(machine, u128::from(machine) * 11, 100);
        world.report(ConnId(machine), 2, slot(100, 1_000_000));
    }
    let first = |world: &World, id| world.core.preview(ask(id, ACCOUNT)).unwrap();
    let home = first(&world, 1);
    assert!((2..60).all(|id| first(&world, id) == home));
    let others = (1..60).map(|other| {
        let account = AccountId(10_000 + other);
        world.core.preview(ask(u128::from(other), account)).unwrap()
    });
    let machines: std::collections::BTreeSet<ConnId> = others.collect();
    assert_eq!(machines.len(), 4, "other accounts live elsewhere");
    let mut shares = BTreeMap::new();
    for id in 1..=40 {
        let (_, conn) = dispatched(&world.ask(id)).unwrap();
        *shares.entry(conn).or_insert(0u32) += 1;
    }
    let most = shares.values().max().copied().unwrap();
    assert_eq!(shares[&home], most);
    // A quarter above ten.
    assert!((11..=13).contains(&most), "{shares:?}");
}

/// The terms by hand: 3,000 ms for each that is queued and 750 for each pending, so that three requests
/// in a row weigh more than a machine of half the speed; near costs are the same.
#[test]
fn the_reference_cost_is_its_formula() {
    let mut world = World::quiet();
    world.core.set_policy(Policy::Reference);
    world.provider(1, 11, 100);
    world.provider(2, 22, 100);
    let of = |decode_mtps| SlotReport {
        decode_mtps,
        ..slot(100, 1_000_000)
    };
    // 50 tokens take 0.5 s, and 10 s.
    world.report(ConnId(1), 2, of(100_000));
    world.report(ConnId(2), 2, of(5_000));
    let sent: Vec<u64> = (1..=8)
        .map(|id| dispatched(&world.ask(id)).unwrap().1.0)
        .collect();
    // One more costs 3.75 s here. Beside two it is 0.5 + 7.5 s, near enough to 10 s, and the other has
    // fewer queued.
    assert_eq!(sent[..3], [1, 1, 2]);
    // Nothing is near 30 s: a model that has to be loaded.
    let cold = SlotReport {
        state: SlotState::Absent,
        ..of(100_000)
    };
    world.report(ConnId(1), 3, cold);
    world.report(ConnId(2), 3, of(100_000));
    assert_eq!(world.core.preview(ask(100, ACCOUNT)), Some(ConnId(2)));
}

#[test]
fn the_reference_holds_tokens_in_use_against_a_machine() {
    let mut world = World::quiet();
    world.core.set_policy(Policy::Reference);
    world.provider(1, 11, 100);
    world.provider(2, 22, 100);
    let of = |budget_used| SlotReport {
        decode_mtps: 100_000,
        budget_used,
        ..slot(100, 1_000_000)
    };
    // 400 tokens are 4 s, beyond the 3 s in which costs are the same; 200 are not.
    world.report(ConnId(1), 2, of(400));
    world.report(ConnId(2), 2, of(0));
    let to_second = |world: &World, id| world.core.preview(ask(id, ACCOUNT)) == Some(ConnId(2));
    assert!((100..200).all(|id| to_second(&world, id)));
    world.report(ConnId(1), 3, of(200));
    let count = (100..300).filter(|id| to_second(&world, *id)).count();
    assert!(count.abs_diff(100) <= 30, "{count} of 200 by chance");
}

/// Of a prompt of six blocks, named so that two with the same number begin alike up to `shared`.
fn reading(id: u128, shared: u32, family: u32) -> Ask {
    use crate::prefix::{BLOCK_TOKENS, Prefix};
    let name = |block: u32| match block < shared {
        true => family * 1_000 + block,
        false => 1_000_000 + u32::try_from(id).unwrap() * 100 + block,
    };
    Ask {
        prompt_tokens: 6 * BLOCK_TOKENS,
        prompt_tokens_bound: 6 * BLOCK_TOKENS,
        prefix: Prefix::of((0..6).map(name)),
        ..ask(id, ACCOUNT)
    }
}

/// Four machines, of which each is sent one family's prompt.
fn readers(policy: Policy) -> (World, BTreeMap<u32, ConnId>) {
    let mut world = World::quiet();
    world.core.set_policy(Policy::RoundRobin);
    for machine in 1..=4u64 {
        world.provider(machine, u128::from(machine) * 11, 100);
        world.report(ConnId(machine), 2, slot(100, 1_000_000));
    }
    let mut homes = BTreeMap::new();
    for family in 1..=4u32 {
        let sent = world.step(Event::Arrived(reading(family.into(), 6, family)));
        homes.insert(family, dispatched(&sent).unwrap().1);
    }
    world.core.set_policy(policy);
    (world, homes)
}

const PREFIX_POLICIES: [Policy; 4] = [
    Policy::CacheAware,
    Policy::ExploitExplore,
    Policy::FewestBlocks,
    Policy::HighestScore,
];

#[test]
fn policies_that_know_of_prefixes_send_a_prompt_to_who_has_read_its_beginning() {
    for policy in PREFIX_POLICIES {
        let (world, homes) = readers(policy);
        for family in 1..=4u32 {
            let next = reading(u128::from(family) + 100, 5, family);
            let conn = world.core.preview(next);
            assert_eq!(conn, Some(homes[&family]), "{policy:?}, family {family}");
        }
    }
}

#[test]
fn without_a_match_they_spread_what_comes() {
    for policy in PREFIX_POLICIES {
        let (mut world, _) = readers(policy);
        let mut shares = BTreeMap::new();
        for id in 200..240u128 {
            let sent = world.step(Event::Arrived(reading(id, 0, 0)));
            *shares.entry(dispatched(&sent).unwrap().1).or_insert(0u32) += 1;
        }
        let (least, most) = (shares.values().min(), shares.values().max());
        assert_eq!(shares.len(), 4, "{policy:?}");
        assert!(
            most.unwrap() - least.unwrap() <= 2,
            "{policy:?}: {shares:?}"
        );
    }
}

#[test]
fn a_short_match_does_not_bind_those_that_want_a_long_one() {
    // One of six blocks.
    let short = |policy| {
        let (mut world, homes) = readers(policy);
        // The home is sent more than the others.
        for id in 300..303u128 {
            world.core.set_policy(Policy::CacheAware);
            world.step(Event::Arrived(reading(id, 6, 1)));
        }
        world.core.set_policy(policy);
        world.core.preview(reading(400, 1, 1)) == Some(homes[&1])
    };
    assert!(!short(Policy::CacheAware));
    assert!(!short(Policy::ExploitExplore));
    assert!(!short(Policy::FewestBlocks));
}

/// What each machine would not have to read of a family's next prompt.
fn read_before(world: &World, family: u32) -> Vec<(ConnId, u32)> {
    let next = reading(u128::from(family) + 100, 5, family);
    let weighed = world.core.explain(next).weighed;
    let read = weighed.iter().filter(|it| it.cached_tokens > 0);
    read.map(|it| (it.conn, it.cached_tokens)).collect()
}

#[test]
fn who_fails_before_its_first_word_is_not_held_to_have_read_the_prompt() {
    for fault in [
        AttemptFault::Internal,
        AttemptFault::Busy,
        AttemptFault::Unsent,
    ] {
        let mut world = World::new();
        for machine in 1..=2u64 {
            world.provider(machine, u128::from(machine) * 11, 100);
            world.report(ConnId(machine), 2, slot(100, 1_000_000));
        }
        let (attempt, conn) = dispatched(&world.step(Event::Arrived(reading(1, 6, 1)))).unwrap();
        let [(reads, _)] = read_before(&world, 1)[..] else {
            panic!("it is sent there")
        };
        assert_eq!(reads, conn);
        let failed = world.step(Event::AttemptFailed {
            conn,
            attempt,
            fault,
        });
        let (_, second) = dispatched(&failed).expect("the other takes it");
        let [(reads, _)] = read_before(&world, 1)[..] else {
            panic!("{fault:?}: only who has it now")
        };
        assert_eq!(reads, second);
    }
}

/// One machine reads fast and writes slowly, the other the other way round: which is better depends on the
/// answer, and one who is told knows it.
#[test]
fn who_is_told_how_long_an_answer_becomes_sends_it_where_that_is_best() {
    let goes_to = |policy: Policy, output_tokens_max: u32| {
        let mut world = World::quiet();
        world.core.set_policy(policy);
        for (conn, prefill_mtps, decode_mtps) in [(1, 1_000_000, 20_000), (2, 250_000, 40_000)] {
            world.provider(conn, u128::from(conn) * 11, 4);
            let measured = SlotReport {
                prefill_mtps,
                decode_mtps,
                ..slot(4, 1_000_000)
            };
            world.report(ConnId(conn), 2, measured);
        }
        let asked = Ask {
            prompt_tokens: 2_000,
            output_tokens_max,
            ..ask(7, ACCOUNT)
        };
        world.core.preview(asked).unwrap()
    };
    assert_eq!(goes_to(Policy::Told, 20), ConnId(1));
    assert_eq!(goes_to(Policy::Told, 4_000), ConnId(2));
    // Who only guesses takes both for answers of the usual length at most.
    assert_eq!(goes_to(Policy::Expected, 4_000), ConnId(1));
}
