//! The world itself against queueing theory: requests that are pure decode, machines of one row, and the
//! real coordinator between them, who has one line for all.
//!
//! Twice over. Each wait of a run is held against the recursion of Lindley, and of Kiefer and Wolfowitz
//! where there are several servers, on the same arrivals and services, to within the rounding of a tick;
//! and the run against the closed forms, to within five standard errors of its batch means, so that any
//! seed passes. What the error is allowed to be follows from the length of the run.

use cereus_core::coordinator::Policy;
use cereus_core::time::{Span, Tick};
use cereus_sim::hardware::{Chip, Hardware, ModelFacts, StepLoad};
use cereus_sim::record::{Keep, Outcome, Row};
use cereus_sim::stream::{Ratio, Stream};
use cereus_sim::workload::Arrival;
use cereus_sim::world::config::{ModelShare, RunConfig, parse_fleet};
use cereus_sim::world::{Ran, World};

/// Tokens of an answer on average. The first takes a step of its own, as each of the others does.
const MEAN_TOKENS: u64 = 400;
const REQUESTS: u64 = 240_000;
/// Each is thousands of times the time in which such a line forgets.
const BATCHES: usize = 40;
/// Where chance alone is at work one in eighty thousand lies beyond, by Student's t for so many batches.
const ERRORS: f64 = 5.0;
/// Less than this is the rounding of ticks: of an end, of a start.
const SOME_TICKS_US: u64 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    Constant,
    Exponential,
}

/// A line that `servers` serve, at so many hundredths of what they can do.
#[derive(Clone, Copy, Debug)]
struct Line {
    service: Service,
    servers: u32,
    use_percent: u64,
}

/// Decode alone: neither the prompt nor the context costs anything worth the name, and a token takes a
/// fraction of a millisecond, so that no wait is long enough to be turned away.
fn model() -> ModelFacts {
    let measured_with = Hardware::built_in().measured_with();
    ModelFacts {
        name: "pure-decode".into(),
        parameters: measured_with.parameters / 1_000,
        parameters_active: measured_with.parameters / 1_000,
        weights_bytes: measured_with.weights_bytes / 64,
        weights_bytes_active: measured_with.weights_bytes / 64,
        kv_bytes_per_token: 1,
        attention_width: 1,
        source: "made for this test".into(),
    }
}

fn chip() -> Chip {
    let place = "m2-ultra/192".parse().unwrap();
    Hardware::built_in().pair(&place, &model()).unwrap()
}

/// From the moment when a machine gets a request of one prompt token to the end of its answer.
fn service_ns(chip: &Chip, tokens: u64) -> u64 {
    let prompt = StepLoad {
        prefill_tokens: 1,
        pairs: 1,
        ..StepLoad::default()
    };
    chip.step(prompt) + chip.decode(tokens - 1, 1, 1)
}

impl Line {
    fn config(self, seed: u64) -> RunConfig {
        let mut config = RunConfig::reference(self.servers);
        config.seed = seed;
        config.fleet = parse_fleet("m2-ultra/192").unwrap();
        config.models = vec![ModelShare {
            facts: model(),
            weight: 1,
        }];
        config.rows_max = 1;
        // One account has one line, first come first served.
        config.accounts = 1;
        config.policy = Policy::Expected;
        config.queue_depth_max = 65_536;
        config.queue_wait_max = Span::secs(86_400);
        config.net.latency_min = Span::ZERO;
        config.net.latency_spread = Span::ZERO;
        config.net.loss = Ratio::NEVER;
        config.store.write_min = Span::ZERO;
        config.store.write_spread = Span::ZERO;
        config
    }

    /// Of a whole service in seconds: mean and mean square.
    fn moments(self, chip: &Chip) -> (f64, f64) {
        let seconds = |tokens| service_ns(chip, tokens) as f64 / 1e9;
        match self.service {
            Service::Constant => {
                let took = seconds(MEAN_TOKENS);
                (took, took * took)
            }
            Service::Exponential => {
                // A time that was drawn exponential and is rounded up to whole tokens is geometric.
                let again = (-1.0 / MEAN_TOKENS as f64).exp();
                let (mut share, mut mean, mut square) = (1.0 - again, 0.0, 0.0);
                for tokens in 1..60 * MEAN_TOKENS {
                    let took = seconds(tokens);
                    mean += share * took;
                    square += share * took * took;
                    share *= again;
                }
                (mean, square)
            }
        }
    }

    fn arrivals(self, seed: u64, chip: &Chip) -> Vec<Arrival> {
        let mean_us = (self.moments(chip).0 * 1e6) as u64;
        let gap_us = mean_us * 100 / (u64::from(self.servers) * self.use_percent);
        let mut gaps = Stream::new(seed, "gaps");
        let mut lengths = Stream::new(seed, "lengths");
        let mut after = Span::ZERO;
        let one = |_| {
            after = after + Span(gaps.exponential(gap_us));
            let tokens = match self.service {
                Service::Constant => MEAN_TOKENS,
                Service::Exponential => (lengths.exponential(MEAN_TOKENS * 1_000_000))
                    .div_ceil(1_000_000)
                    .max(1),
            };
            Arrival {
                after,
                prompt_tokens: 1,
                output_tokens: u32::try_from(tokens).unwrap(),
                blocks: Vec::new(),
            }
        };
        (0..REQUESTS).map(one).collect()
    }

    /// What each request waited for its machine in a world, in microseconds, after the checks that
    /// nothing else happened than waiting and being served.
    fn run(self, seed: u64) -> Seen {
        let chip = chip();
        let arrivals = self.arrivals(seed, &chip);
        let trace = arrivals.iter().cloned().map(Ok);
        let world = World::new(self.config(seed), trace).unwrap();
        let Ran { record, report, .. } = world.keeping(Keep::Rows).run_recorded(|_| {}).unwrap();
        assert_eq!(report.finished, REQUESTS, "{:?}", report.refused);
        let mut rows = record.rows;
        rows.sort_unstable_by_key(|row| row.number);
        assert!(rows.iter().all(|row| row.attempts == 1));
        let is_answer = |row: &Row| matches!(row.outcome, Outcome::Good | Outcome::Late);
        assert!(rows.iter().all(is_answer));
        let waited = |row: &Row| {
            row.dispatched_at
                .expect("it was served")
                .since(row.sent_at)
                .0
        };
        Seen {
            line: self,
            seed,
            chip,
            waits_us: rows.iter().map(waited).collect(),
            arrivals,
            rows,
        }
    }
}

struct Seen {
    line: Line,
    seed: u64,
    chip: Chip,
    arrivals: Vec<Arrival>,
    rows: Vec<Row>,
    waits_us: Vec<u64>,
}

impl Seen {
    /// In seconds.
    fn mean_service(&self) -> f64 {
        self.line.moments(&self.chip).0
    }

    /// Requests a second.
    fn rate(&self) -> f64 {
        self.line.use_percent as f64 / 100.0 * f64::from(self.line.servers) / self.mean_service()
    }

    /// Each wait is that of the recursion: whoever is first in line gets the server that is free first.
    fn require_the_recursion(&self) {
        let mut free_ns = vec![0u64; self.line.servers as usize];
        for (arrival, row) in self.arrivals.iter().zip(&self.rows) {
            let sent_ns = row.sent_at.0 * 1_000;
            let first = free_ns.iter_mut().min().expect("there is a server");
            let began_ns = sent_ns.max(*first);
            // A world's machine begins at a tick, and an end is heard at the next.
            let ended_ns = began_ns + service_ns(&self.chip, arrival.output_tokens.into());
            *first = ended_ns.next_multiple_of(1_000);
            let seen_ns = row.dispatched_at.expect("it was served").0 * 1_000;
            let apart_us = seen_ns.abs_diff(began_ns) / 1_000;
            assert!(
                apart_us <= SOME_TICKS_US,
                "{:?} seed {}: request {} began {apart_us} us from when it should",
                self.line,
                self.seed,
                row.number
            );
            assert!(row.ended_at.since(Tick(*first / 1_000)).0 <= SOME_TICKS_US);
        }
    }

    /// The mean over all requests is as expected, as far as batches of them vary.
    fn require(&self, what: &str, expected: f64, of: impl Fn(f64) -> f64) {
        let size = self.waits_us.len() / (BATCHES + 1);
        // The first finds an empty house.
        let batches = self.waits_us[size..].chunks_exact(size);
        let mean = |batch: &[u64]| {
            let each = batch.iter().map(|wait| of(*wait as f64 / 1e6));
            each.sum::<f64>() / size as f64
        };
        let means: Vec<f64> = batches.map(mean).collect();
        let count = means.len() as f64;
        let mean = means.iter().sum::<f64>() / count;
        let squares = means.iter().map(|batch| (batch - mean) * (batch - mean));
        let error = (squares.sum::<f64>() / (count - 1.0) / count).sqrt();
        println!(
            "{:?} seed {}: {what} {mean:.5}, expected {expected:.5}, standard error {error:.5}",
            self.line, self.seed
        );
        // Otherwise the run is too short to tell.
        assert!(error < expected / 16.0, "{what}: {error} of {expected}");
        assert!(
            (mean - expected).abs() <= ERRORS * error,
            "{:?} seed {}: {what} {mean}, expected {expected}, standard error {error}",
            self.line,
            self.seed
        );
    }
}

fn seen(line: Line) -> impl Iterator<Item = Seen> {
    (1..=2).map(move |seed| {
        let seen = line.run(seed);
        seen.require_the_recursion();
        seen
    })
}

/// Whoever waits no longer than some ticks found a free machine.
const FREE: f64 = SOME_TICKS_US as f64 / 1e6;

const fn exceeds(time: f64) -> impl Fn(f64) -> f64 {
    move |wait| if wait > time { 1.0 } else { 0.0 }
}

/// The mean of M/G/1: `rate * E[S^2] / 2 (1 - use)`.
fn pollaczek_khinchine(seen: &Seen) -> f64 {
    let busy = seen.rate() * seen.mean_service();
    seen.rate() * seen.line.moments(&seen.chip).1 / (2.0 * (1.0 - busy))
}

#[test]
fn m_m_1_waits_as_erlang_says() {
    let line = Line {
        service: Service::Exponential,
        servers: 1,
        use_percent: 60,
    };
    for seen in seen(line) {
        let busy = 0.6;
        let leaving = 1.0 / seen.mean_service() - seen.rate();
        // Rounding up to tokens takes a four hundredth from the variance.
        let mean = busy / leaving;
        assert!((pollaczek_khinchine(&seen) / mean - 1.0).abs() < 0.002);
        seen.require("mean wait", mean, |wait| wait);
        seen.require("share that waits", busy, exceeds(FREE));
        for services in [1.0, 3.0] {
            let time = services * seen.mean_service();
            let longer = busy * (-leaving * time).exp();
            seen.require("share that waits longer", longer, exceeds(time));
        }
    }
}

#[test]
fn m_m_k_waits_as_erlang_c_says() {
    // Four servers offered 3 erlangs: C = 27/53, and who waits does so exponentially.
    let line = Line {
        service: Service::Exponential,
        servers: 4,
        use_percent: 75,
    };
    for seen in seen(line) {
        let waits = 27.0 / 53.0;
        let leaving = 4.0 / seen.mean_service() - seen.rate();
        seen.require("mean wait", waits / leaving, |wait| wait);
        seen.require("share that waits", waits, exceeds(FREE));
        let time = seen.mean_service();
        let longer = waits * (-leaving * time).exp();
        seen.require("share that waits longer", longer, exceeds(time));
    }
}

#[test]
fn m_d_1_waits_as_pollaczek_and_khinchine_and_erlang_say() {
    let line = Line {
        service: Service::Constant,
        servers: 1,
        use_percent: 60,
    };
    for seen in seen(line) {
        let busy = 0.6;
        let took = seen.mean_service();
        let rate = seen.rate();
        seen.require("mean wait", pollaczek_khinchine(&seen), |wait| wait);
        seen.require("share that waits", busy, exceeds(FREE));
        // P(W <= t) = (1 - use) times the sum over j up to t / D of (-r (t - j D))^j / j! e^(r (t - j D)).
        let half = (1.0 - busy) * (rate * took / 2.0).exp();
        seen.require("share that waits longer", 1.0 - half, exceeds(took / 2.0));
        let over = rate * took / 2.0;
        let one_and_a_half = (1.0 - busy) * ((3.0 * over).exp() - over * over.exp());
        seen.require(
            "share that waits longer",
            1.0 - one_and_a_half,
            exceeds(1.5 * took),
        );
    }
}
