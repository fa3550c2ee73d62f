//! Barred machines are the last resort: when, exactly, and for whom.

use super::*;
use crate::coordinator::Offence;

const BARRED: u64 = 1;
const GOOD: u64 = 2;

/// What stands beside the barred machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Nobody,
    Open,
    Full,
    Refused,
    /// The request was sent to it and came back.
    Tried,
    Distrusted,
    Unverified,
    Draining,
    TooHot,
    Stale,
    Crashed,
    Wedged,
    Withdrawn,
    TooLarge,
    CannotSeal,
    Barred,
    OfAnotherOwner,
    /// The request demands what the barred machine has and this one lacks.
    LessTrusted,
}

fn bar(world: &mut World, conn: u64) {
    let at = world.core.known(ConnId(conn)).unwrap();
    world.core.strike(world.now, at, Offence::Silence);
    assert!(world.core.is_barred(ConnId(conn)));
}

fn stand(world: &mut World, beside: Beside) {
    let conn = ConnId(GOOD);
    if beside == Beside::Nobody {
        return;
    }
    let spec = MachineSpec {
        private_only: beside == Beside::OfAnotherOwner,
        can_seal: beside != Beside::CannotSeal,
        ..SPEC
    };
    join(world, GOOD, spec, &[MODEL]);
    let mut told = slot(4, 0);
    let mut report = MachineReport {
        has_capacity: true,
        free_for_load_bytes: Some(0),
        ..MachineReport::default()
    };
    match beside {
        Beside::Full => told.running = 4,
        Beside::Draining => report.draining = true,
        Beside::TooHot => report.thermal = crate::event::Thermal::Critical,
        Beside::Crashed => told.state = SlotState::Crashed,
        Beside::Wedged => told.wedged = true,
        Beside::TooLarge => told.state = SlotState::Absent,
        _ => {}
    }
    tell_all(world, GOOD, report, &[told]);
    match beside {
        Beside::Refused => {
            bar(world, BARRED);
            let (attempt, _) = dispatched(&world.ask(90)).expect("it is open");
            fail(world, (attempt, conn), AttemptFault::Busy);
            leave(world, 90);
        }
        Beside::Distrusted => drop(world.step(Event::ProviderDistrusted { conn })),
        Beside::Unverified => drop(world.step(Event::ProviderUnverified { conn })),
        Beside::Stale => {
            pass(world, Span::secs(31));
            tell(world, BARRED, &[slot(4, 0)]);
        }
        Beside::Withdrawn => {
            let models = Cow::Borrowed(&[][..]);
            world.step(Event::ProviderRestocked { conn, models });
        }
        Beside::Barred => bar(world, GOOD),
        _ => {}
    }
}

/// Where a request goes, and whether it waits.
fn sent_to(beside: Beside) -> (Option<u64>, bool) {
    let mut world = World::new();
    join_as(&mut world, BARRED, SPEC, &[MODEL], OWNER, Trust::Hardware);
    tell(&mut world, BARRED, &[slot(4, 0)]);
    stand(&mut world, beside);
    bar(&mut world, BARRED);
    let asked = Ask {
        trust_min: match beside {
            Beside::LessTrusted => Trust::Hardware,
            _ => Trust::None,
        },
        ..ask(1, ACCOUNT)
    };
    let mut effects = world.step(Event::Arrived(asked));
    if beside == Beside::Tried {
        let sent = dispatched(&effects).unwrap();
        assert_eq!(sent.1, ConnId(GOOD));
        effects = fail(&mut world, sent, AttemptFault::Internal);
    }
    (conn_of(&effects), world.core.gauges().queued == 1)
}

/// Only where no other machine could take it, now or once there is room. One that drains comes back
/// under another connection, so nobody waits for it.
#[test]
fn a_barred_machine_serves_only_where_no_other_could_now_or_later() {
    for beside in [
        Beside::Nobody,
        Beside::Tried,
        Beside::Distrusted,
        Beside::Unverified,
        Beside::Draining,
        Beside::TooHot,
        Beside::Stale,
        Beside::Crashed,
        Beside::Wedged,
        Beside::Withdrawn,
        Beside::TooLarge,
        Beside::CannotSeal,
        Beside::OfAnotherOwner,
        Beside::LessTrusted,
    ] {
        assert_eq!(sent_to(beside), (Some(BARRED), false), "{beside:?}");
    }
    let (conn, waits) = sent_to(Beside::Barred);
    assert!(conn.is_some() && !waits, "one of the two");
    assert_eq!(sent_to(Beside::Open), (Some(GOOD), false));
    for beside in [Beside::Full, Beside::Refused] {
        assert_eq!(sent_to(beside), (None, true), "{beside:?}");
    }
}

/// INV-09: what waits for the one good machine that suits it goes to the barred one when that is lost, be
/// there as many others as there may.
#[test]
fn what_waits_for_the_last_machine_that_suits_goes_to_a_barred_one_when_that_is_lost() {
    let loses: [fn(&mut World); 2] = [
        |world| {
            let (conn, cause) = (ConnId(GOOD), GoneCause::Lost);
            world.step(Event::ProviderLeft { conn, cause });
        },
        |world| {
            // Its proof expires, and it is still there for others.
            pass(world, Span::secs(11));
            world.step(Event::Woke);
        },
    ];
    for lose in loses {
        let mut world = World::new();
        join_as(&mut world, BARRED, SPEC, &[MODEL], OWNER, Trust::Hardware);
        tell(&mut world, BARRED, &[slot(4, 0)]);
        bar(&mut world, BARRED);
        for conn in GOOD..GOOD + 12 {
            join(&mut world, conn, SPEC, &[MODEL]);
            tell(&mut world, conn, &[slot(1, 0)]);
        }
        world.step(Event::ProviderAttested {
            conn: ConnId(GOOD),
            gives: Traits::HARDWARE,
            valid_for: Span::secs(10),
        });
        let trusting = |id| {
            Event::Arrived(Ask {
                trust_min: Trust::Hardware,
                ..ask(id, ACCOUNT)
            })
        };
        let (attempt, conn) = dispatched(&world.step(trusting(1))).unwrap();
        assert_eq!(conn, ConnId(GOOD));
        world.persist();
        world.step(Event::AttemptStarted { conn, attempt });
        assert_eq!(conn_of(&world.step(trusting(2))), None, "it waits");
        let waits = world.core.gauges().queued;
        assert_eq!(waits, 1);
        lose(&mut world);
        assert_eq!(world.core.gauges().queued, 0);
        let roster = world.core.roster();
        let barred = roster.iter().find(|it| it.conn == ConnId(BARRED)).unwrap();
        assert!(barred.pending > 0);
    }
}
