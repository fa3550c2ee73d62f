//! What a machine shows counts, whatever it claims.

use super::*;
use crate::time::Span;

const CLAIMS: u128 = 11;
const HONEST: u128 = 22;

/// Claims ten times the speed of the honest machine beside it.
fn claim(world: &mut World, seq: u64) {
    let claimed = SlotReport {
        decode_mtps: 500_000,
        prefill_mtps: 10_000_000,
        ..slot(4, 0)
    };
    world.report(ConnId(1), seq, claimed);
    world.report(ConnId(2), seq, slot(4, 0));
}

fn pass(world: &mut World, span: Span) {
    world.now = world.now + span;
    while world
        .core
        .next_wake()
        .is_some_and(|(at, _)| at <= world.now)
    {
        world.step(Event::Woke);
    }
}

/// One request whose first content takes so long on either machine, and each token after it so long.
fn serve(world: &mut World, id: u128, first: [Span; 2], each: [Span; 2]) -> u64 {
    let (attempt, conn) = dispatched(&world.ask(id)).expect("there is room");
    let which = usize::from(conn.0 == 2);
    pass(world, first[which]);
    world.step(Event::AttemptStarted { conn, attempt });
    pass(world, Span(each[which].0 * 50));
    world.step(completed((attempt, conn), 50));
    world.persist();
    conn.0
}

fn share_of_the_claimer(first: [Span; 2], each: [Span; 2]) -> usize {
    let mut world = World::new();
    world.provider(1, CLAIMS, 4);
    world.provider(2, HONEST, 4);
    let mut seq = 1;
    let served = (0..30).map(|id| {
        seq += 1;
        claim(&mut world, seq);
        serve(&mut world, id, first, each)
    });
    served.filter(|&conn| conn == 1).count()
}

const QUICK: Span = Span::millis(120);
const STEP: Span = Span::millis(20);
const CLAIMED_STEP: Span = Span::millis(2);

#[test]
fn a_claimed_speed_counts_until_it_was_measured() {
    let truthful = share_of_the_claimer([QUICK, QUICK], [CLAIMED_STEP, STEP]);
    assert_eq!(truthful, 30, "a machine as fast as it says gets the work");
    let late = share_of_the_claimer([Span::secs(3), QUICK], [CLAIMED_STEP, STEP]);
    assert!(
        late <= 3,
        "{late} of 30 to a machine that is late each time"
    );
    let drips = share_of_the_claimer([QUICK, QUICK], [Span::millis(500), STEP]);
    assert!(drips <= 3, "{drips} of 30 to a machine that drips");
}

#[test]
fn a_drip_is_known_long_before_its_answer_ends() {
    let mut world = World::new();
    world.provider(1, CLAIMS, 4);
    world.provider(2, HONEST, 4);
    claim(&mut world, 2);
    let (attempt, conn) = dispatched(&world.ask(5)).unwrap();
    assert_eq!(conn, ConnId(1), "it claims to be quick");
    world.step(Event::AttemptStarted { conn, attempt });
    pass(&mut world, Span::secs(6));
    let shown = shown(2, 8);
    world.step(Event::AttemptProgressed {
        conn,
        attempt,
        shown,
    });
    let next = dispatched(&world.ask(6)).map(|(_, conn)| conn);
    assert_eq!(next, Some(ConnId(2)));
}

#[test]
fn what_was_measured_survives_a_reconnect() {
    let mut world = World::new();
    world.provider(1, CLAIMS, 4);
    claim(&mut world, 2);
    for id in 0..3 {
        serve(&mut world, id, [Span::secs(9); 2], [STEP; 2]);
    }
    world.step(Event::ProviderLeft {
        conn: ConnId(1),
        cause: GoneCause::Closed,
    });
    world.provider(2, HONEST, 4);
    world.provider(3, CLAIMS, 4);
    let conn = dispatched(&world.ask(9)).map(|(_, conn)| conn);
    assert_eq!(conn, Some(ConnId(2)), "INV-13");
}

fn bar(world: &mut World, conn: u64, ids: std::ops::Range<u128>) {
    for id in ids {
        let (attempt, used) = dispatched(&world.ask(id)).unwrap();
        assert_eq!(used, ConnId(conn));
        world.step(Event::AttemptFailed {
            conn: used,
            attempt,
            fault: AttemptFault::Internal,
        });
        // Whatever became of the request, it is not what this is about.
        world.step(Event::ConsumerLeft {
            request: RequestId(id),
        });
    }
}

#[test]
fn a_barred_machine_is_the_last_resort_and_no_overflow() {
    let mut world = World::new();
    world.provider(1, CLAIMS, 4);
    bar(&mut world, 1, 0..3);
    world.provider(2, HONEST, 1);
    let conn_of = |effects: &[Effect]| dispatched(effects).map(|(_, conn)| conn);
    assert_eq!(conn_of(&world.ask(10)), Some(ConnId(2)));
    assert_eq!(conn_of(&world.ask(11)), None, "it waits for the good one");
    let effects = world.step(Event::ProviderLeft {
        conn: ConnId(2),
        cause: GoneCause::Closed,
    });
    let served = effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Dispatch { conn, .. } if *conn == ConnId(1)));
    assert_eq!(served.count(), 2, "nobody else is left");
}

/// INV-09.
#[test]
fn every_barred_machine_takes_what_waits_once_nobody_else_is_left() {
    let mut world = World::new();
    for conn in 1..=3 {
        world.provider(conn, u128::from(conn), 1);
        let first = u128::from(conn) * 10;
        bar(&mut world, conn, first..first + 3);
    }
    for conn in 1..=3 {
        // What moved on from one to the next has ended there.
        world.report(ConnId(conn), 9, slot(1, 0));
    }
    world.provider(4, HONEST, 1);
    for id in 100..104 {
        world.ask(id);
    }
    assert_eq!(world.core.gauges().queued, 3);
    let effects = world.step(Event::ProviderLeft {
        conn: ConnId(4),
        cause: GoneCause::Closed,
    });
    let mut served: Vec<u64> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Dispatch { conn, .. } => Some(conn.0),
            _ => None,
        })
        .collect();
    served.sort_unstable();
    assert_eq!(served, [1, 2, 3]);
}

#[test]
fn a_machine_that_was_barred_shows_with_one_request_at_a_time_that_it_is_back() {
    let mut world = World::new();
    world.provider(1, CLAIMS, 4);
    bar(&mut world, 1, 0..3);
    world.provider(2, HONEST, 4);
    pass(&mut world, Span::secs(31));
    claim(&mut world, 5);
    let conn_of = |effects: &[Effect]| dispatched(effects).map(|(_, conn)| conn);
    for id in 0..4 {
        let sent = dispatched(&world.ask(20 + id)).unwrap();
        assert_eq!(sent.1, ConnId(1), "it is tried");
        let beside = conn_of(&world.ask(30 + id));
        assert_eq!(beside, Some(ConnId(2)), "with one request");
        world.step(Event::ConsumerLeft {
            request: RequestId(30 + id),
        });
        claim(&mut world, 10 + u64::try_from(id).unwrap());
        let (attempt, conn) = sent;
        world.step(Event::AttemptStarted { conn, attempt });
        world.step(completed(sent, 10));
    }
    assert_eq!(conn_of(&world.ask(12)), Some(ConnId(1)));
    assert_eq!(conn_of(&world.ask(13)), Some(ConnId(1)), "it is back");
}

#[test]
fn a_machine_that_refuses_whatever_it_reports_is_asked_ever_more_rarely() {
    let mut world = World::new();
    world.provider(1, CLAIMS, 4);
    world.provider(2, HONEST, 24);
    let mut asked = 0;
    for seq in 2..122 {
        claim(&mut world, seq);
        let (attempt, conn) = dispatched(&world.ask(u128::from(seq))).unwrap();
        if conn == ConnId(1) {
            asked += 1;
            world.step(Event::AttemptFailed {
                conn,
                attempt,
                fault: AttemptFault::Busy,
            });
        }
        world.step(Event::ConsumerLeft {
            request: RequestId(u128::from(seq)),
        });
        pass(&mut world, Span::secs(5));
    }
    assert!((5..=15).contains(&asked), "{asked} times in ten minutes");
}

#[test]
fn a_machine_gets_nothing_on_the_strength_of_an_old_report() {
    let mut world = World::new();
    world.provider(1, HONEST, 4);
    let conn_of = |effects: &[Effect]| dispatched(effects).map(|(_, conn)| conn);
    pass(&mut world, Span::secs(29));
    assert_eq!(conn_of(&world.ask(1)), Some(ConnId(1)));
    pass(&mut world, Span::secs(2));
    assert!(
        matches!(refused(&world.ask(2)), Some(Denial::NoProvider { .. })),
        "INV-10"
    );
    world.report(ConnId(1), 2, slot(4, 0));
    assert_eq!(conn_of(&world.ask(3)), Some(ConnId(1)));
}

/// INV-10: a process that was stopped finds what came meanwhile before it is woken.
#[test]
fn an_old_report_counts_for_nothing_though_nobody_was_woken() {
    let mut world = World::new();
    world.provider(1, HONEST, 4);
    world.now = world.now + REPORT_AGE_MAX;
    let effects = world.ask(1);
    assert_eq!(dispatched(&effects), None, "{effects:?}");
    world.report(ConnId(1), 9, slot(4, 0));
    assert!(dispatched(&world.ask(2)).is_some());
}

/// INV-07.
#[test]
fn a_challenge_that_was_passed_long_ago_counts_for_nothing_though_nobody_was_woken() {
    let mut world = World::new();
    world.provider(1, HONEST, 4);
    world.now = world.now + world.core.config().limits.challenge_fresh_max;
    world.report(ConnId(1), 9, slot(4, 0));
    let effects = world.ask(1);
    assert_eq!(dispatched(&effects), None, "{effects:?}");
}
