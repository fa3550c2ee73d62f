//! What the fleet offers, to whom, and what closes it.

use super::*;
use crate::coordinator::fleet::{INSPECTED_MAX, INSPECTED_PER_SOURCE_MAX};

fn conn_of(effects: &[Effect]) -> Option<ConnId> {
    dispatched(effects).map(|(_, conn)| conn)
}

fn restock(world: &mut World, conn: u64, models: &[ModelIx]) {
    world.step(Event::ProviderRestocked {
        conn: ConnId(conn),
        models: Cow::Borrowed(models),
    });
}

/// A machine whose reports have no capacity record.
fn mute_report(world: &mut World, conn: u64, seq: u64) {
    let report = MachineReport {
        seq,
        ..MachineReport::default()
    };
    world.step(Event::ProviderReported {
        conn: ConnId(conn),
        report,
        slots: Cow::Borrowed(&[]),
    });
}

#[test]
fn a_withdrawn_model_gets_nothing_more_though_its_attempts_run_on() {
    let mut world = World::new();
    world.provider(1, 11, 4);
    let (attempt, conn) = dispatched(&world.ask(1)).unwrap();
    restock(&mut world, 1, &[ModelIx(1)]);
    assert!(matches!(
        refused(&world.ask(2)),
        Some(Denial::NoProvider { .. })
    ));
    // What runs there ends as usual, and the offer goes with it.
    world.step(Event::AttemptStarted { conn, attempt });
    world.step(completed((attempt, conn), 10));
    assert!(matches!(world.persist()[..], [Effect::Finish { .. }]));
    world.report(conn, 2, slot(4, 0));
    assert_eq!(world.core.fleet.offers_count(), 1);
}

#[test]
fn a_model_that_is_listed_again_is_open_again() {
    let mut world = World::new();
    world.provider(1, 11, 4);
    world.ask(1);
    restock(&mut world, 1, &[]);
    restock(&mut world, 1, &[MODEL]);
    assert_eq!(conn_of(&world.ask(2)), Some(ConnId(1)));
}

#[test]
fn cancels_that_linger_do_not_close_a_machine_without_capacity_records_for_ever() {
    let mut world = World::new();
    world.provider(1, 11, 4);
    mute_report(&mut world, 1, 2);
    for id in 0..4 {
        assert!(dispatched(&world.ask(id)).is_some());
        world.step(Event::ConsumerLeft {
            request: RequestId(id),
        });
    }
    assert_eq!(conn_of(&world.ask(4)), None, "they may still run");
    mute_report(&mut world, 1, 3);
    assert_eq!(conn_of(&world.ask(5)), Some(ConnId(1)));
}

#[test]
fn a_machine_that_is_full_now_does_not_make_requests_too_long() {
    let mut world = World::new();
    let spent = SlotReport {
        budget_used: 1,
        ..slot(4, SlotReport::BUDGET_SPENT)
    };
    world.provider(1, 11, 4);
    world.report(ConnId(1), 2, spent);
    let effects = world.ask(1);
    assert_eq!((refused(&effects), dispatched(&effects)), (None, None));
    assert_eq!(world.core.gauges().queued, 1);
    let effects = world.report(ConnId(1), 3, slot(4, 1_000));
    assert_eq!(conn_of(&effects), Some(ConnId(1)));
}

#[test]
fn what_no_machine_can_hold_is_refused_at_once_and_a_machine_without_budget_may_hold_it() {
    let mut world = World::new();
    world.provider(1, 11, 4);
    world.report(ConnId(1), 2, slot(4, 140));
    assert!(matches!(
        refused(&world.ask(1)),
        Some(Denial::NoneLargeEnough { .. })
    ));
    world.provider(2, 22, 1);
    assert_eq!(conn_of(&world.ask(2)), Some(ConnId(2)));
    assert_eq!(refused(&world.ask(3)), None, "it waits for the second");
}

#[test]
fn a_private_machine_serves_its_owner_and_nobody_else() {
    let mut world = World::new();
    let conn = ConnId(1);
    world.step(Event::ProviderJoined {
        conn,
        machine: MachineId(11),
        owner: ACCOUNT,
        trust: Trust::SelfSigned,
        spec: MachineSpec {
            private_only: true,
            ..SPEC
        },
        models: Cow::Owned(vec![MODEL]),
    });
    world.step(Event::ProviderVerified { conn });
    world.report(conn, 1, slot(1, 0));
    let stranger = AccountId(2);
    let effects = world.step(Event::Arrived(ask(1, stranger)));
    assert!(matches!(refused(&effects), Some(Denial::NoProvider { .. })));
    let running = dispatched(&world.ask(2)).unwrap();
    assert_eq!(running.1, conn);
    // Both wait, the stranger first; only one of them may have the private machine.
    world.provider(2, 22, 1);
    assert_eq!(
        conn_of(&world.step(Event::Arrived(ask(3, stranger)))),
        Some(ConnId(2))
    );
    world.step(Event::Arrived(ask(4, stranger)));
    world.ask(5);
    let effects = world.step(Event::AttemptFailed {
        conn,
        attempt: running.0,
        fault: AttemptFault::Client(400),
    });
    let served = effects.iter().find_map(|effect| match effect {
        Effect::Dispatch { request, .. } => Some(*request),
        _ => None,
    });
    assert_eq!(served, Some(RequestId(5)));
}

#[test]
fn a_choice_looks_at_no_more_machines_than_stated_however_many_are_too_small() {
    let mut world = World::quiet();
    for machine in 1..=400u64 {
        world.provider(machine, u128::from(machine), 4);
        world.report(ConnId(machine), 2, slot(4, 200));
        // Too small for the request at this moment, not for ever.
        let used = SlotReport {
            budget_used: 150,
            ..slot(4, 200)
        };
        world.report(ConnId(machine), 3, used);
    }
    let ask = ask(1, ACCOUNT);
    let core = &world.core;
    let inspected = core.fleet.weighing(core.want(&ask), &core.config).inspected;
    assert!(inspected <= INSPECTED_MAX + INSPECTED_PER_SOURCE_MAX);
    assert_eq!(refused(&world.ask(1)), None, "it waits");
}

#[test]
fn every_timer_has_its_place() {
    let mut config = config();
    config.limits.providers_max = 3;
    config.limits.requests_max = 9;
    let mut world = World::of(config);
    // Machines come, earn a bar and go, more of them than can be here at once.
    for machine in 1..=12u64 {
        world.provider(machine, u128::from(machine), 4);
        for id in 0..3 {
            let (attempt, conn) = dispatched(&world.ask(id)).unwrap();
            world.step(Event::AttemptFailed {
                conn,
                attempt,
                fault: AttemptFault::Internal,
            });
            // Whatever became of the request, it is not what this is about.
            world.step(Event::ConsumerLeft {
                request: RequestId(id),
            });
        }
        if machine < 10 {
            world.step(Event::ProviderLeft {
                conn: ConnId(machine),
                cause: GoneCause::Closed,
            });
        }
    }
    // What lingered is gone.
    for conn in 10..=12 {
        world.report(ConnId(conn), 2, slot(4, 0));
    }
    for id in 100..109 {
        assert!(
            dispatched(&world.ask(id)).is_some(),
            "barred, and all there is"
        );
    }
    assert!(!world.alarms.contains(&Alarm::TimersFull));
}

#[test]
fn a_proof_whose_age_cannot_be_timed_is_none() {
    let mut world = World::new();
    world.core.timers.close();
    world.provider(1, 11, 4);
    assert!(world.alarms.contains(&Alarm::TimersFull));
    assert!(matches!(
        refused(&world.ask(1)),
        Some(Denial::NoProvider { .. })
    ));
}

#[test]
fn an_explanation_counts_what_closes_the_offers() {
    let mut world = World::new();
    world.provider(1, 11, 4);
    world.provider(2, 22, 4);
    world.step(Event::ProviderUnverified { conn: ConnId(2) });
    let why = world.core.explain(ask(1, ACCOUNT)).to_string();
    assert!(why.contains("goes to connection 1 now"), "{why}");
    assert!(why.contains("1 closed: not verified"), "{why}");
}

#[test]
fn an_explanation_names_whom_the_choice_compares_with_every_term_and_the_chosen_first() {
    let mut world = World::quiet();
    for (machine, prefill_mtps) in [(1u64, 2_000_000), (2, 1_000_000), (3, 500_000)] {
        world.provider(machine, u128::from(machine) * 11, 4);
        let told = SlotReport {
            prefill_mtps,
            ..slot(4, 1_000_000)
        };
        world.report(ConnId(machine), 2, told);
    }
    for id in 1..=6 {
        let explanation = world.core.explain(ask(id, ACCOUNT));
        let first = explanation.weighed.first().unwrap();
        for it in &explanation.weighed {
            let terms = [it.prefill, it.stalled, it.answer, it.slowed];
            assert_eq!(
                it.cost,
                terms.into_iter().fold(it.wait, |sum, term| sum + term)
            );
            assert!(first.cost <= it.cost);
        }
        let (_, conn) = dispatched(&world.ask(id)).unwrap();
        assert_eq!(first.conn, conn, "the same code decides");
        let text = explanation.to_string();
        assert!(text.contains("compared; milliseconds"), "{text}");
    }
}
