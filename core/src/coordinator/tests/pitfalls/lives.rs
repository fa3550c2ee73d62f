//! Machines that go and come back: nothing is counted twice, and nothing forgotten.

use super::*;

fn gone(world: &mut World, conn: u64) {
    world.step(Event::ProviderLeft {
        conn: ConnId(conn),
        cause: GoneCause::Lost,
    });
}

/// The old connection's end is told at each point of the new one's life, once or twice.
#[test]
fn the_late_end_of_an_old_connection_ends_no_new_one() {
    const STEPS: usize = 4;
    for first in 0..=STEPS {
        for second in first..=STEPS {
            let mut world = World::new();
            world.provider(1, 11, 4);
            for at in 0..=STEPS {
                for told in [first, second] {
                    if told == at {
                        gone(&mut world, 1);
                    }
                }
                let conn = ConnId(2);
                match at {
                    0 => drop(world.step(Event::ProviderJoined {
                        conn,
                        machine: MachineId(11),
                        owner: OWNER,
                        trust: Trust::SelfSigned,
                        spec: SPEC,
                        models: Cow::Owned(vec![MODEL]),
                    })),
                    1 => drop(world.step(Event::ProviderVerified { conn })),
                    2 => drop(world.report(conn, 1, slot(4, 0))),
                    3 => assert_eq!(conn_of(&world.ask(1)), Some(2), "{first} {second}"),
                    _ => {}
                }
            }
            assert_eq!(world.core.gauges().providers, 1, "{first} {second}");
            assert_eq!(world.core.roster()[0].pending, 1);
        }
    }
}

/// [`World::step`] recounts everything after each of these.
#[test]
fn whatever_closes_a_machine_twice_is_counted_once() {
    let conn = ConnId(1);
    let closes: [fn(&mut World); 5] = [
        |world| drop(world.step(Event::ProviderUnverified { conn: ConnId(1) })),
        |world| drop(world.step(Event::ProviderDistrusted { conn: ConnId(1) })),
        |world| {
            let report = MachineReport {
                draining: true,
                has_capacity: true,
                ..MachineReport::default()
            };
            tell_all(world, 1, report, &[slot(4, 0)]);
        },
        |world| {
            world.step(Event::ProviderRestocked {
                conn: ConnId(1),
                models: Cow::Borrowed(&[]),
            });
        },
        |world| gone(world, 1),
    ];
    for one in closes {
        for two in closes {
            let mut world = World::new();
            world.provider(1, 11, 4);
            world.provider(2, 22, 4);
            for close in [one, two, one, two] {
                close(&mut world);
            }
            gone(&mut world, conn.0);
            gone(&mut world, conn.0);
            assert_eq!(world.core.explain(ask(1, ACCOUNT)).closed, []);
            assert_eq!(world.core.gauges().providers, 1);
            assert_eq!(conn_of(&world.ask(1)), Some(2));
        }
    }
}

#[test]
fn a_laptop_that_sleeps_amid_its_work_each_day_is_not_barred_for_it() {
    let mut world = World::new();
    for day in 1..=40u64 {
        world.provider(day, 11, 4);
        assert!(!world.core.is_barred(ConnId(day)), "day {day}");
        let first = u128::from(day) * 10;
        for id in first..first + 4 {
            let sent = dispatched(&world.ask(id)).expect("it is awake");
            serve(&mut world, sent, 20);
        }
        let (attempt, conn) = dispatched(&world.ask(first + 9)).unwrap();
        world.step(Event::AttemptAccepted { conn, attempt });
        gone(&mut world, day);
        leave(&mut world, first + 9);
        world.now = world.now + Span::secs(5);
    }
}

proptest! {
    /// Challenges come every five minutes; of three in a row one at least is answered, within its time.
    #[test]
    fn challenges_that_are_missed_now_and_then_close_nobody(
        answered in prop::collection::vec((any::<bool>(), 0u64..30), 1..24),
    ) {
        let mut world = World::new();
        world.provider(1, 11, 4);
        let began = world.now;
        let mut missed = 0;
        for (round, (is_answered, late)) in (1u64..).zip(answered) {
            missed = if is_answered || missed == 2 { 0 } else { missed + 1 };
            let due = began + Span::secs(300 * round);
            if missed == 0 {
                let answer = (due + Span::secs(late)).since(world.now);
                pass(&mut world, answer);
                world.step(Event::ProviderVerified { conn: ConnId(1) });
            }
            let before_next = began + Span::secs(300 * round + 299);
            let rest = before_next.since(world.now);
            pass(&mut world, rest);
            tell(&mut world, 1, &[slot(4, 0)]);
            prop_assert!(world.core.preview(ask(1, ACCOUNT)).is_some(), "round {}", round);
        }
    }
}
