//! What a request demands of a machine, and what becomes of it where nobody has that.

use super::*;
use crate::event::Machines;
use crate::time::Span;

fn join(world: &mut World, conn: u64, trust: Trust, owner: AccountId, private_only: bool) {
    let id = ConnId(conn);
    world.step(Event::ProviderJoined {
        conn: id,
        machine: MachineId(u128::from(conn)),
        owner,
        trust,
        spec: MachineSpec {
            private_only,
            ..SPEC
        },
        models: Cow::Owned(vec![MODEL]),
    });
    world.step(Event::ProviderVerified { conn: id });
    world.report(id, 1, slot(1, 0));
}

fn trusting(id: u128) -> Ask {
    Ask {
        trust_min: Trust::Hardware,
        ..ask(id, ACCOUNT)
    }
}

fn conn_of(effects: &[Effect]) -> Option<ConnId> {
    dispatched(effects).map(|(_, conn)| conn)
}

#[test]
fn what_no_machine_has_is_refused_at_once_and_counted_by_its_reason() {
    let mut world = World::new();
    join(&mut world, 1, Trust::SelfSigned, OWNER, false);
    let effects = world.step(Event::Arrived(trusting(1)));
    assert!(matches!(refused(&effects), Some(Denial::NoneSuited { .. })));
    let small = Ask {
        output_tokens_max: 9_000,
        ..ask(2, ACCOUNT)
    };
    world.step(Event::Arrived(small));
    let refusals: Vec<_> = world.core.counts().refusals().collect();
    assert_eq!(
        refusals,
        [("context_length_exceeded", 1), ("no_provider_suited", 1)]
    );
    assert_eq!(conn_of(&world.ask(3)), Some(ConnId(1)));
}

/// INV-07.
#[test]
fn who_demands_trust_waits_for_a_machine_that_has_it_and_takes_no_other() {
    let mut world = World::new();
    join(&mut world, 1, Trust::Hardware, OWNER, false);
    let running = world.step(Event::Arrived(trusting(1)));
    let running = dispatched(&running).unwrap();
    join(&mut world, 2, Trust::SelfSigned, OWNER, false);
    let effects = world.step(Event::Arrived(trusting(2)));
    assert_eq!((conn_of(&effects), refused(&effects)), (None, None));
    assert_eq!(conn_of(&world.ask(3)), Some(ConnId(2)), "who demands less");
    world.step(Event::AttemptStarted {
        conn: running.1,
        attempt: running.0,
    });
    let effects = world.step(completed(running, 10));
    assert_eq!(conn_of(&effects), Some(ConnId(1)));
}

#[test]
fn whoever_asks_for_its_own_machines_gets_no_other() {
    let mut world = World::new();
    join(&mut world, 1, Trust::SelfSigned, OWNER, false);
    let own = |id, machines| Ask {
        machines,
        ..ask(id, ACCOUNT)
    };
    let effects = world.step(Event::Arrived(own(1, Machines::Own)));
    assert!(matches!(refused(&effects), Some(Denial::NoProvider { .. })));
    join(&mut world, 2, Trust::SelfSigned, ACCOUNT, true);
    let first = world.step(Event::Arrived(own(2, Machines::OwnFirst)));
    assert_eq!(conn_of(&first), Some(ConnId(2)));
    let waits = world.step(Event::Arrived(own(3, Machines::Own)));
    assert_eq!((conn_of(&waits), refused(&waits)), (None, None));
    let second = world.step(Event::Arrived(own(4, Machines::OwnFirst)));
    assert_eq!(conn_of(&second), Some(ConnId(1)), "its own is busy");
}

#[test]
fn a_request_that_is_in_a_hurry_ends_before_the_limits_would_end_it() {
    let mut world = World::new();
    join(&mut world, 1, Trust::SelfSigned, OWNER, false);
    world.ask(1);
    let hurried = Ask {
        content_within: Some(Span::secs(2)),
        ..ask(2, ACCOUNT)
    };
    world.step(Event::Arrived(hurried));
    assert_eq!(world.core.gauges().queued, 1);
    world.now = world.now + Span::secs(2);
    let effects = world.step(Event::Woke);
    assert!(matches!(refused(&effects), Some(Denial::Full { .. })));
}

#[test]
fn an_explanation_says_what_was_demanded() {
    let mut world = World::new();
    join(&mut world, 1, Trust::SelfSigned, OWNER, false);
    let why = world.core.explain(trusting(1)).to_string();
    assert!(why.contains("an identity proven by hardware"), "{why}");
    assert!(why.contains("no machine is what it demands"), "{why}");
}

/// More is asked of the others than they can do; that is no reason to turn an owner away from its own.
#[test]
fn overload_of_the_others_turns_nobody_away_from_its_own_machines() {
    let mut config = config();
    config.limits.overload_after = Span::secs(3);
    config.limits.queue_depth_max = 64;
    let mut world = World::of(config);
    join(&mut world, 1, Trust::SelfSigned, OWNER, false);
    join(&mut world, 2, Trust::SelfSigned, ACCOUNT, true);
    // One answer ends while others wait, so that it is known how slowly the queue moves.
    let crowd = |id| ask(id, AccountId(2));
    let mut running = dispatched(&world.step(Event::Arrived(crowd(1)))).unwrap();
    let mut turned_away = 0;
    for id in 2..40 {
        world.now = world.now + Span::millis(900);
        let effects = world.step(Event::Arrived(crowd(id)));
        turned_away += u32::from(matches!(refused(&effects), Some(Denial::Full { .. })));
        if id % 8 == 0 {
            let effects = world.step(completed(running, 10));
            running = dispatched(&effects).unwrap_or(running);
            world.persist();
        }
        for conn in [1, 2] {
            world.report(ConnId(conn), u64::try_from(id).unwrap(), slot(1, 0));
        }
    }
    assert!(turned_away > 0, "the others are overloaded");
    let own = |id| Ask {
        machines: Machines::Own,
        ..ask(id, ACCOUNT)
    };
    let first = world.step(Event::Arrived(own(100)));
    assert_eq!(conn_of(&first), Some(ConnId(2)));
    let second = world.step(Event::Arrived(own(101)));
    assert_eq!((conn_of(&second), refused(&second)), (None, None), "waits");
}
