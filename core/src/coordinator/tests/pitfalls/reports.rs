//! What a machine reports, and what a report may not do.

use super::*;
use crate::coordinator::explain::Outlook;

fn slot_of(state: SlotState) -> SlotReport {
    SlotReport {
        state,
        ..slot(4, 0)
    }
}

/// Whether a request would be sent to a machine in that state, and how long it is expected to wait there.
fn outlook(state: SlotState, free_for_load_bytes: u64) -> Option<Span> {
    let mut world = World::new();
    world.free_for_load_bytes = Some(free_for_load_bytes);
    join(&mut world, 1, SPEC, &[MODEL]);
    tell(&mut world, 1, &[slot_of(state)]);
    let told = world.core.explain(ask(1, ACCOUNT));
    (told.outlook == Outlook::Now(ConnId(1))).then(|| told.weighed[0].wait)
}

#[test]
fn an_idle_model_is_as_loaded_as_one_that_runs() {
    let cold = Limits::reference().cold_load_default;
    let running = outlook(SlotState::Running, 0).expect("it is loaded and has room");
    assert!(running < Span::secs(1));
    assert_eq!(outlook(SlotState::Idle, 0), Some(running));
    for state in [SlotState::Absent, SlotState::IdleShutdown] {
        assert_eq!(outlook(state, 0), None, "{state:?}: no room to load it");
        let wait = outlook(state, 1 << 40).expect("there is room to load it");
        assert!(wait >= cold, "{state:?}: {wait:?}");
    }
    for state in [SlotState::Crashed, SlotState::Reloading] {
        assert_eq!(outlook(state, 1 << 40), None, "{state:?}");
    }
}

fn state_of(world: &World) -> SlotState {
    world.core.roster()[0].offers[0].state
}

#[test]
fn a_report_without_a_slot_unloads_the_model_and_one_without_capacity_says_nothing() {
    let mut world = World::new();
    world.provider(1, 11, 4);
    assert_eq!(state_of(&world), SlotState::Idle);
    tell_all(&mut world, 1, MachineReport::default(), &[]);
    assert_eq!(state_of(&world), SlotState::Idle, "nothing was said of it");
    tell(&mut world, 1, &[]);
    assert_eq!(state_of(&world), SlotState::Absent, "nothing is loaded");
}

proptest! {
    /// Rows that a report allows are its number, so that each can be told from the others.
    #[test]
    fn whatever_order_reports_come_in_the_newest_counts(
        order in Just((2u64..=9).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let mut world = World::new();
        world.provider(1, 11, 1);
        for seq in order {
            let rows = u16::try_from(seq).unwrap();
            world.report(ConnId(1), seq, slot(rows, 1_000_000));
        }
        prop_assert_eq!(taken_at_once(&mut world, 100, MODEL), 9);
    }
}

#[test]
fn an_older_report_does_not_take_a_refusal_back() {
    let mut world = World::new();
    world.provider(1, 11, 4);
    world.report(ConnId(1), 7, slot(4, 0));
    let sent = dispatched(&world.ask(1)).unwrap();
    fail(&mut world, sent, AttemptFault::Busy);
    world.now = world.now + Span::secs(5);
    world.report(ConnId(1), 6, slot(4, 0));
    assert_eq!(conn_of(&world.ask(2)), None, "it was sent before");
    let effects = world.report(ConnId(1), 8, slot(4, 0));
    assert_eq!(conn_of(&effects), Some(1));
}

#[test]
fn a_refusal_is_over_with_a_later_report_whether_it_tells_of_budgets_or_not() {
    for budget_max in [0, 100_000] {
        let mut world = World::new();
        world.provider(1, 11, 4);
        tell(&mut world, 1, &[slot(4, budget_max)]);
        let sent = dispatched(&world.ask(1)).unwrap();
        fail(&mut world, sent, AttemptFault::Busy);
        leave(&mut world, 1);
        assert_eq!(conn_of(&world.ask(2)), None);
        leave(&mut world, 2);
        world.now = world.now + Span::secs(2);
        tell(&mut world, 1, &[slot(4, budget_max)]);
        assert_eq!(conn_of(&world.ask(3)), Some(1), "budget {budget_max}");
    }
}

#[test]
fn an_engine_that_suspects_itself_closes_its_model_and_no_other_until_it_takes_that_back() {
    let mut world = World::new();
    join(&mut world, 1, SPEC, &[MODEL, OTHER]);
    let other = SlotReport {
        model: OTHER,
        ..slot(4, 0)
    };
    let stuck = SlotReport {
        wedged: true,
        ..slot(4, 0)
    };
    let of_other = |id| {
        Event::Arrived(Ask {
            model: OTHER,
            ..ask(id, ACCOUNT)
        })
    };
    tell(&mut world, 1, &[stuck, other]);
    assert_eq!(conn_of(&world.ask(1)), None);
    assert_eq!(conn_of(&world.step(of_other(2))), Some(1));
    tell(&mut world, 1, &[slot(4, 0), other]);
    assert_eq!(conn_of(&world.ask(3)), Some(1));
}
