//! What an operator is shown of the fleet.

use super::*;
use crate::coordinator::roster::{Audience, Present};
use crate::link::NOTHING_SOLD;
use crate::time::Span;

fn join(world: &mut World, conn: u64, spec: MachineSpec, models: &[ModelIx]) {
    world.step(Event::ProviderJoined {
        conn: ConnId(conn),
        machine: MachineId(u128::from(conn) + 10),
        owner: OWNER,
        trust: Trust::SelfSigned,
        spec,
        models: Cow::Borrowed(models),
    });
}

fn gates(present: &Present) -> Vec<String> {
    let offers = present.offers.iter();
    offers.map(|offer| offer.closed.join(", ")).collect()
}

#[test]
fn each_connected_machine_is_listed_with_its_load_and_what_keeps_work_from_it() {
    let mut world = World::new();
    assert_eq!(world.core.roster(), []);
    world.provider(1, 11, 1);
    join(&mut world, 2, SPEC, &[MODEL, ModelIx(1)]);
    let private = MachineSpec {
        private_only: true,
        ..SPEC
    };
    join(&mut world, 3, private, &[]);
    assert!(dispatched(&world.ask(1)).is_some());
    let roster = world.core.roster();
    let [busy, unproven, idle] = roster.as_slice() else {
        panic!("three machines, not {}", roster.len());
    };
    assert_eq!((busy.conn, busy.machine), (ConnId(1), MachineId(11)));
    assert_eq!((busy.owner, busy.trust), (OWNER, Trust::SelfSigned));
    assert!(busy.is_verified);
    assert_eq!((busy.pending, busy.offers[0].pending), (1, 1));
    assert_eq!(busy.offers[0].concurrency_max, 1);
    assert_eq!(gates(busy), ["full"]);
    assert_eq!(busy.hindrance(), None);

    assert!(!unproven.is_verified);
    assert_eq!(gates(unproven), ["not verified", "not verified"]);
    assert_eq!(unproven.audience, Audience::Everybody);

    assert_eq!(idle.audience, Audience::Owner);
    assert_eq!(idle.hindrance(), Some(NOTHING_SOLD));
}

#[test]
fn a_bar_and_the_age_of_a_report_are_shown_as_they_run_out() {
    let mut world = World::new();
    world.provider(1, 11, 4);
    world.provider(2, 12, 4);
    let conn = ConnId(1);
    for _ in 0..3 {
        world.core.fleet.blame(world.now, MachineId(11), 1);
    }
    let slot = world.core.fleet.find(conn).unwrap();
    world.core.fleet.refresh(slot, &config());
    world.is_checked = false;
    world.now = Tick(world.now.0 + 9_999_000);
    world.step(Event::Woke);
    let roster = world.core.roster();
    assert_eq!(gates(&roster[0]), ["barred"]);
    let left = roster[0].barred_for.unwrap();
    assert!(
        (Span::secs(19)..=Span::secs(21)).contains(&left),
        "{left:?}"
    );
    assert!(roster[0].report_age >= Span::secs(9));
    assert_eq!(roster[1].barred_for, None);
}
