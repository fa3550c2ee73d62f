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
    // Too short to tell how fast the machine is: neither is better than the other.
    complete(world, (attempt, conn), usage(90, 12), shown(12, 48));
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

/// How often the first machine is asked by the last eight of forty requests, when it calls each of them
/// wrong and another serves all.
fn asked_at_last(
    accounts: &[AccountId],
    mut says: impl FnMut(&mut World, (AttemptKey, ConnId)) -> Vec<Effect>,
) -> usize {
    let mut world = World::new();
    world.provider(1, 11, 4);
    world.provider(2, 22, 4);
    for &account in accounts {
        let balance = MicroUsd(1_000_000);
        world.step(Event::AccountOpened { account, balance });
    }
    let mut asked = Vec::new();
    for id in 0..40 {
        let account = accounts[id % accounts.len()];
        let arrived = Event::Arrived(ask(id as u128, account));
        let mut effects = world.step(arrived);
        let mut is_asked = false;
        loop {
            let sent = dispatched(&effects).expect("a machine is asked");
            if sent.1 != ConnId(1) {
                serve(&mut world, sent);
                break;
            }
            is_asked = true;
            effects = says(&mut world, sent);
            assert_eq!(refused(&effects), None, "the consumer hears nothing of it");
        }
        asked.push(is_asked);
    }
    asked[32..].iter().filter(|is_asked| **is_asked).count()
}

const CONSUMERS: [AccountId; 3] = [AccountId(31), AccountId(32), AccountId(33)];

#[test]
fn what_no_other_machine_shares_counts_once_half_of_the_consumers_saw_it() {
    for status in [400, 413, 415, 422] {
        let refuses = |world: &mut World, sent| fail(world, sent, AttemptFault::Client(status));
        assert_eq!(asked_at_last(&CONSUMERS, refuses), 0);
        assert!(
            asked_at_last(&CONSUMERS[..1], refuses) > 0,
            "one consumer shows nothing"
        );
    }
    let nothing = |marks| {
        move |world: &mut World, sent: (AttemptKey, ConnId)| {
            let seen = Shown {
                marks,
                ..shown(0, 0)
            };
            complete(world, sent, usage(90, 1), seen)
        }
    };
    assert_eq!(asked_at_last(&CONSUMERS, nothing(1)), 0);
    assert!(asked_at_last(&CONSUMERS[..1], nothing(1)) > 0);
    // A stop string at the beginning of an answer leaves nothing of it.
    assert!(asked_at_last(&CONSUMERS, nothing(8)) > 0);
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
    assert_eq!(receipt.usage, usage(90, 12));
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

#[test]
fn a_machine_that_was_told_to_stop_is_not_held_to_what_was_shown_until_then() {
    let mut world = World::new();
    world.provider(1, 11, 4);
    for id in 0..12 {
        let (attempt, conn) = dispatched(&world.ask(id)).expect("it is never barred");
        world.step(Event::AttemptStarted { conn, attempt });
        let request = RequestId(id);
        world.step(Event::ConsumerLeft { request });
        // It had said far more by the time that it heard of it.
        let effects = complete(&mut world, (attempt, conn), usage(90, 50), shown(1, 4));
        assert!(!is_alarmed(&effects));
        world.persist();
        assert!(world.core.roster()[0].barred_for.is_none());
    }
}

#[test]
fn what_a_stop_string_held_back_is_neither_a_fault_nor_free() {
    let mut world = World::new();
    world.provider(1, 11, 4);
    let (attempt, conn) = dispatched(&world.ask(5)).unwrap();
    let seen = Shown {
        marks: 41,
        ..shown(0, 0)
    };
    complete(&mut world, (attempt, conn), usage(90, 40), seen);
    world.persist();
    let receipt = world.out.receipts[0];
    assert_eq!(receipt.usage, usage(90, 40));
    assert!(receipt.charged > MicroUsd::ZERO);
    assert!(world.core.roster()[0].barred_for.is_none());
}
