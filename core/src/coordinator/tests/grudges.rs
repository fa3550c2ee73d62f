//! What is remembered of a machine that comes and goes.

use super::*;
use crate::time::Span;

const LIAR: u128 = 11;
const HONEST: u128 = 22;

/// Beside an honest machine that is slower, a quick one that connects anew after each attempt, which
/// ends as `ends` says. How many of so many requests were sent to it.
fn attempts_of(requests: u128, ends: impl Fn(&mut World, (AttemptKey, ConnId))) -> usize {
    let mut world = World::new();
    let slow = SlotReport {
        prefill_mtps: 100_000,
        decode_mtps: 5_000,
        ..slot(24, 0)
    };
    world.provider(1, HONEST, 24);
    world.report(ConnId(1), 2, slow);
    let mut liar = 2;
    world.provider(liar, LIAR, 4);
    let mut asked = 0;
    for id in 0..requests {
        let sent = dispatched(&world.ask(id)).expect("the honest machine has room");
        if sent.1 == ConnId(liar) {
            asked += 1;
            ends(&mut world, sent);
            world.step(Event::ProviderLeft {
                conn: ConnId(liar),
                cause: GoneCause::Closed,
            });
            liar += 1;
            world.provider(liar, LIAR, 4);
        }
        world.step(Event::ConsumerLeft {
            request: RequestId(id),
        });
        world.now = world.now + Span::secs(1);
        world.step(Event::Woke);
        world.report(ConnId(1), 3 + u64::try_from(id).unwrap(), slow);
    }
    asked
}

fn fails(fault: AttemptFault) -> impl Fn(&mut World, (AttemptKey, ConnId)) {
    move |world, (attempt, conn)| {
        world.step(Event::AttemptFailed {
            conn,
            attempt,
            fault,
        });
    }
}

#[test]
fn a_reconnect_sheds_nothing_of_what_a_machine_refused_or_left() {
    // Bars of 30 to 600 seconds, one attempt after each.
    let bound = 14;
    for fault in [
        AttemptFault::Busy,
        AttemptFault::ModelUnavailable,
        AttemptFault::Internal,
        AttemptFault::Encryption,
    ] {
        let asked = attempts_of(900, fails(fault));
        assert!(asked <= bound, "{fault:?}: {asked} (INV-13)");
    }
    let deserts = |world: &mut World, (attempt, conn): (AttemptKey, ConnId)| {
        world.step(Event::AttemptAccepted { conn, attempt });
    };
    let asked = attempts_of(900, deserts);
    assert!(asked <= bound, "gone with the work: {asked} (INV-13)");
}

#[test]
fn a_machine_that_leaves_without_work_has_no_fault() {
    let serves = |world: &mut World, (attempt, conn): (AttemptKey, ConnId)| {
        world.step(Event::AttemptStarted { conn, attempt });
        world.step(completed((attempt, conn), 10));
    };
    assert_eq!(attempts_of(40, serves), 40);
}

#[test]
fn a_request_that_full_machines_refused_goes_to_one_that_is_open() {
    let mut world = World::new();
    for machine in 1..=4u64 {
        world.provider(machine, u128::from(machine) * 11, 4);
    }
    let mut effects = world.ask(5);
    for _ in 0..3 {
        let (attempt, conn) = dispatched(&effects).expect("the next is asked");
        effects = world.step(Event::AttemptFailed {
            conn,
            attempt,
            fault: AttemptFault::Busy,
        });
    }
    let fourth = dispatched(&effects).expect("one is left that never refused");
    let (attempt, conn) = fourth;
    let effects = world.step(Event::AttemptFailed {
        conn,
        attempt,
        fault: AttemptFault::Busy,
    });
    assert!(matches!(refused(&effects), Some(Denial::Full { .. })));
}
