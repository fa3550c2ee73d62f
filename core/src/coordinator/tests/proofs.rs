//! What is proven of a machine holds for a time, and gates read it.

use super::*;
use crate::coordinator::fleet::PROOFS_MAX;
use crate::time::Span;
use crate::traits::Traits;

const CONN: ConnId = ConnId(1);

fn proven(gives: Traits, valid_for: Span) -> Event<'static> {
    Event::ProviderAttested {
        conn: CONN,
        gives,
        valid_for,
    }
}

fn trusting(id: u128) -> Event<'static> {
    Event::Arrived(Ask {
        trust_min: Trust::Hardware,
        ..ask(id, ACCOUNT)
    })
}

fn hardware() -> Traits {
    Traits::of_trust(Trust::Hardware)
}

#[test]
fn a_proof_opens_a_machine_until_it_expires_and_what_runs_goes_on() {
    let mut world = World::new();
    world.provider(1, 11, 4);
    let effects = world.step(trusting(1));
    assert!(matches!(refused(&effects), Some(Denial::NoneSuited { .. })));
    world.step(proven(hardware(), Span::secs(20)));
    assert_eq!(world.core.roster()[0].trust, Trust::Hardware);
    let running = world.step(trusting(2));
    let (attempt, conn) = dispatched(&running).expect("the proof holds");
    world.step(Event::AttemptStarted { conn, attempt });
    world.persist();

    world.now = world.now + Span::secs(20);
    let effects = world.step(Event::Woke);
    assert_eq!(effects, [], "what was sent while it held goes on");
    assert_eq!(world.core.roster()[0].trust, Trust::SelfSigned);
    let effects = world.step(trusting(3));
    assert!(matches!(refused(&effects), Some(Denial::NoneSuited { .. })));
    world.step(completed((attempt, conn), 5));
    assert!(
        dispatched(&world.ask(4)).is_some(),
        "who demands less is served"
    );
}

#[test]
fn a_newer_proof_takes_the_place_of_an_older_and_one_of_no_time_takes_it_back() {
    let mut world = World::new();
    world.provider(1, 11, 4);
    world.step(proven(hardware(), Span::secs(5)));
    world.step(proven(hardware(), Span::secs(25)));
    world.now = world.now + Span::secs(10);
    world.step(Event::Woke);
    assert!(dispatched(&world.step(trusting(1))).is_some());
    world.step(proven(hardware(), Span::ZERO));
    let effects = world.step(trusting(2));
    assert!(matches!(refused(&effects), Some(Denial::NoneSuited { .. })));
}

#[test]
fn a_floor_of_the_whole_coordinator_is_met_by_a_proof() {
    let mut world = World::of(Config {
        trust_min: Trust::Hardware,
        ..config()
    });
    world.provider(1, 11, 4);
    assert!(refused(&world.ask(1)).is_some());
    world.step(proven(hardware(), Span::secs(20)));
    assert!(dispatched(&world.ask(2)).is_some());
}

#[test]
fn a_request_that_waits_for_a_trait_goes_out_when_it_is_proven() {
    let mut world = World::new();
    world.provider(1, 11, 1);
    world.step(proven(hardware(), Span::secs(20)));
    let first = dispatched(&world.step(trusting(1))).unwrap();
    assert_eq!(
        dispatched(&world.step(trusting(2))),
        None,
        "the machine is full"
    );
    world.step(proven(hardware(), Span::ZERO));
    let effects = world.step(completed(first, 5));
    assert_eq!(
        dispatched(&effects),
        None,
        "the machine has the trait no more"
    );
    assert!(dispatched(&world.step(proven(hardware(), Span::secs(9)))).is_some());
}

#[test]
fn more_proofs_than_are_kept_raise_an_alarm_and_change_nothing() {
    let mut world = World::new();
    world.provider(1, 11, 1);
    for bit in 0..=PROOFS_MAX {
        let gives = serde_json::from_str(&(1_u32 << (bit + 8)).to_string()).unwrap();
        world.step(proven(gives, Span::secs(60)));
    }
    assert_eq!(world.alarms, [Alarm::ProofsFull]);
    world.step(Event::ProviderLeft {
        conn: CONN,
        cause: GoneCause::Closed,
    });
    world.core.invariant_quiescent();
}

/// INV-07.
#[test]
fn a_proof_that_has_expired_opens_nothing_though_nobody_was_woken() {
    let mut world = World::new();
    world.provider(1, 11, 4);
    world.step(proven(hardware(), Span::secs(20)));
    world.now = world.now + Span::secs(20);
    let effects = world.step(trusting(1));
    assert!(matches!(refused(&effects), Some(Denial::NoneSuited { .. })));
}
