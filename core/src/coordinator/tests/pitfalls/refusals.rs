//! Machines that refuse, and what their refusals may cost: the machine, the request, nobody else.

use super::*;

/// It serves one request and refuses the next, and so on.
#[test]
fn who_refuses_every_other_request_is_known_for_it() {
    let mut world = World::new();
    world.provider(1, 11, 4);
    let pairs = (0..100u128).find(|pair| {
        let sent = dispatched(&world.ask(2 * pair)).expect("it is open");
        serve(&mut world, sent, 20);
        let sent = dispatched(&world.ask(2 * pair + 1)).expect("it is open");
        fail(&mut world, sent, AttemptFault::Busy);
        leave(&mut world, 2 * pair + 1);
        world.now = world.now + Span::secs(2);
        tell(&mut world, 1, &[slot(4, 0)]);
        world.core.is_barred(ConnId(1))
    });
    // One more refusal than answers counts with each pair, up to sixteen.
    assert_eq!(pairs, Some(16));
}

#[test]
fn refusals_of_one_moment_close_a_machine_for_no_longer_than_one_does() {
    for refusals in 1..=4u128 {
        let mut world = World::new();
        world.provider(1, 11, 4);
        let sent: Vec<_> = (0..refusals)
            .map(|id| dispatched(&world.ask(id)).unwrap())
            .collect();
        for attempt in sent {
            fail(&mut world, attempt, AttemptFault::Busy);
        }
        for id in 0..refusals {
            leave(&mut world, id);
        }
        pass(&mut world, Span::millis(1_200));
        tell(&mut world, 1, &[slot(4, 0)]);
        assert_eq!(conn_of(&world.ask(100)), Some(1), "{refusals} refusals");
    }
}

/// However many had no room before it.
#[test]
fn refusals_for_want_of_room_lose_no_request_that_an_open_machine_could_take() {
    let mut world = World::new();
    for conn in 1..=6 {
        join(&mut world, conn, SPEC, &[MODEL]);
        tell(&mut world, conn, &[slot(4, 0)]);
        let at = world.core.known(ConnId(conn)).unwrap();
        world.core.absolve(at);
    }
    let mut effects = world.ask(1);
    for nth in 1..6 {
        let sent = dispatched(&effects).expect("another is open");
        effects = fail(&mut world, sent, AttemptFault::Busy);
        assert_eq!(refused(&effects), None, "after {nth}");
    }
    assert!(dispatched(&effects).is_some());
}

/// Machines that each serve well enough to be believed, of so many owners; each calls the request wrong.
fn asked_of(owners: u64, is_credible: bool) -> usize {
    let mut world = World::quiet();
    for conn in 1..=40 {
        let owner = AccountId(100 + conn % owners);
        join_as(&mut world, conn, SPEC, &[MODEL], owner, Trust::SelfSigned);
        tell(&mut world, conn, &[slot(4, 0)]);
        let at = world.core.known(ConnId(conn)).unwrap();
        if is_credible {
            world.core.absolve(at);
        }
    }
    let mut effects = world.ask(1);
    let mut asked = 0;
    while let Some(sent) = dispatched(&effects) {
        asked += 1;
        effects = fail(&mut world, sent, AttemptFault::Client(422));
    }
    assert_eq!(refused(&effects), Some(Denial::Client(422)));
    asked
}

#[test]
fn what_machines_agree_on_is_asked_of_few_and_never_of_more_than_the_limit() {
    assert_eq!(asked_of(1, true), 3, "of one owner");
    let of_two = asked_of(40, true);
    assert_eq!(of_two, 2, "of two owners");
    let limit = usize::from(Limits::reference().attempts_max);
    assert_eq!(asked_of(40, false), limit, "of machines that nobody knows");
}
