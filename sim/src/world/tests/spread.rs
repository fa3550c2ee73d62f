//! N1 and N2: below saturation everybody gets work, and who is new is tried.
//!
//! `cargo test -p cereus-sim --lib spread -- --nocapture` prints the figures.

use std::collections::BTreeMap;

use super::super::config::{FLEET, Newcomer, parse_fleet};
use super::super::heat::Heat;
use super::*;
use crate::hardware::{Chip, Hardware, Place, StepLoad};

const PROMPT_TOKENS: (u64, u64) = (200, 2_100);
const OUTPUT_TOKENS: (u64, u64) = (20, 400);

/// Chats: prompts of 1,150 tokens and answers of 210 on average.
fn chats(seed: u64, count: u32, gap_us: u64) -> Vec<Arrival> {
    let mut stream = Stream::new(seed, "chats");
    let mut after = 0;
    let mut between = |(least, most)| u32::try_from(stream.between(least, most)).unwrap();
    let lengths: Vec<(u32, u32)> = (0..count)
        .map(|_| (between(PROMPT_TOKENS), between(OUTPUT_TOKENS)))
        .collect();
    let mut gaps = Stream::new(seed, "gaps");
    let one = |(prompt_tokens, output_tokens)| {
        after += gaps.exponential(gap_us);
        Arrival {
            after: Span(after),
            prompt_tokens,
            output_tokens,
            blocks: Vec::new(),
        }
    };
    lengths.into_iter().map(one).collect()
}

fn chip_of(place: &Place) -> Chip {
    let hardware = Hardware::built_in();
    hardware.pair(place, hardware.measured_with()).unwrap()
}

/// What a chat takes from its first token on, and until then, with nothing beside it.
fn service_us(chip: &Chip, prompt_tokens: u32, output_tokens: u32) -> (u64, u64) {
    let row = StepLoad {
        rows: 1,
        ..StepLoad::default()
    };
    let prompt_ns = chip.prompt_ns(prompt_tokens.into()) + chip.step(row);
    let rest_ns = chip.decode(u64::from(output_tokens) - 1, 1, prompt_tokens.into());
    (prompt_ns / 1_000, rest_ns / 1_000)
}

/// What came to each machine between the middle of a run and its end, and the report.
fn second_half(config: &RunConfig, arrivals: &[Arrival]) -> (Vec<u64>, Report) {
    let middle = Tick::ZERO + WARM_UP + arrivals[arrivals.len() / 2].after;
    let all = arrivals.iter().cloned().map(Ok);
    let mut world = World::new(config.clone(), all).unwrap();
    let jobs = |world: &World<_>| -> Vec<u64> {
        let machines = 0..world.config.machines_in_all();
        machines.map(|machine| world.fleet.jobs(machine)).collect()
    };
    let mut before = None;
    while let Some((now, happening)) = world.queue.pop() {
        if now >= middle && before.is_none() {
            before = Some(jobs(&world));
        }
        world.handle(now, happening).unwrap();
        if world.is_over() {
            break;
        }
    }
    let after = jobs(&world);
    let came = after.iter().zip(before.unwrap());
    let came = came.map(|(after, before)| after - before).collect();
    (came, world.conclude().report)
}

const MACHINES: u32 = 200;

/// The mix of a run at a use of about 6 %, until each machine could have had 20 requests in each half.
fn at_six_percent(seed: u64) -> (RunConfig, Vec<Arrival>) {
    at_six_percent_of(MACHINES, seed, MACHINES * 40)
}

fn at_six_percent_of(machines: u32, seed: u64, count: u32) -> (RunConfig, Vec<Arrival>) {
    let config = RunConfig {
        seed,
        ..RunConfig::reference(machines)
    };
    (config, chats(seed, count, 58_000_000 / u64::from(machines)))
}

/// Machines of a memory class, what they got, and what they could do.
#[derive(Clone, Copy, Debug, Default)]
struct Class {
    machines: u64,
    idle: u64,
    jobs: u64,
    /// Chats of average size in an hour.
    speed: u64,
}

/// The classes in which N1 was seen: up to 32 GB, up to 64, larger.
fn classes(config: &RunConfig, came: &[u64]) -> BTreeMap<&'static str, Class> {
    let mut classes = BTreeMap::<_, Class>::new();
    for (place, &jobs) in config.places().iter().zip(came) {
        let name = match place.memory_gb {
            ..=32 => "a: to 32 GB",
            33..=64 => "b: to 64 GB",
            65.. => "c: larger",
        };
        let (prompt_us, rest_us) = service_us(&chip_of(place), 1_150, 210);
        let class = classes.entry(name).or_default();
        class.machines += 1;
        class.idle += u64::from(jobs == 0);
        class.jobs += jobs;
        class.speed += 3_600_000_000 / (prompt_us + rest_us);
    }
    classes
}

/// Of all jobs, and of all that could be done, in thousandths.
fn shares(classes: &BTreeMap<&'static str, Class>) -> Vec<(&'static str, u64, u64)> {
    let jobs: u64 = classes.values().map(|class| class.jobs).sum();
    let speed: u64 = classes.values().map(|class| class.speed).sum();
    let milli = |part: u64, whole: u64| part * 1_000 / whole;
    let each = classes.iter();
    each.map(|(name, class)| (*name, milli(class.jobs, jobs), milli(class.speed, speed)))
        .collect()
}

fn print(seed: u64, classes: &BTreeMap<&'static str, Class>, report: &Report) {
    println!(
        "N1 seed {seed}: in use {} ppm, TTFT p50 {} ms",
        report.busy_ppm,
        report.ttft.p50_us / 1_000
    );
    for ((name, class), (_, got, could)) in classes.iter().zip(shares(classes)) {
        println!(
            "  {name:12} {:4} machines, {:4} got none, {:6} jobs: {got:4} of 1,000, speed {could:4}",
            class.machines, class.idle, class.jobs
        );
    }
}

/// The memory classes that break a law, of three seeds.
fn broken_by_classes(law: impl Fn(Class, u64, u64) -> bool) -> String {
    let mut broken = String::new();
    for seed in 0..3 {
        let (config, arrivals) = at_six_percent(seed);
        let (came, report) = second_half(&config, &arrivals);
        assert!((40_000..=80_000).contains(&report.busy_ppm));
        let classes = classes(&config, &came);
        print(seed, &classes, &report);
        for ((name, class), (_, got, could)) in classes.iter().zip(shares(&classes)) {
            if !law(*class, got, could) {
                broken += &format!("seed {seed}, {name}: {class:?}, {got} of {could}; ");
            }
        }
    }
    broken
}

#[test]
fn below_saturation_no_machine_goes_without_work() {
    assert_eq!(broken_by_classes(|class, _, _| class.idle == 0), "");
}

/// Faster machines may get more, never all: each memory class gets at least a quarter of what its
/// speed is of the fleet's.
#[test]
fn what_a_memory_class_gets_follows_its_speed_and_not_its_rank() {
    assert_eq!(broken_by_classes(|_, got, could| got * 4 >= could), "");
}

/// Each chat goes where its first token comes first, by the truth of every machine; a machine has
/// one at a time. Half of the times to first content, in microseconds.
fn always_the_fastest_us(config: &RunConfig, arrivals: &[Arrival]) -> u64 {
    // Two ways to the machine and two back, of 23 ms on average.
    const WAYS_US: u64 = 2 * 23_000;
    let places = config.places();
    let chips: Vec<Chip> = places.iter().map(|place| chip_of(place)).collect();
    let mut free_us = vec![0u64; chips.len()];
    let mut ttfts: Vec<u64> = Vec::new();
    for arrival in arrivals {
        let at_us = arrival.after.0 + WAYS_US;
        let first = |(chip, free_us): (&Chip, &u64)| {
            let (prompt_us, rest_us) =
                service_us(chip, arrival.prompt_tokens, arrival.output_tokens);
            let first_us = at_us.max(*free_us) + prompt_us;
            (first_us, first_us + rest_us)
        };
        let each = chips.iter().zip(&free_us).map(first).zip(0..);
        let ((first_us, end_us), machine) = each.min().unwrap();
        free_us[machine] = end_us;
        ttfts.push(first_us + WAYS_US - arrival.after.0);
    }
    ttfts.sort_unstable();
    ttfts[ttfts.len() / 2]
}

#[test]
fn what_variety_costs_stays_within_a_tenth_of_the_time_to_first_content() {
    for seed in 0..3 {
        let (config, arrivals) = at_six_percent(seed);
        let fastest_us = always_the_fastest_us(&config, &arrivals);
        let p50_us = report(&config, &arrivals).ttft.p50_us;
        println!("N1 seed {seed}: TTFT p50 {p50_us} us, always the fastest {fastest_us} us");
        assert!(p50_us * 10 <= fastest_us * 11, "{p50_us} and {fastest_us}");
    }
}

/// N1 in its own size: 1,200 machines for three hours.
#[test]
fn in_a_large_fleet_every_machine_gets_its_part_and_it_costs_a_tenth_at_most() {
    const GAP_US: u32 = 58_000_000 / 1_200;
    let (config, arrivals) =
        at_six_percent_of(1_200, 1, (10_800_000_000 / u64::from(GAP_US)) as u32);
    let (came, report) = second_half(&config, &arrivals);
    let classes = classes(&config, &came);
    print(1, &classes, &report);
    for ((name, class), (_, got, could)) in classes.iter().zip(shares(&classes)) {
        assert_eq!(class.idle, 0, "{name}");
        assert!(got * 4 >= could, "{name}: {got} of {could}");
    }
    let fastest_us = always_the_fastest_us(&config, &arrivals);
    let p50_us = report.ttft.p50_us;
    println!("TTFT p50 {p50_us} us, always the fastest {fastest_us} us");
    assert!(p50_us * 10 <= fastest_us * 11, "{p50_us} and {fastest_us}");
}

/// When the newcomer may be chosen, and when its first job comes. `None`: never.
fn first_job(config: &RunConfig, arrivals: &[Arrival]) -> (Tick, Option<Tick>) {
    let all = arrivals.iter().cloned().map(Ok);
    let mut world = World::new(config.clone(), all).unwrap();
    let newcomer = config.machines;
    let mut eligible_at = None;
    while let Some((now, happening)) = world.queue.pop() {
        match happening {
            Happening::Up {
                link,
                news: News::Answered,
            } if world.links.machine(link) == newcomer => {
                eligible_at = eligible_at.or(Some(now));
            }
            Happening::Dispatched { link, .. } if world.links.machine(link) == newcomer => {
                return (eligible_at.unwrap(), Some(now));
            }
            _ => {}
        }
        world.handle(now, happening).unwrap();
        if world.is_over() {
            break;
        }
    }
    (eligible_at.unwrap(), None)
}

/// Until a newcomer of that kind gets its first job, in seconds, for each of some seeds; the whole run
/// where it gets none.
fn first_jobs_s(fleet: &str, machines: u32, newcomer: &str, gap_us: u64) -> Vec<u64> {
    let wait_s = |seed| {
        let config = RunConfig {
            seed,
            fleet: parse_fleet(fleet).unwrap(),
            heat: Heat::Home,
            newcomers: vec![Newcomer {
                place: newcomer.parse().unwrap(),
                after: Span::secs(600),
            }],
            ..RunConfig::reference(machines)
        };
        // Half an hour after it has come.
        let count = u32::try_from(2_400_000_000 / gap_us).unwrap();
        let (eligible_at, first_at) = first_job(&config, &chats(seed, count, gap_us));
        first_at.map_or(1_800, |at| at.since(eligible_at).0 / 1_000_000)
    };
    let waits: Vec<u64> = (0..12).map(wait_s).collect();
    println!("N2 {newcomer} beside {machines} of {fleet}, one in {gap_us} us: {waits:?} s");
    waits
}

/// The waits that are longer than two minutes.
fn late(waits_s: &[u64]) -> String {
    let late = waits_s.iter().filter(|&&s| s > 120);
    late.map(|s| format!("{s} s; ")).collect()
}

fn assert_soon(waits_s: &[u64]) {
    assert_eq!(
        late(waits_s),
        "",
        "a newcomer waited longer than two minutes"
    );
}

#[test]
fn a_newcomer_to_a_busy_fleet_gets_its_first_job_within_two_minutes() {
    assert_soon(&first_jobs_s(FLEET, 60, "m4-max/128", 1_000_000));
}

/// It is slower than most, and all the same somebody has to find out.
#[test]
fn a_slow_newcomer_to_a_busy_fleet_gets_its_first_job_within_two_minutes() {
    assert_soon(&first_jobs_s(FLEET, 60, "m4/24", 1_000_000));
}

/// N2 as it was seen: the only peer is slower, and gets hot.
#[test]
fn a_newcomer_beside_one_busy_peer_gets_its_first_job_within_two_minutes() {
    assert_soon(&first_jobs_s("m4-pro/48", 1, "m4-max/128", 6_000_000));
}

#[test]
fn a_newcomer_beside_one_idle_peer_gets_its_first_job_within_two_minutes() {
    assert_soon(&first_jobs_s("m4-pro/48", 1, "m4-max/128", 20_000_000));
}

#[test]
fn a_newcomer_slower_than_its_peer_gets_its_first_job_within_two_minutes() {
    assert_soon(&first_jobs_s("m4-max/128", 1, "m4-pro/48", 10_000_000));
}
