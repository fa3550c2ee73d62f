//! What is measured of a machine's speed, when, and for how long it counts.

use super::*;

const ROWS: u16 = 24;
const BUDGET: u64 = 1_000_000;

fn told(model: ModelIx, decode_mtps: u32) -> SlotReport {
    SlotReport {
        model,
        decode_mtps,
        ..slot(ROWS, BUDGET)
    }
}

/// Its own observation falls with its load; what bounds its load must not follow.
#[test]
fn the_rows_that_a_machine_gets_do_not_move_with_its_load() {
    let mut world = World::new();
    let spec = MachineSpec {
        decode_mtps: 60_000,
        ..SPEC
    };
    join(&mut world, 1, spec, &[MODEL]);
    let mut ids = 0;
    for observed in [60_000, 20_000, 35_000, 8_000, 60_000] {
        tell(&mut world, 1, &[told(MODEL, observed)]);
        ids += 100;
        // 60 tokens a second alone are 15 in a batch of seven, and a fifth more may join.
        assert_eq!(taken_at_once(&mut world, ids, MODEL), 9, "{observed}");
    }
}

#[derive(Clone, Copy, Debug)]
enum Beside {
    Nothing,
    /// A request of ours, of the machine's other model.
    Ours,
    /// Work of its owner's, on its other model.
    Foreign,
}

/// Rows that a machine gets after an answer of half a second for each token, where it says nothing of its
/// speed and that answer had this beside it.
fn rows_after_a_slow_answer(beside: Beside) -> usize {
    let mut world = World::new();
    join(&mut world, 1, SPEC, &[MODEL, OTHER]);
    let is_foreign = matches!(beside, Beside::Foreign);
    let other = SlotReport {
        running: u16::from(is_foreign),
        ..told(OTHER, 50_000)
    };
    tell(&mut world, 1, &[told(MODEL, 50_000), other]);
    if matches!(beside, Beside::Ours) {
        let of_other = Ask {
            model: OTHER,
            ..ask(1, ACCOUNT)
        };
        assert_eq!(conn_of(&world.step(Event::Arrived(of_other))), Some(1));
    }
    let sent = dispatched(&world.ask(2)).unwrap();
    let (attempt, conn) = sent;
    world.step(Event::AttemptStarted { conn, attempt });
    world.now = world.now + Span::secs(15);
    world.step(completed(sent, 30));
    leave(&mut world, 1);
    tell(&mut world, 1, &[told(MODEL, 50_000), told(OTHER, 50_000)]);
    taken_at_once(&mut world, 10, MODEL)
}

#[test]
fn only_an_answer_that_had_the_whole_machine_tells_how_fast_it_is_alone() {
    assert_eq!(
        rows_after_a_slow_answer(Beside::Nothing),
        2,
        "too slow for more"
    );
    for beside in [Beside::Ours, Beside::Foreign] {
        assert_eq!(
            rows_after_a_slow_answer(beside),
            usize::from(ROWS),
            "{beside:?}"
        );
    }
}

/// Two equal machines; the first content of one comes very late, once. Requests come every five seconds and
/// are served at once. Seconds until that one gets another.
fn seconds_until_tried_again(late: Span) -> Option<u64> {
    let mut world = World::quiet();
    world.provider(1, 11, 4);
    world.provider(2, 22, 4);
    let (attempt, unlucky) = dispatched(&world.ask(1)).unwrap();
    world.step(Event::AttemptAccepted {
        conn: unlucky,
        attempt,
    });
    pass(&mut world, late);
    serve(&mut world, (attempt, unlucky), 20);
    let began = world.now;
    (2..400).find_map(|id| {
        pass(&mut world, Span::secs(5));
        for conn in [1, 2] {
            world.step(Event::ProviderVerified { conn: ConnId(conn) });
            tell(&mut world, conn, &[slot(4, 0)]);
        }
        let sent = dispatched(&world.ask(id)).expect("both are idle");
        serve(&mut world, sent, 20);
        (sent.1 == unlucky).then(|| world.now.since(began).0 / 1_000_000)
    })
}

#[test]
fn a_machine_with_one_bad_measurement_is_tried_again_within_minutes() {
    for late_s in [3, 7] {
        let after = seconds_until_tried_again(Span::secs(late_s));
        assert!(
            after.is_some_and(|after_s| after_s <= 340),
            "{late_s}: {after:?}"
        );
    }
}
