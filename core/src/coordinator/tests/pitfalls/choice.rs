//! Who is chosen, and what must not sway that.

use std::collections::BTreeMap;

use super::*;
use crate::coordinator::explain::{Contender, Outlook};

proptest! {
    /// Nothing is known of its speed but what its memory allows, the model may be cold, and waits have
    /// been long wherever one looked.
    #[test]
    fn an_idle_machine_turns_nobody_away_however_long_the_prompt(
        bandwidth_gbs in 0u32..2_000,
        prompt_tokens in 1u32..900_000,
        is_cold in any::<bool>(),
        is_overloaded in any::<bool>(),
        busy in 0u64..3,
    ) {
        let mut world = spacious(|limits| {
            if is_overloaded {
                limits.overload_after = Span::ZERO;
            }
        });
        for conn in 1..=busy {
            world.provider(conn, u128::from(conn), 1);
            prop_assert!(dispatched(&world.ask(u128::from(conn))).is_some());
        }
        join(&mut world, 9, MachineSpec { bandwidth_gbs, ..SPEC }, &[MODEL]);
        let state = if is_cold { SlotState::Absent } else { SlotState::Idle };
        let unmeasured = SlotReport { state, decode_mtps: 0, prefill_mtps: 0, ..slot(4, 0) };
        tell(&mut world, 9, &[unmeasured]);
        let effects = world.step(Event::Arrived(long_ask(100, prompt_tokens, 1_000)));
        prop_assert_eq!(conn_of(&effects), Some(9), "{:?}", refused(&effects));
    }

    /// As few machines as are all compared: then a request goes to the same one.
    #[test]
    fn the_order_of_joining_decides_nothing(
        order in Just((1u128..=4).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let chosen = |order: &[u128]| -> Vec<u128> {
            let mut world = World::quiet();
            for (conn, &machine) in (1..).zip(order) {
                world.provider(conn, machine, 4);
            }
            let machine_of = |conn: ConnId| {
                let roster = world.core.roster();
                let present = roster.iter().find(|it| it.conn == conn).expect("it is here");
                present.machine.0
            };
            let asks = (0..60).map(|id| world.core.preview(ask(id, ACCOUNT)).expect("all are idle"));
            asks.map(machine_of).collect()
        };
        prop_assert_eq!(chosen(&order), chosen(&[1, 2, 3, 4]));
    }
}

#[test]
fn of_equal_machines_each_is_chosen_as_often_whatever_the_order_of_joining() {
    for order in [
        [1u128, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
        [7, 3, 11, 1, 9, 12, 5, 2, 8, 4, 10, 6],
    ] {
        let mut world = World::quiet();
        for (conn, machine) in (1..).zip(order) {
            world.provider(conn, machine, 4);
        }
        let mut counts: BTreeMap<ConnId, u32> = BTreeMap::new();
        for id in 0..1_200 {
            let conn = world.core.preview(ask(id, ACCOUNT)).unwrap();
            *counts.entry(conn).or_default() += 1;
        }
        // Five standard deviations of a binomial with 1,200 draws of a twelfth are 48.
        let is_even = |count: &u32| count.abs_diff(100) <= 48;
        assert!(
            counts.len() == 12 && counts.values().all(is_even),
            "{counts:?}"
        );
    }
}

#[test]
fn a_burst_between_two_reports_is_spread_evenly() {
    let mut world = World::quiet();
    for conn in 1..=20u64 {
        world.provider(conn, u128::from(conn), 8);
    }
    let mut counts = [0u32; 21];
    for id in 1..=80 {
        let conn = conn_of(&world.ask(id)).expect("there is room");
        counts[usize::try_from(conn).unwrap()] += 1;
        if id % 20 == 0 {
            let each = u32::try_from(id / 20).unwrap();
            assert_eq!(counts[1..], [each; 20], "after {id}");
        }
    }
}

/// A quick machine has a long prompt to read, a slower one has nothing to do.
#[test]
fn what_a_consumer_allows_for_its_answer_changes_no_ranking() {
    let mut world = spacious(|_| {});
    world.provider(1, 11, 8);
    world.provider(2, 22, 8);
    let fast = SlotReport {
        decode_mtps: 200_000,
        ..slot(8, 0)
    };
    tell(&mut world, 1, &[fast]);
    tell(&mut world, 2, &[slot(0, 1)]);
    let effects = world.step(Event::Arrived(long_ask(1, 20_000, 100)));
    assert_eq!(conn_of(&effects), Some(1));
    tell(&mut world, 2, &[slot(8, 0)]);
    for allowed in [300, 1_000, 8_192, 32_000] {
        // The best, whosever turn it is.
        let best = world.core.explain(long_ask(2, 100, allowed)).weighed[0].conn;
        assert_eq!(best, ConnId(2), "{allowed} tokens allowed");
    }
}

/// At 1,000 tokens of a prompt and 100 of an answer a second: what is ahead counts by its own size, not by
/// that of who comes. The published figures have one lone step and no look of a token at those before it;
/// here it joins a batch of one more, and looks.
#[test]
fn the_prompts_ahead_count_by_their_own_size() {
    let published_ms = [
        (8_000, 100, 8_110),
        (100, 4_000, 4_110),
        (2_000, 2_000, 4_010),
    ];
    for (ahead, arriving, expected_ms) in published_ms {
        let mut world = spacious(|_| {});
        world.provider(1, 11, 8);
        let measured = SlotReport {
            decode_mtps: 100_000,
            prefill_mtps: 1_000_000,
            ..slot(8, 0)
        };
        tell(&mut world, 1, &[measured]);
        assert!(dispatched(&world.step(Event::Arrived(long_ask(1, ahead, 100)))).is_some());
        let at = world.core.known(ConnId(1)).unwrap();
        let offer = world.core.fleet.offer_of(at, MODEL).unwrap();
        let limits = world.core.config.limits.clone();
        let forecast = world.core.fleet.forecast(offer, arriving, &limits);
        let arriving = u64::from(arriving);
        let looks_us = arriving * 1_000 * (arriving / 2 * 95) / 1_000_000;
        let batch_us = 3_900;
        assert_eq!(forecast.0, expected_ms * 1_000 + batch_us + looks_us);
    }
}

fn others(world: &World, conn: ConnId) -> Vec<Contender> {
    but(world.core.explain(ask(900, ACCOUNT)).weighed, conn)
}

fn but(mut weighed: Vec<Contender>, conn: ConnId) -> Vec<Contender> {
    weighed.retain(|it| it.conn != conn);
    weighed.sort_by_key(|it| it.conn);
    weighed
}

/// There are no hints by version: whatever a machine says against a request, it says of itself.
#[test]
fn what_one_machine_refuses_says_nothing_of_others() {
    for fault in [
        AttemptFault::Busy,
        AttemptFault::Client(400),
        AttemptFault::Internal,
        AttemptFault::ModelUnavailable,
        AttemptFault::Unsent,
    ] {
        let mut world = World::new();
        for conn in 1..=4u64 {
            world.provider(conn, u128::from(conn), 4);
        }
        let before = world.core.explain(ask(900, ACCOUNT)).weighed;
        let sent = dispatched(&world.ask(1)).unwrap();
        let moved = dispatched(&fail(&mut world, sent, fault)).expect("another is asked");
        leave(&mut world, 1);
        tell(&mut world, moved.1.0, &[slot(4, 0)]);
        assert_eq!(others(&world, sent.1), but(before, sent.1), "{fault:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// What is foretold of a request is what becomes of it: the same code decides.
    #[test]
    fn what_is_foretold_is_what_happens(
        ops in prop::collection::vec(op(), 1..80),
        demands_hardware in any::<bool>(),
        output_tokens_max in 1u32..700,
    ) {
        let mut world = World::quiet();
        world.free_for_load_bytes = Some(1 << 30);
        let (mut conns, mut seen) = (0, Vec::new());
        for op in ops {
            apply(&mut world, op, &mut conns, &mut seen);
        }
        world.step(Event::Woke);
        let asked = Ask {
            trust_min: if demands_hardware { Trust::Hardware } else { Trust::None },
            output_tokens_max,
            ..ask(1_000, ACCOUNT)
        };
        let told = world.core.explain(asked).outlook;
        world.out.clear();
        let arrived = Event::Arrived(asked);
        world.core.step(world.now, &arrived, &mut world.out).unwrap();
        let effects = world.out.list.clone();
        let denial = refused(&effects);
        match told {
            Outlook::Now(conn) => prop_assert_eq!(conn_of(&effects), Some(conn.0)),
            Outlook::Waits => {
                let is_shed = matches!(denial, Some(Denial::Full { .. }));
                prop_assert_eq!(conn_of(&effects), None);
                prop_assert!(denial.is_none() || is_shed, "{:?}", denial);
            }
            Outlook::NoneLargeEnough => {
                let is_told = matches!(denial, Some(Denial::NoneLargeEnough { .. }));
                prop_assert!(is_told, "{:?}", denial);
            }
            Outlook::NoneSuited => {
                let is_told = matches!(denial, Some(Denial::NoneSuited { .. }));
                prop_assert!(is_told, "{:?}", denial);
            }
            Outlook::Nobody => {
                let is_told = matches!(denial, Some(Denial::NoProvider { .. }));
                prop_assert!(is_told, "{:?}", denial);
            }
            Outlook::UnknownModel => prop_assert!(false, "it is sold"),
        }
    }

    /// A name means one model for ever or none: there are no aliases that could lead to another.
    #[test]
    fn a_name_means_one_model_or_none(ops in prop::collection::vec((0u8..6, any::<bool>()), 1..40)) {
        let mut catalog = config().catalog;
        let mut first = BTreeMap::new();
        for (number, is_listed) in ops {
            let name = format!("model-{number}");
            let spec = ModelSpec { id: name.clone(), ..catalog.spec(MODEL).unwrap().clone() };
            let before = catalog.find(&name);
            match (is_listed, before) {
                (true, None) => drop(catalog.list(spec).unwrap()),
                (false, Some(model)) => prop_assert!(catalog.retire(model)),
                (true, Some(_)) | (false, None) => {}
            }
            let found = catalog.find(&name);
            prop_assert_eq!(found.is_some(), is_listed, "what is not sold has no stand-in");
            if let Some(model) = found {
                prop_assert_eq!(&catalog.spec(model).unwrap().id, &name);
                prop_assert_eq!(*first.entry(name).or_insert(model), model);
            }
        }
    }
}

/// No model has machines of its own that what else they list could cost it.
#[test]
fn a_further_model_takes_none_away_that_a_machine_had() {
    let mut world = World::new();
    join(&mut world, 1, SPEC, &[MODEL]);
    tell(&mut world, 1, &[slot(6, 0)]);
    let before = taken_at_once(&mut world, 100, MODEL);
    world.step(Event::ProviderRestocked {
        conn: ConnId(1),
        models: Cow::Borrowed(&[MODEL, OTHER]),
    });
    tell(&mut world, 1, &[slot(6, 0)]);
    assert_eq!(taken_at_once(&mut world, 200, MODEL), before);
    let other = SlotReport {
        model: OTHER,
        ..slot(6, 0)
    };
    tell(&mut world, 1, &[slot(6, 0), other]);
    assert_eq!(taken_at_once(&mut world, 300, OTHER), before);
}
