//! What is measured decides who is chosen, and who is chosen decides what is measured. A machine that was
//! slow once must not be without work for ever, and equals must not be treated unequally: twenty machines,
//! a chat every two seconds, twenty of them under way, two hours.
//!
//! `cargo test -p cereus-sim --lib closed_loop -- --nocapture` prints the figures.

use super::super::config::{Newcomer, parse_fleet};
use super::*;
use crate::hardware::Hardware;

const MACHINES: u32 = 20;
/// Of a chat on a machine that has nothing else: half a second for the prompt, 2,028 tokens at 52 a second.
const SERVICE: Span = Span::millis(39_500);
const PROMPT_TOKENS: u32 = 1_000;
const OUTPUT_TOKENS: u32 = 2_028;
const GAP: Span = Span::secs(2);
const LENGTH: Span = Span::secs(2 * 3_600);
/// Until a machine that may be chosen is.
const SOON: Span = Span(300_000_000 + SERVICE.0);
/// Nobody gets more than so many times the mean.
const MOST: usize = 2;

/// All alike: 52 tokens of an answer a second, 2,000 of a prompt.
fn fleet(seed: u64) -> RunConfig {
    let table = "chip,bandwidth_gbs,prefill_512,prefill_8192,decode,context_percent,source\n\
                 peer,400,2000,1999,52,1000,the peers of the published experiment\n";
    let hardware = Hardware::built_in().clone();
    RunConfig {
        seed,
        fleet: parse_fleet("peer/64").unwrap(),
        hardware: hardware.with_chips(table.as_bytes()).unwrap(),
        ..RunConfig::reference(MACHINES)
    }
}

/// One every two seconds but for the pauses, each of which begins and ends at such a time. Answers differ
/// by 3 % either way.
fn chats(seed: u64, pauses: &[(Span, Span)]) -> Vec<Arrival> {
    let mut lengths = Stream::new(seed, "answers");
    let spread = u64::from(OUTPUT_TOKENS * 3 / 100);
    let middle = u64::from(OUTPUT_TOKENS);
    let is_asked = |after: &Span| {
        let is_within = |(from, to): &(Span, Span)| (from.0..to.0).contains(&after.0);
        !pauses.iter().any(is_within)
    };
    let times = (0..LENGTH.0 / GAP.0).map(|nth| Span(nth * GAP.0));
    let one = |after| Arrival {
        after,
        prompt_tokens: PROMPT_TOKENS,
        output_tokens: u32::try_from(lengths.between(middle - spread, middle + spread)).unwrap(),
        blocks: Vec::new(),
    };
    times.filter(is_asked).map(one).collect()
}

/// A machine computes at so many percent of its speed between two times after the first request.
#[derive(Clone, Copy, Debug)]
struct Bad {
    machine: u32,
    percent: u32,
    from: Span,
    to: Span,
}

/// When each machine was sent a job, after the first request.
type Jobs = Vec<Vec<Span>>;

fn jobs(config: &RunConfig, arrivals: &[Arrival], bad: Option<Bad>) -> Jobs {
    let all = arrivals.iter().cloned().map(Ok);
    let mut world = World::new(config.clone(), all).unwrap();
    let began = Tick::ZERO + WARM_UP;
    if let Some(bad) = bad {
        let machine = bad.machine;
        for (after, percent) in [(bad.from, bad.percent), (bad.to, 100)] {
            let change = Happening::Degrades { machine, percent };
            world.queue.push(began + after, change);
        }
    }
    let mut jobs = vec![Vec::new(); config.machines_in_all() as usize];
    while let Some((now, happening)) = world.queue.pop() {
        if let Happening::Dispatched { link, .. } = happening {
            jobs[world.links.machine(link) as usize].push(now.since(began));
        }
        world.handle(now, happening).unwrap();
        if world.is_over() {
            break;
        }
    }
    jobs
}

/// From `since` on until the machine's next job; the rest of the run where there is none.
fn wait(jobs: &[Span], since: Span) -> Span {
    let next = jobs.iter().find(|at| **at >= since);
    Span(next.unwrap_or(&LENGTH).0 - since.0)
}

const fn minutes(count: u64) -> Span {
    Span::secs(count * 60)
}

/// What the published experiment's machine last measured, of 52 tokens a second and 2,000: 16.2 and
/// 5.0 of an answer, 400 of a prompt.
const BAD_PERCENT: [u32; 3] = [31, 20, 10];

#[test]
fn a_machine_whose_last_measurement_was_bad_gets_work_again() {
    for percent in BAD_PERCENT {
        for seed in 0..4 {
            let config = fleet(seed);
            let bad = Bad {
                machine: 7,
                percent,
                from: Span::ZERO,
                to: minutes(30),
            };
            let jobs = jobs(&config, &chats(seed, &[]), Some(bad));
            let own = &jobs[7];
            let before = own.iter().filter(|at| at.0 < bad.to.0).count();
            let wait = wait(own, bad.to);
            println!(
                "(a) {percent} %, seed {seed}: {before} jobs while slow, next after {} s",
                wait.0 / 1_000_000
            );
            assert!(before > 0, "it was measured while it was slow");
            assert!(wait <= SOON, "{percent} %, seed {seed}: {wait:?}");
        }
    }
}

#[test]
fn a_new_machine_among_equals_gets_work() {
    for seed in 0..4 {
        let after = minutes(20);
        let config = RunConfig {
            newcomers: vec![Newcomer {
                place: "peer/64".parse().unwrap(),
                after,
            }],
            ..fleet(seed)
        };
        let jobs = jobs(&config, &chats(seed, &[]), None);
        let wait = wait(&jobs[MACHINES as usize], after);
        println!("(b) seed {seed}: first after {} s", wait.0 / 1_000_000);
        assert!(wait <= SOON, "seed {seed}: {wait:?}");
    }
}

#[test]
fn after_a_pause_longer_than_evidence_lasts_everybody_gets_work_again() {
    for percent in BAD_PERCENT {
        for seed in 0..4 {
            let mut lengths = Stream::new(seed, "pauses");
            let mut pause = |from| {
                (
                    minutes(from),
                    Span(minutes(from + 20).0 + 2_000_000 * lengths.below(91)),
                )
            };
            let pauses = [pause(20), pause(60), pause(95)];
            // It is slow until nobody asks any more.
            let bad = Bad {
                machine: 3,
                percent,
                from: Span::ZERO,
                to: minutes(25),
            };
            let jobs = jobs(&fleet(seed), &chats(seed, &pauses), Some(bad));
            for (_, end) in pauses {
                let waits: Vec<Span> = jobs.iter().map(|own| wait(own, end)).collect();
                let longest = waits.iter().max().unwrap();
                println!(
                    "(c) {percent} %, seed {seed}: the slow one after {} s, the last of all after {} s",
                    waits[3].0 / 1_000_000,
                    longest.0 / 1_000_000
                );
                assert!(*longest <= SOON, "{percent} %, seed {seed}: {waits:?}");
            }
        }
    }
}

/// Of the jobs in this stretch, those of the machine with the most, and how many requests there were.
fn most(jobs: &Jobs, from: Span, to: Span) -> (usize, usize) {
    let within = |at: &&Span| (from.0..to.0).contains(&at.0);
    let counts = jobs.iter().map(|own| own.iter().filter(within).count());
    let counts: Vec<usize> = counts.collect();
    (*counts.iter().max().unwrap(), counts.iter().sum())
}

/// A tenth of everything is twice the mean of twenty.
#[test]
fn among_equals_the_busiest_gets_at_most_a_tenth_of_everything() {
    for seed in 0..4 {
        let jobs = jobs(&fleet(seed), &chats(seed, &[]), None);
        let (most, all) = most(&jobs, Span::ZERO, LENGTH);
        println!("(d) seed {seed}: {most} of {all}");
        assert!(
            most * MACHINES as usize <= MOST * all,
            "seed {seed}: {most} of {all}"
        );
    }
}

/// Between two heartbeats nothing is reported, so only what was sent tells machines apart.
#[test]
fn a_burst_within_one_heartbeat_is_spread_over_equals() {
    for seed in 0..4 {
        // A machine that nobody knows yet has one at a time.
        for (burst, at) in [(20, Span::ZERO), (40, minutes(30)), (60, minutes(30))] {
            let mut arrivals = chats(seed, &[]);
            let beside = Arrival {
                after: at,
                ..arrivals[0].clone()
            };
            let place = arrivals.partition_point(|arrival| arrival.after < at);
            arrivals.splice(place..place, vec![beside; burst]);
            arrivals.truncate(place + burst + 10);
            let jobs = jobs(&fleet(seed), &arrivals, None);
            // Up to the next of the usual chats and what the network takes.
            let (most, all) = most(&jobs, at, at + Span::millis(1_900));
            println!(
                "(d) seed {seed}, {burst} at once after {} s: {most} of {all}",
                at.0 / 1_000_000
            );
            assert!(all >= burst, "all of them found a machine");
            assert!(
                most * MACHINES as usize <= MOST * all,
                "seed {seed}: {most} of {all}"
            );
        }
    }
}
