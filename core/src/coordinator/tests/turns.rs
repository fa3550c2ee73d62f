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
