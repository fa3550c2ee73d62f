//! What a machine's faults leave behind when it reconnects.

use super::*;

const FAULTY: u128 = 11;
const SLOWER: u128 = 22;

/// A coordinator whose quick machine failed `faults` requests in a row and then reconnected beside a
/// slower one. Returns the machine that the next request goes to.
fn next_machine_after(faults: u128) -> u128 {
    let mut world = World::new();
    world.provider(1, FAULTY, 4);
    for id in 0..faults {
        let (attempt, conn) = dispatched(&world.ask(id)).expect("the only machine is used");
        world.step(Event::AttemptFailed {
            conn,
            attempt,
            fault: AttemptFault::Internal,
        });
        // Whatever became of the request, it is not what this is about.
        world.step(Event::ConsumerLeft {
            request: RequestId(id),
        });
    }
    world.step(Event::ProviderLeft {
        conn: ConnId(1),
        cause: GoneCause::Closed,
    });
    world.provider(2, FAULTY, 4);
    world.provider(3, SLOWER, 4);
    let slow = SlotReport {
        prefill_mtps: 100_000,
        decode_mtps: 5_000,
        ..slot(4, 0)
    };
    world.report(ConnId(3), 2, slow);
    match dispatched(&world.ask(99)) {
        Some((_, ConnId(2))) => FAULTY,
        Some((_, ConnId(3))) => SLOWER,
        other => panic!("a machine is free, yet {other:?}"),
    }
}

#[test]
fn faults_are_remembered_across_a_reconnect() {
    assert_eq!(
        next_machine_after(0),
        FAULTY,
        "the quicker one, unblemished"
    );
    assert_eq!(next_machine_after(3), SLOWER, "INV-13: the bar survived");
}
