//! Which machine comes to hold which model, and what is believed of it meanwhile.

use super::*;
use crate::memory::GIB;

/// Weights of a model in these tests, and what they take when they are loaded.
const LOADED: u64 = 1_200_000;
const FREE: u64 = 1 << 40;

fn slot_of(model: ModelIx, state: SlotState) -> SlotReport {
    SlotReport {
        model,
        state,
        ..slot(2, 0)
    }
}

fn ordered(effects: &[Effect]) -> Vec<(u64, ModelIx)> {
    let loads = effects.iter().filter_map(|effect| match effect {
        Effect::LoadModel { conn, model } => Some((conn.0, *model)),
        _ => None,
    });
    loads.collect()
}

fn want(world: &mut World, model: ModelIx, machines: u16) -> Vec<(u64, ModelIx)> {
    ordered(&world.step(Event::WarmMinChanged { model, machines }))
}

/// A machine with both models on disk.
fn both_cold(world: &mut World, conn: u64) -> Vec<Effect> {
    let slots = [MODEL, OTHER].map(|model| slot_of(model, SlotState::Absent));
    tell(world, conn, &slots)
}

#[test]
fn a_warm_machine_that_the_public_cannot_use_does_not_count_as_warm() {
    let closes: [fn(&mut World); 3] = [
        |world| {
            let spec = MachineSpec {
                private_only: true,
                ..SPEC
            };
            join(world, 1, spec, &[MODEL]);
            tell(world, 1, &[slot_of(MODEL, SlotState::Idle)]);
        },
        |world| {
            join(world, 1, SPEC, &[MODEL]);
            tell(world, 1, &[slot_of(MODEL, SlotState::Idle)]);
            world.step(Event::ProviderDistrusted { conn: ConnId(1) });
        },
        |world| {
            join(world, 1, SPEC, &[MODEL]);
            tell(world, 1, &[slot_of(MODEL, SlotState::Idle)]);
            world.step(Event::ProviderUnverified { conn: ConnId(1) });
        },
    ];
    for close in closes {
        let mut world = World::new();
        world.free_for_load_bytes = Some(FREE);
        close(&mut world);
        join(&mut world, 2, SPEC, &[MODEL]);
        tell(&mut world, 2, &[slot_of(MODEL, SlotState::Absent)]);
        assert_eq!(want(&mut world, MODEL, 1), [(2, MODEL)]);
    }
    let mut world = World::new();
    world.free_for_load_bytes = Some(FREE);
    join(&mut world, 1, SPEC, &[MODEL]);
    tell(&mut world, 1, &[slot_of(MODEL, SlotState::Idle)]);
    join(&mut world, 2, SPEC, &[MODEL]);
    tell(&mut world, 2, &[slot_of(MODEL, SlotState::Absent)]);
    assert_eq!(want(&mut world, MODEL, 1), [], "one that it can use does");
}

#[test]
fn a_machine_loads_one_model_at_a_time() {
    let mut world = World::new();
    world.free_for_load_bytes = Some(FREE);
    join(&mut world, 1, SPEC, &[MODEL, OTHER]);
    both_cold(&mut world, 1);
    assert_eq!(want(&mut world, MODEL, 1), [(1, MODEL)]);
    assert_eq!(want(&mut world, OTHER, 1), [], "it is at another");
    join(&mut world, 2, SPEC, &[MODEL, OTHER]);
    let effects = both_cold(&mut world, 2);
    assert_eq!(ordered(&effects), [(2, OTHER)]);
}

/// Weights in gigabytes as models are published, memory as machines have it, and what the machine reports
/// to have free for a load.
#[test]
fn a_model_goes_to_each_machine_that_can_hold_it_and_to_no_other() {
    let gib = |tenths: u64| Some(tenths * GIB / 10);
    let table = [
        // By what the machine says: the weights take a fifth more than their files.
        (5_000, 64, gib(56), true),
        (5_000, 64, gib(55), false),
        (93_700, 192, gib(1_048), true),
        (93_700, 192, gib(1_047), false),
        (13_000, 64, Some(0), false),
        // It says nothing: by what its memory allows.
        (93_700, 48, None, false),
        (93_700, 64, None, false),
        (93_700, 128, None, true),
        // Twice the weights are more than it has, and it holds them all the same.
        (20_000, 36, None, true),
        (12_000, 18, None, true),
        (12_000, 16, None, false),
        // Nothing is known of it.
        (93_700, 0, None, true),
    ];
    for (weights_mb, memory_gb, free, is_open) in table {
        let mut config = config();
        let spec = ModelSpec {
            weights_bytes: weights_mb * 1_000_000,
            ..config.catalog.spec(MODEL).unwrap().clone()
        };
        config.catalog = Catalog::new(vec![spec]).unwrap();
        let mut world = World::of(config);
        world.free_for_load_bytes = free;
        let machine = MachineSpec { memory_gb, ..SPEC };
        join(&mut world, 1, machine, &[MODEL]);
        tell(&mut world, 1, &[slot_of(MODEL, SlotState::Absent)]);
        let effects = world.ask(1);
        let what = format!("{weights_mb} MB on {memory_gb} GB with {free:?} free");
        assert_eq!(conn_of(&effects).is_some(), is_open, "{what}");
        // What is in memory fits.
        tell(&mut world, 1, &[slot_of(MODEL, SlotState::Idle)]);
        assert_eq!(conn_of(&world.ask(2)), Some(1), "{what}");
    }
}

#[test]
fn arrivals_order_no_load_that_is_under_way() {
    let mut world = World::quiet();
    world.free_for_load_bytes = Some(FREE);
    for conn in 1..=8 {
        join(&mut world, conn, SPEC, &[MODEL]);
        tell(&mut world, conn, &[slot_of(MODEL, SlotState::Absent)]);
    }
    assert_eq!(want(&mut world, MODEL, 2).len(), 2);
    for id in 0..200 {
        world.ask(id);
    }
    assert_eq!(world.core.counts().loads_ordered, 2);
}

/// There is room for one of the two models.
#[test]
fn a_load_that_ended_takes_its_room_before_the_next_report_says_so() {
    let mut world = World::new();
    world.free_for_load_bytes = Some(LOADED + LOADED / 2);
    join(&mut world, 1, SPEC, &[MODEL, OTHER]);
    both_cold(&mut world, 1);
    assert_eq!(want(&mut world, MODEL, 1), [(1, MODEL)]);
    assert_eq!(want(&mut world, OTHER, 1), []);
    let (conn, model) = (ConnId(1), MODEL);
    let effects = world.step(Event::ModelLoaded { conn, model });
    assert_eq!(ordered(&effects), [], "its last report is of before");
    let slots = [
        slot_of(MODEL, SlotState::Idle),
        slot_of(OTHER, SlotState::Absent),
    ];
    let effects = tell(&mut world, 1, &slots);
    assert_eq!(ordered(&effects), [(1, OTHER)], "this one knows");
}
