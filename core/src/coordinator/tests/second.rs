//! What one machine says against a request, and what another makes of it.

use super::*;
use crate::effect::Receipt;

fn usage(prompt_tokens: u32, completion_tokens: u32) -> Usage {
    Usage {
        prompt_tokens,
        completion_tokens,
    }
}

fn is_alarmed(effects: &[Effect]) -> bool {
    effects
        .iter()
        .any(|effect| matches!(effect, Effect::Alarm { .. }))
}

/// A machine says what it has to say and is done.
fn serve(world: &mut World, (attempt, conn): (AttemptKey, ConnId)) -> Receipt {
    world.step(Event::AttemptAccepted { conn, attempt });
    world.step(Event::AttemptStarted { conn, attempt });
    complete(world, (attempt, conn), usage(90, 20), shown(20, 80));
    world.persist();
    *world.out.receipts.last().expect("it is finished")
}

fn complete(
    world: &mut World,
    (attempt, conn): (AttemptKey, ConnId),
    usage: Usage,
    shown: Shown,
) -> Vec<Effect> {
    world.step(Event::AttemptCompleted {
        conn,
        attempt,
        usage,
        shown,
        ending: Ending::Said,
    })
}

fn fail(
    world: &mut World,
    (attempt, conn): (AttemptKey, ConnId),
    fault: AttemptFault,
) -> Vec<Effect> {
    world.step(Event::AttemptFailed {
        conn,
        attempt,
        fault,
    })
}

/// Where the next requests go, each served at once.
fn next_conns(world: &mut World, count: u128) -> Vec<ConnId> {
    (0..count)
        .map(|id| {
            let sent = dispatched(&world.ask(1_000 + id)).expect("a machine is free");
            serve(world, sent);
            sent.1
        })
        .collect()
}

#[test]
fn a_client_error_that_the_next_machine_does_not_share_is_the_first_machines() {
    for status in [400, 413, 415, 422] {
        let mut world = World::new();
        world.provider(1, 11, 4);
        world.provider(2, 22, 4);
        let first = dispatched(&world.ask(5)).unwrap();
        let effects = fail(&mut world, first, AttemptFault::Client(status));
        assert_eq!(refused(&effects), None, "the consumer hears nothing yet");
        let second = dispatched(&effects).expect("another machine is asked");
        assert_ne!(second.1, first.1);
        assert_eq!(serve(&mut world, second).attempts, 2);
        let conns = next_conns(&mut world, 8);
        assert!(!conns.contains(&first.1), "its share falls at once");
    }
}

#[test]
fn a_client_error_that_two_machines_share_is_the_consumers_and_nobodys_fault() {
    let mut world = World::new();
    world.provider(1, 11, 4);
    world.provider(2, 22, 4);
    let first = dispatched(&world.ask(5)).unwrap();
    let effects = fail(&mut world, first, AttemptFault::Client(422));
    let second = dispatched(&effects).unwrap();
    let effects = fail(&mut world, second, AttemptFault::Client(400));
    assert_eq!(refused(&effects), Some(Denial::Client(422)));
    world.core.invariant_quiescent();
    let conns = next_conns(&mut world, 24);
    assert!(conns.contains(&ConnId(1)) && conns.contains(&ConnId(2)));
}

/// A machine of an owner of its own.
fn owned(world: &mut World, conn: u64) {
    world.step(Event::ProviderJoined {
        conn: ConnId(conn),
        machine: MachineId(u128::from(conn) * 11),
        owner: AccountId(100 + conn),
        trust: Trust::SelfSigned,
        spec: SPEC,
        models: Cow::Owned(vec![MODEL]),
    });
    world.step(Event::ProviderVerified { conn: ConnId(conn) });
    world.report(ConnId(conn), 1, slot(4, 0));
}

#[test]
fn machines_that_call_everything_wrong_agree_with_nobody() {
    let mut world = World::new();
    for conn in 1..=3 {
        owned(&mut world, conn);
    }
    // Only the third ever serves; the others may be asked first or not.
    for id in 0..20 {
        let mut effects = world.ask(id);
        loop {
            assert_eq!(refused(&effects), None, "request {id}");
            let sent = dispatched(&effects).expect("a machine is asked");
            if sent.1 == ConnId(3) {
                serve(&mut world, sent);
                break;
            }
            effects = fail(&mut world, sent, AttemptFault::Client(400));
        }
    }
}

#[test]
fn machines_of_two_owners_that_serve_are_believed_when_they_agree() {
    let mut world = World::new();
    for conn in 1..=3 {
        owned(&mut world, conn);
    }
    let mut served = Vec::new();
    while served.len() < 3 {
        let sent = dispatched(&world.ask(500 + u128::from(world.core.steps()))).unwrap();
        serve(&mut world, sent);
        served.push(sent.1);
        served.sort_unstable();
        served.dedup();
    }
    let first = dispatched(&world.ask(5)).unwrap();
    let effects = fail(&mut world, first, AttemptFault::Client(400));
    let second = dispatched(&effects).expect("another is asked");
    let effects = fail(&mut world, second, AttemptFault::Client(400));
    assert_eq!(
        refused(&effects),
        Some(Denial::Client(400)),
        "two are enough"
    );
}

#[test]
fn a_machine_that_is_alone_is_believed() {
    let mut world = World::new();
    world.provider(1, 11, 4);
    let only = dispatched(&world.ask(5)).unwrap();
    let effects = fail(&mut world, only, AttemptFault::Client(400));
    assert_eq!(refused(&effects), Some(Denial::Client(400)));
}

#[test]
fn an_answer_without_a_piece_costs_nothing_and_another_machine_is_asked() {
    let mut world = World::new();
    world.provider(1, 11, 4);
    world.provider(2, 22, 4);
    let first = dispatched(&world.ask(5)).unwrap();
    let billion = usage(1_000_000_000, 1_000_000_000);
    let nothing = Shown {
        marks: 1,
        ..Shown::default()
    };
    let effects = complete(&mut world, first, billion, nothing);
    assert!(is_alarmed(&effects));
    let second = dispatched(&effects).expect("another machine is asked");
    let receipt = serve(&mut world, second);
    assert_eq!(receipt.machine, MachineId(u128::from(second.1.0) * 11));
    assert_eq!(receipt.usage, usage(90, 20));
    assert!(!next_conns(&mut world, 8).contains(&first.1));
}

#[test]
fn an_empty_answer_that_nobody_else_can_better_is_given_and_is_free() {
    let mut world = World::new();
    world.provider(1, 11, 4);
    world.provider(2, 22, 4);
    let first = dispatched(&world.ask(5)).unwrap();
    // What ends an answer is a token, and no content.
    let nothing = Shown {
        marks: 1,
        ..Shown::default()
    };
    let second = dispatched(&complete(&mut world, first, usage(90, 1), nothing));
    let second = second.expect("another machine is asked");
    complete(&mut world, second, usage(90, 1), nothing);
    world.persist();
    let receipt = world.out.receipts[0];
    assert_eq!(
        (receipt.charged, receipt.usage),
        (MicroUsd::ZERO, Usage::default())
    );
    world.core.invariant_quiescent();
    let account = world.core.books().account(ACCOUNT).unwrap();
    assert_eq!(account.available, MicroUsd(1_000_000));
}

#[test]
fn a_broken_encryption_contract_before_content_costs_the_machine_and_not_the_request() {
    let mut world = World::new();
    world.provider(1, 11, 4);
    world.provider(2, 22, 4);
    let first = dispatched(&world.ask(5)).unwrap();
    let effects = fail(&mut world, first, AttemptFault::Encryption);
    let second = dispatched(&effects).expect("another machine is asked");
    serve(&mut world, second);
    assert!(!next_conns(&mut world, 4).contains(&first.1));
}
