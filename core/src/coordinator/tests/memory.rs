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

#[test]
fn a_success_lets_a_barred_machine_back_in() {
    let mut world = World::new();
    world.provider(1, FAULTY, 8);
    let attempts: Vec<_> = (0..4)
        .map(|id| dispatched(&world.ask(id)).unwrap())
        .collect();
    for &(attempt, conn) in &attempts[..3] {
        world.step(Event::AttemptFailed {
            conn,
            attempt,
            fault: AttemptFault::Internal,
        });
    }
    world.provider(3, SLOWER, 8);
    let slow = SlotReport {
        prefill_mtps: 100_000,
        decode_mtps: 5_000,
        ..slot(8, 0)
    };
    world.report(ConnId(3), 2, slow);
    let conn_of = |effects: &[Effect]| dispatched(effects).map(|(_, conn)| conn);
    assert_eq!(conn_of(&world.ask(10)), Some(ConnId(3)), "it is barred");
    let (attempt, conn) = attempts[3];
    world.step(completed((attempt, conn), 10));
    assert_eq!(conn_of(&world.ask(11)), Some(ConnId(1)), "it is back");
}

#[test]
fn a_full_memory_of_faults_forgets_one_machine_with_an_alarm() {
    let mut config = config();
    config.limits.providers_max = 2;
    let mut world = World::of(config);
    // Four machines are remembered, two of them can be here.
    for machine in 1..=5 {
        let conn = machine as u64;
        world.provider(conn, machine, 4);
        let alarms = world.alarms.iter();
        let forgotten = alarms.filter(|alarm| **alarm == Alarm::FaultsForgotten);
        assert_eq!(forgotten.count(), usize::from(machine == 5));
        let (attempt, conn) = dispatched(&world.ask(machine)).unwrap();
        world.step(Event::AttemptFailed {
            conn,
            attempt,
            fault: AttemptFault::Internal,
        });
        world.step(Event::ProviderLeft {
            conn,
            cause: GoneCause::Closed,
        });
    }
}
