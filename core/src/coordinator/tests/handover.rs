//! One machine, several connections: who may end whose.

use super::*;
use crate::coordinator::provider::CONNECTIONS_PER_MACHINE_MAX;

const MACHINE: u128 = 11;

fn join(world: &mut World, conn: u64) -> Vec<Effect> {
    world.step(Event::ProviderJoined {
        conn: ConnId(conn),
        machine: MachineId(MACHINE),
        owner: OWNER,
        trust: Trust::SelfSigned,
        spec: SPEC,
        models: Cow::Owned(vec![MODEL]),
    })
}

fn closed(effects: &[Effect]) -> Vec<(u64, GoneCause)> {
    let closed = effects.iter().filter_map(|effect| match effect {
        Effect::Disconnect { conn, cause } => Some((conn.0, *cause)),
        _ => None,
    });
    closed.collect()
}

fn verify(world: &mut World, conn: u64) -> Vec<(u64, GoneCause)> {
    closed(&world.step(Event::ProviderVerified { conn: ConnId(conn) }))
}

#[test]
fn a_repeated_registration_without_the_key_ends_nothing() {
    let mut world = World::new();
    world.provider(1, MACHINE, 4);
    let (attempt, _) = dispatched(&world.ask(1)).unwrap();
    for conn in 2..40 {
        let effects = join(&mut world, conn);
        assert!(closed(&effects).iter().all(|(conn, _)| *conn != 1));
    }
    let conn = ConnId(1);
    world.step(Event::AttemptStarted { conn, attempt });
    assert_eq!(
        dispatched(&world.ask(2)).map(|(_, conn)| conn),
        Some(conn),
        "the machine goes on"
    );
}

#[test]
fn newcomers_that_prove_nothing_make_room_for_each_other() {
    let mut world = World::new();
    world.provider(1, MACHINE, 4);
    let most = CONNECTIONS_PER_MACHINE_MAX as u64;
    for conn in 2..=most {
        assert_eq!(closed(&join(&mut world, conn)), []);
    }
    assert_eq!(
        closed(&join(&mut world, most + 1)),
        [(2, GoneCause::Replaced)],
        "the oldest of them"
    );
    assert_eq!(world.core.gauges().providers, CONNECTIONS_PER_MACHINE_MAX);
}

#[test]
fn a_newcomer_that_answers_its_challenge_replaces_the_old_connection() {
    let mut world = World::new();
    world.provider(1, MACHINE, 4);
    let (_, first) = dispatched(&world.ask(1)).unwrap();
    assert_eq!(first, ConnId(1));
    join(&mut world, 2);
    join(&mut world, 3);
    let effects = world.step(Event::ProviderVerified { conn: ConnId(3) });
    let replaced = GoneCause::Replaced;
    assert_eq!(closed(&effects), [(1, replaced), (2, replaced)]);
    assert_eq!(
        refused(&effects),
        Some(Denial::ProviderFailed),
        "a machine that failed a request does not get it again"
    );
    assert_eq!(verify(&mut world, 3), [], "later challenges change nothing");
    assert_eq!(world.core.gauges().providers, 1);
}

#[test]
fn two_processes_with_one_identity_are_told_and_the_working_one_stays() {
    let mut world = World::new();
    world.provider(1, MACHINE, 4);
    let mut holder = 1;
    let mut causes = Vec::new();
    for conn in 2..20 {
        join(&mut world, conn);
        let effects = world.step(Event::ProviderVerified { conn: ConnId(conn) });
        let told = effects.iter().filter_map(|effect| match effect {
            Effect::TellContested { conn } => Some(conn.0),
            _ => None,
        });
        let told: Vec<u64> = told.collect();
        for (gone, cause) in closed(&effects) {
            causes.push(cause);
            if cause == GoneCause::Replaced {
                assert_eq!(gone, holder);
                assert!(told.is_empty());
                holder = conn;
            } else {
                assert_eq!((gone, told.as_slice()), (conn, [holder].as_slice()));
            }
        }
    }
    let replaced = causes.iter().filter(|c| **c == GoneCause::Replaced);
    assert_eq!(replaced.count(), 4, "the stated rate of a minute");
    assert_eq!(causes.last(), Some(&GoneCause::Contested));
    assert_eq!(world.core.gauges().providers, 1);
    world.now = Tick(world.now.0 + 60_000_000);
    join(&mut world, 20);
    assert_eq!(verify(&mut world, 20), [(holder, GoneCause::Replaced)]);
}
