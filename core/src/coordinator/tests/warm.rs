//! Models that are kept in memory.

use super::*;
use crate::coordinator::fleet::LOAD_WAIT_MAX;
use crate::time::Span;

fn cold() -> SlotReport {
    SlotReport {
        state: SlotState::Absent,
        ..slot(2, 0)
    }
}

/// A machine that has the model on disk and so many bytes free.
fn cold_machine(world: &mut World, conn: u64, free: u64) {
    world.provider(conn, u128::from(conn) + 10, 2);
    report(world, conn, cold(), free);
}

fn report(world: &mut World, conn: u64, slot: SlotReport, free: u64) -> Vec<Effect> {
    world.step(Event::ProviderReported {
        conn: ConnId(conn),
        report: MachineReport {
            seq: 0,
            has_capacity: true,
            free_for_load_bytes: Some(free),
            ..MachineReport::default()
        },
        slots: Cow::Owned(vec![slot]),
    })
}

fn want(world: &mut World, machines: u16) -> Vec<u64> {
    loads(&world.step(Event::WarmMinChanged {
        model: MODEL,
        machines,
    }))
}

fn loads(effects: &[Effect]) -> Vec<u64> {
    let loads = effects.iter().filter_map(|effect| match effect {
        Effect::LoadModel { conn, model } if *model == MODEL => Some(conn.0),
        _ => None,
    });
    loads.collect()
}

fn loaded(conn: u64) -> Event<'static> {
    Event::ModelLoaded {
        conn: ConnId(conn),
        model: MODEL,
    }
}

fn failed(conn: u64, draining: bool) -> Event<'static> {
    Event::ModelLoadFailed {
        conn: ConnId(conn),
        model: MODEL,
        draining,
    }
}

const FREE: u64 = 1 << 40;

#[test]
fn as_many_machines_load_a_model_as_are_wanted_and_no_more() {
    let mut world = World::new();
    for conn in 1..=4 {
        cold_machine(&mut world, conn, FREE);
    }
    assert_eq!(want(&mut world, 2).len(), 2);
    assert_eq!(world.core.counts().loads_ordered, 2);
    assert_eq!(want(&mut world, 2), [0; 0], "those are under way");
    assert_eq!(want(&mut world, 3).len(), 1);
    assert_eq!(want(&mut world, 0), [0; 0]);
}

#[test]
fn the_machine_whose_memory_fits_best_loads() {
    let mut world = World::new();
    for (conn, free) in [(1, FREE), (2, FREE / 2), (3, 1)] {
        cold_machine(&mut world, conn, free);
    }
    assert_eq!(want(&mut world, 1), [2], "the third has no room");
}

#[test]
fn a_machine_that_is_busy_or_says_not_what_it_has_free_loads_nothing() {
    let mut world = World::new();
    cold_machine(&mut world, 1, FREE);
    assert!(dispatched(&world.ask(1)).is_some());
    world.provider(2, 22, 2);
    world.report(ConnId(2), 0, cold());
    assert_eq!(want(&mut world, 1), [0; 0]);
    let effects = report(&mut world, 2, cold(), FREE);
    assert_eq!(loads(&effects), [2], "it has said so now");
}

#[test]
fn a_load_that_failed_goes_to_another_machine_and_the_first_rests() {
    let mut world = World::new();
    cold_machine(&mut world, 1, FREE / 2);
    cold_machine(&mut world, 2, FREE);
    assert_eq!(want(&mut world, 1), [1]);
    assert_eq!(loads(&world.step(failed(1, false))), [2]);
    assert_eq!(loads(&world.step(failed(2, true))), [0; 0], "both rest");
    world.now = world.now + Span::secs(29);
    assert_eq!(loads(&world.step(Event::Woke)), [0; 0]);
    report(&mut world, 1, cold(), FREE / 2);
    report(&mut world, 2, cold(), FREE);
    world.now = world.now + Span::secs(2);
    assert_eq!(
        loads(&world.step(Event::Woke)),
        [2],
        "it was only restarting"
    );
}

#[test]
fn a_load_of_which_nothing_is_heard_has_failed_and_one_whose_machine_left_is_ordered_anew() {
    let mut world = World::new();
    cold_machine(&mut world, 1, FREE / 2);
    cold_machine(&mut world, 2, FREE);
    assert_eq!(want(&mut world, 1), [1]);
    let mut ordered = Vec::new();
    let until = world.now + LOAD_WAIT_MAX;
    while world.now < until {
        world.now = world.now + Span::secs(5);
        ordered.extend(loads(&report(&mut world, 1, cold(), FREE / 2)));
        ordered.extend(loads(&report(&mut world, 2, cold(), FREE)));
        ordered.extend(loads(&world.step(Event::Woke)));
    }
    assert_eq!(ordered, [2]);
    cold_machine(&mut world, 3, FREE);
    let effects = world.step(Event::ProviderLeft {
        conn: ConnId(2),
        cause: GoneCause::Lost,
    });
    assert_eq!(loads(&effects), [3]);
    world.step(loaded(3));
    assert_eq!(world.core.roster()[1].offers[0].state, SlotState::Idle);
}

#[test]
fn a_loaded_model_takes_what_waits_and_news_that_nobody_asked_for_are_counted() {
    let mut world = World::new();
    cold_machine(&mut world, 1, FREE);
    world.step(loaded(1));
    assert_eq!(world.core.counts().loads_unasked, 1);
    assert_eq!(world.core.roster()[0].offers[0].state, SlotState::Absent);
    assert_eq!(want(&mut world, 1), [1]);
    world.step(loaded(1));
    assert_eq!(world.core.roster()[0].offers[0].state, SlotState::Idle);
    // It throws the model out again: somebody has to load it.
    assert_eq!(loads(&report(&mut world, 1, cold(), FREE)), [1]);
}
