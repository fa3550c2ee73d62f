//! A second attempt beside the first: when it begins, who wins, and who is paid.

use super::*;
use crate::time::Span;

const HALF: u8 = 50;

/// Two machines of different owners; a second attempt begins at that share of the patience.
fn world(second_attempt_percent: u8) -> World {
    let mut world = empty(second_attempt_percent);
    join(&mut world, 1, OWNER, slot(4, 0));
    join(&mut world, 2, AccountId(19), slot(4, 0));
    world
}

fn empty(second_attempt_percent: u8) -> World {
    let mut config = config();
    config.limits.second_attempt_percent = second_attempt_percent;
    World::of(config)
}

fn join(world: &mut World, conn: u64, owner: AccountId, slot: SlotReport) {
    let id = ConnId(conn);
    world.step(Event::ProviderJoined {
        conn: id,
        machine: MachineId(u128::from(conn) * 11),
        owner,
        trust: Trust::SelfSigned,
        spec: SPEC,
        models: Cow::Owned(vec![MODEL]),
    });
    world.report(id, 1, slot);
    world.step(Event::ProviderVerified { conn: id });
}

/// A request that its machine accepts, and says nothing more of.
fn accepted(world: &mut World, id: u128) -> (AttemptKey, ConnId) {
    let (attempt, conn) = dispatched(&world.ask(id)).expect("a machine is free");
    world.step(Event::AttemptAccepted { conn, attempt });
    (attempt, conn)
}

fn pass(world: &mut World, span: Span) -> Vec<Effect> {
    world.now = world.now + span;
    world.step(Event::Woke)
}

/// The first attempt of a request and the second that has begun beside it.
fn both(world: &mut World) -> [(AttemptKey, ConnId); 2] {
    let first = accepted(world, 5);
    let second = dispatched(&pass(world, Span::secs(5))).expect("another machine is idle");
    assert_ne!(first.1, second.1);
    [first, second]
}

fn start(world: &mut World, (attempt, conn): (AttemptKey, ConnId)) -> Vec<Effect> {
    world.step(Event::AttemptStarted { conn, attempt })
}

fn cancelled(effects: &[Effect]) -> Vec<AttemptKey> {
    let cancels = effects.iter().filter_map(|effect| match effect {
        Effect::CancelAttempt { attempt, .. } => Some(*attempt),
        _ => None,
    });
    cancels.collect()
}

fn balance(world: &World, account: AccountId) -> MicroUsd {
    let account = world.core.books().account(account);
    account.map_or(MicroUsd::ZERO, |account| account.earned)
}

#[test]
fn a_second_attempt_begins_at_its_share_of_the_patience_and_never_while_it_is_switched_off() {
    // The forecast is far below the least patience of eight seconds, and the prompt takes 100 ms.
    let mut on = world(HALF);
    let first = accepted(&mut on, 5);
    assert_eq!(dispatched(&pass(&mut on, Span::millis(4_000))), None);
    let second = dispatched(&pass(&mut on, Span::millis(100)));
    assert!(second.is_some_and(|(_, conn)| conn != first.1));
    assert_eq!(on.core.counts().seconds, 1);

    let mut off = world(0);
    accepted(&mut off, 5);
    assert_eq!(dispatched(&pass(&mut off, Span::secs(7))), None);
    assert_eq!(off.core.counts().seconds, 0);
}

/// INV-25.
#[test]
fn the_first_content_wins_the_other_is_told_to_stop_and_only_the_winner_is_paid() {
    for winner in 0..2 {
        let mut world = world(HALF);
        world.persist();
        let both = both(&mut world);
        world.persist();
        let (won, lost) = (both[winner], both[1 - winner]);
        let effects = start(&mut world, won);
        assert_eq!(cancelled(&effects), [lost.0]);
        let (request, attempt) = (RequestId(5), won.0);
        assert!(effects.contains(&Effect::Release { request, attempt }));
        // What the loser still says is of nobody's interest.
        let stale = world.core.counts().stale_events;
        start(&mut world, lost);
        world.step(completed(lost, 30));
        assert_eq!(world.core.counts().stale_events, stale + 2);
        world.step(completed(won, 20));
        world.persist();
        let receipt = world.out.receipts[0];
        assert_eq!(receipt.attempts, 2);
        assert_eq!(receipt.machine, MachineId(u128::from(won.1.0) * 11));
        assert!(receipt.charged <= receipt.held);
        let payees = [OWNER, AccountId(19)];
        let payee = |conn: ConnId| payees[usize::try_from(conn.0 - 1).unwrap()];
        assert_eq!(balance(&world, payee(won.1)), receipt.payout);
        assert_eq!(balance(&world, payee(lost.1)), MicroUsd::ZERO);
        assert_eq!(world.core.counts().seconds_won, winner as u64);
        world.core.invariant_quiescent();
    }
}

#[test]
fn the_request_goes_on_with_whichever_attempt_is_left() {
    for failing in 0..2 {
        let mut world = world(HALF);
        let both = both(&mut world);
        let (gone, left) = (both[failing], both[1 - failing]);
        let effects = world.step(Event::AttemptFailed {
            conn: gone.1,
            attempt: gone.0,
            fault: AttemptFault::Internal,
        });
        assert_eq!((dispatched(&effects), refused(&effects)), (None, None));
        start(&mut world, left);
        world.step(completed(left, 20));
        world.persist();
        assert_eq!(world.out.receipts.len(), 1);
        world.core.invariant_quiescent();
    }
}

#[test]
fn a_loser_that_completes_before_it_hears_that_it_lost_is_neither_paid_nor_blamed() {
    let mut world = world(HALF);
    let [first, second] = both(&mut world);
    // The relay gave the consumer's side to the first, whose news is still on its way.
    let effects = world.step(Event::AttemptCompleted {
        conn: second.1,
        attempt: second.0,
        usage: Usage {
            prompt_tokens: 100,
            completion_tokens: 40,
        },
        shown: shown(0, 0),
        ending: Ending::Said,
    });
    assert_eq!(effects, []);
    start(&mut world, first);
    world.step(completed(first, 20));
    world.persist();
    assert_eq!(world.out.receipts[0].attempts, 2);
    assert_eq!(world.core.counts().over_claims, 0);
    let explained = world.core.explain(ask(9, ACCOUNT)).to_string();
    assert!(explained.contains("2 offers open"), "{explained}");
}

/// The relay gave the consumer's side to the first, which was given up before its news came.
#[test]
fn an_answer_that_nobody_looked_at_is_no_empty_answer() {
    let mut world = world(HALF);
    join(&mut world, 3, OWNER, slot(4, 0));
    let [first, second] = both(&mut world);
    world.step(Event::AttemptFailed {
        conn: first.1,
        attempt: first.0,
        fault: AttemptFault::Internal,
    });
    let effects = world.step(Event::AttemptCompleted {
        conn: second.1,
        attempt: second.0,
        usage: Usage {
            prompt_tokens: 100,
            completion_tokens: 40,
        },
        shown: shown(0, 0),
        ending: Ending::Said,
    });
    let third = dispatched(&effects).expect("another machine is asked");
    assert!(third.1 != first.1 && third.1 != second.1);
    world.step(completed(third, 20));
    world.persist();
    assert_eq!(world.out.receipts[0].attempts, 3);
    assert_eq!(world.core.counts().over_claims, 0);
}

#[test]
fn nobody_gets_a_second_attempt_where_no_other_machine_is_idle() {
    let mut world = world(HALF);
    let first = accepted(&mut world, 5);
    let other = accepted(&mut world, 6);
    assert_ne!(first.1, other.1);
    start(&mut world, other);
    assert_eq!(dispatched(&pass(&mut world, Span::secs(5))), None);
}

#[test]
fn idle_machines_bound_how_many_second_attempts_run_at_a_time() {
    let mut world = world(HALF);
    join(&mut world, 3, OWNER, slot(4, 0));
    join(&mut world, 4, OWNER, slot(4, 0));
    accepted(&mut world, 5);
    accepted(&mut world, 6);
    let effects = pass(&mut world, Span::secs(5));
    let sent = effects
        .iter()
        .filter(|it| matches!(it, Effect::Dispatch { .. }));
    assert_eq!(sent.count(), 1, "of two idle machines");
    assert_eq!(world.core.counts().seconds, 1);
}

#[test]
fn nobody_gets_a_second_attempt_while_somebody_waits() {
    let mut world = empty(HALF);
    join(&mut world, 1, OWNER, slot(1, 0));
    accepted(&mut world, 5);
    let large = Ask {
        output_tokens_max: 1_000,
        ..ask(6, AccountId(2))
    };
    world.step(Event::Arrived(large));
    // Large enough for the request that runs, not for the one that waits.
    join(&mut world, 2, OWNER, slot(4, 200));
    assert_eq!(world.core.gauges().queued, 1);
    assert_eq!(dispatched(&pass(&mut world, Span::secs(5))), None);
    world.step(Event::ConsumerLeft {
        request: RequestId(6),
    });
    assert_eq!(world.core.gauges().queued, 0);
}

#[test]
fn a_consumer_who_leaves_stops_both_and_pays_nothing() {
    let mut world = world(HALF);
    let both = both(&mut world);
    let effects = world.step(Event::ConsumerLeft {
        request: RequestId(5),
    });
    assert_eq!(cancelled(&effects), both.map(|(attempt, _)| attempt));
    assert_eq!(refused(&effects), Some(Denial::Cancelled));
    world.core.invariant_quiescent();
    let account = world.core.books().account(ACCOUNT).unwrap();
    assert_eq!(account.available, MicroUsd(1_000_000));
}
