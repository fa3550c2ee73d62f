//! N9: machines that their own system ends for want of memory, which looks like trouble of the network.

use super::*;
use crate::coordinator::fleet::ANSWERS_OWED;
use crate::coordinator::roster::LikelyCause;

const MACHINE: u128 = 11;

/// Four requests at a time, then the connection ends by that cause, and the machine comes back after so
/// long; so many times. Returns its last connection.
fn lost_at_work(world: &mut World, times: u64, cause: GoneCause, away: Span) -> ConnId {
    world.provider(1, MACHINE, 4);
    for nth in 1..=times {
        let conn = ConnId(nth);
        for id in 0..4 {
            let id = u128::from(nth * 100 + id);
            world.ask(id);
        }
        world.step(Event::ProviderLeft { conn, cause });
        for id in 0..4 {
            // Whatever became of the request, it is not what this is about.
            let request = RequestId(u128::from(nth * 100 + id));
            world.step(Event::ConsumerLeft { request });
        }
        world.now = world.now + away;
        world.step(Event::Woke);
        world.provider(nth + 1, MACHINE, 4);
    }
    ConnId(times + 1)
}

/// How many requests at a time it gets.
fn rows(world: &mut World, first_id: u128) -> Vec<(AttemptKey, ConnId)> {
    let ids = first_id..first_id + 4;
    ids.filter_map(|id| sent(world, id)).collect()
}

fn told_lossy(effects: &[Effect]) -> bool {
    let mut effects = effects.iter();
    effects.any(|effect| matches!(effect, Effect::TellLossy { .. }))
}

/// A laptop that is closed amid an answer is back at once with all that it may have.
#[test]
fn n09_one_loss_at_work_costs_nothing() {
    let mut world = World::new();
    let conn = lost_at_work(&mut world, 1, GoneCause::Lost, Span::secs(20));
    assert_eq!(world.core.present(conn).unwrap().lossy, None);
    assert_eq!(rows(&mut world, 1_000).len(), 4);
    assert_eq!(world.alarms, []);
}

#[test]
fn n09_repeated_losses_at_work_are_told_with_their_cause_and_lower_what_is_sent_until_answers_come()
{
    let mut world = World::new();
    let conn = lost_at_work(&mut world, 2, GoneCause::Lost, Span::secs(20));
    assert_eq!(world.alarms, [Alarm::LostAtWork]);
    let lossy = world.core.present(conn).unwrap().lossy.unwrap();
    assert_eq!((lossy.at_work, lossy.idle, lossy.rows), (2, 0, 4));
    assert_eq!(lossy.cause, LikelyCause::OutOfMemory);
    let text = lossy.to_string();
    assert!(text.contains("for want of memory"), "{text}");
    // One at a time, until the answers that it owes have come.
    for nth in 0..u128::from(ANSWERS_OWED) {
        let running = rows(&mut world, 2_000 + nth * 10);
        assert_eq!(running.len(), 1, "before answer {nth}");
        for id in 0..4 {
            let request = RequestId(2_000 + nth * 10 + id);
            if id > 0 {
                world.step(Event::ConsumerLeft { request });
            }
        }
        world.step(completed(running[0], 10));
        world.persist();
    }
    assert_eq!(world.core.present(conn).unwrap().lossy, None);
    assert_eq!(rows(&mut world, 3_000).len(), 4, "all that it may have");
}

/// Its owner hears of it on the connection on which the machine comes back.
#[test]
fn n09_the_owner_is_told_when_the_machine_is_back() {
    let mut world = World::new();
    let conn = lost_at_work(&mut world, 2, GoneCause::Lost, Span::secs(20));
    world.step(Event::ProviderLeft {
        conn,
        cause: GoneCause::Closed,
    });
    let (back, machine) = (ConnId(90), MachineId(MACHINE));
    world.step(Event::ProviderJoined {
        conn: back,
        machine,
        owner: OWNER,
        trust: Trust::SelfSigned,
        spec: SPEC,
        models: Cow::Owned(vec![MODEL]),
    });
    assert!(told_lossy(
        &world.step(Event::ProviderVerified { conn: back })
    ));
    let again = world.step(Event::ProviderVerified { conn: back });
    assert!(!told_lossy(&again), "once");
}

/// A goodbye, sleep, and coming back after sleep beside the old connection are no sign of that; nor are
/// losses that lie far apart.
#[test]
fn n09_goodbyes_sleep_and_rare_losses_are_told_apart() {
    let soon = Span::secs(20);
    let rare = crate::coordinator::fleet::LOSSES_WITHIN;
    for (cause, away) in [
        (GoneCause::Closed, soon),
        (GoneCause::Silent, soon),
        (GoneCause::Replaced, soon),
        (GoneCause::WriteStalled, soon),
        (GoneCause::Lost, rare),
    ] {
        let mut world = World::new();
        let conn = lost_at_work(&mut world, 2, cause, away);
        assert_eq!(world.core.present(conn).unwrap().lossy, None, "{cause:?}");
        assert!(!world.alarms.contains(&Alarm::LostAtWork), "{cause:?}");
        assert_eq!(rows(&mut world, 1_000).len(), 4, "{cause:?}");
    }
}

#[test]
fn n09_who_is_lost_while_idle_too_is_told_of_its_network() {
    let mut world = World::new();
    let conn = lost_at_work(&mut world, 2, GoneCause::Lost, Span::secs(20));
    world.step(Event::ProviderLeft {
        conn,
        cause: GoneCause::Lost,
    });
    world.provider(50, MACHINE, 4);
    let lossy = world.core.present(ConnId(50)).unwrap().lossy.unwrap();
    assert_eq!(lossy.cause, LikelyCause::Network);
    assert!(lossy.to_string().contains("its network fails"));
}
