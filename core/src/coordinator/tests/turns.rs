//! Below saturation every machine gets work, at a stated price.

use std::collections::BTreeMap;

use super::*;

/// What each machine gets of `asks` requests of so many prompt tokens, each of which ends before the next
/// comes, where the machines read at these rates, in tokens a second.
fn shares(rates: &[u32], prompt_tokens: &[u32], asks: u128) -> BTreeMap<u64, u32> {
    let mut world = World::new();
    for conn in 1..=rates.len() as u64 {
        world.provider(conn, u128::from(conn) * 11, 4);
    }
    let mut shares: BTreeMap<u64, u32> = (1..=rates.len() as u64).map(|conn| (conn, 0)).collect();
    for id in 0..asks {
        for (conn, &rate) in (1u64..).zip(rates) {
            let measured = SlotReport {
                prefill_mtps: rate * 1_000,
                ..slot(4, 0)
            };
            world.report(ConnId(conn), 2 + id as u64, measured);
        }
        let prompt = prompt_tokens[id as usize % prompt_tokens.len()];
        let rate = |conn: ConnId| u64::from(rates[conn.0 as usize - 1]);
        let asked = Ask {
            prompt_tokens: prompt,
            ..ask(id, ACCOUNT)
        };
        let (attempt, conn) = dispatched(&world.step(Event::Arrived(asked))).unwrap();
        *shares.get_mut(&conn.0).unwrap() += 1;
        world.now = world.now + Span(u64::from(prompt) * 1_000_000 / rate(conn));
        world.step(Event::AttemptStarted { conn, attempt });
        world.now = world.now + Span::millis(250);
        world.step(completed((attempt, conn), 5));
        world.persist();
    }
    shares
}

#[test]
fn no_machine_stands_idle_because_another_is_faster() {
    let shares = shares(
        &[1_000, 1_000, 500, 500, 250, 250, 100, 100],
        &[800, 90],
        800,
    );
    assert!(shares.values().all(|share| *share >= 2), "{shares:?}");
    let (fast, slow) = (shares[&1] + shares[&2], shares[&7] + shares[&8]);
    assert!(fast > 10 * slow, "{shares:?}");
}

#[test]
fn what_the_turns_cost_is_a_share_of_the_time_until_first_content() {
    let (rates, prompts) = ([1_000, 200, 200, 200], [1_000]);
    let shares = shares(&rates, &prompts, 400);
    // A turn costs four seconds where the best takes one, and a sixteenth of that is saved each time.
    let turns: u32 = shares.iter().skip(1).map(|(_, share)| share).sum();
    assert!((3..=400 / 64).contains(&turns), "{shares:?}");
}

/// It is idle because it was slow, and nobody would ever see that it no longer is.
#[test]
fn in_a_busy_fleet_too_a_machine_that_was_slow_is_tried_again() {
    const SLOW: ConnId = ConnId(4);
    let mut world = World::new();
    for conn in 1..=SLOW.0 {
        world.provider(conn, u128::from(conn) * 11, 4);
    }
    // Six are under way, a new one every two seconds: the three that are quick always have work.
    let mut under_way = std::collections::VecDeque::new();
    let mut given_after_s = Vec::new();
    for id in 0..450 {
        for conn in 1..=SLOW.0 {
            let rate = if conn == SLOW.0 { 250 } else { 1_000 };
            let running = under_way.iter().filter(|(_, on)| *on == ConnId(conn));
            let measured = SlotReport {
                prefill_mtps: rate * 1_000,
                running: running.count() as u16,
                ..slot(4, 0)
            };
            world.report(ConnId(conn), 2 + id as u64, measured);
        }
        let asked = Ask {
            prompt_tokens: 1_000,
            ..ask(id, ACCOUNT)
        };
        let (attempt, conn) = dispatched(&world.step(Event::Arrived(asked))).unwrap();
        if conn == SLOW {
            given_after_s.push(2 * id);
        }
        world.step(Event::AttemptStarted { conn, attempt });
        under_way.push_back((attempt, conn));
        if under_way.len() > 6 {
            let (attempt, conn) = under_way.pop_front().unwrap();
            world.step(completed((attempt, conn), 5));
        }
        world.persist();
        world.now = world.now + Span::secs(2);
    }
    // It has been without for two minutes, and a turn, three seconds more than the best at first, is saved up
    // four times over in the beginning: five minutes are enough for both.
    let times = [&[0], given_after_s.as_slice(), &[900]].concat();
    let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(longest.unwrap() <= 300, "{given_after_s:?}");
    // And no turn comes before its time.
    let turns = given_after_s.iter().filter(|after| **after > 60).count();
    assert!(turns <= 900 / 120 + 1, "{given_after_s:?}");
}
