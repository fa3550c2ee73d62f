//! Runs of many worlds, several at a time: each world has one thread, and knows of no other.

use std::error::Error;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use cereus_sim::study::{
    self, Capacity, Comparison, Contender, Goal, Measure, Measured, Size, Sizing, capacity,
    rate_milli, sizing,
};
use cereus_sim::workload::Arrival;
use cereus_sim::world::config::{MACHINES_MAX, RunConfig};
use cereus_sim::world::{Ran, RunError};
use indicatif::{ProgressBar, ProgressStyle};

use super::options::{Choice, choice_name};

/// Seeds that a search for the capacity takes the mean of.
const CAPACITY_SEEDS: u64 = 2;

#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Several {
    /// How many seeds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(super) seeds: u64,
    /// The first seed; the others follow it.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(..=u64::MAX / 2))]
    pub(super) seed: u64,
    /// Worlds that run at the same time. The result is the same.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(super) threads: u8,
}

impl Several {
    pub(super) fn seeds(&self) -> impl Iterator<Item = u64> + Clone {
        self.seed..self.seed + self.seeds
    }

    /// Runs every world; what is kept of each is in the order of the worlds.
    pub(super) fn run<T: Send>(
        &self,
        configs: &[RunConfig],
        arrivals: &[Arrival],
        bar: &ProgressBar,
        keep: impl Fn(Ran) -> T + Sync,
    ) -> Result<Vec<T>, RunError> {
        let next = AtomicUsize::new(0);
        let kept: Vec<Mutex<Option<Result<T, RunError>>>> =
            configs.iter().map(|_| Mutex::new(None)).collect();
        thread::scope(|scope| {
            for _ in 0..usize::from(self.threads).min(configs.len()) {
                scope.spawn(|| {
                    loop {
                        let ix = next.fetch_add(1, Ordering::Relaxed);
                        let Some(config) = configs.get(ix) else {
                            return;
                        };
                        let ran = study::run(config.clone(), arrivals).map(&keep);
                        *kept[ix].lock().expect("nobody panics with it") = Some(ran);
                        bar.inc(1);
                    }
                });
            }
        });
        let results = kept.into_iter().map(|place| {
            let result = place.into_inner().expect("nobody panics with it");
            result.expect("each world was run")
        });
        results.collect()
    }

    /// Each policy at every seed, under the load of `config`.
    pub(super) fn contest(
        &self,
        config: &RunConfig,
        policies: &[Choice],
        arrivals: &[Arrival],
        bar: &ProgressBar,
    ) -> Result<Comparison, RunError> {
        let seeds = self.seeds();
        let of = |&choice: &Choice| {
            let each = seeds.clone();
            each.map(move |seed| choice.world(seed, config))
        };
        let configs: Vec<RunConfig> = policies.iter().flat_map(of).collect();
        let runs = self.run(&configs, arrivals, bar, |ran| Measured::of(&ran))?;
        let runs = runs.chunks(seeds.count());
        let contenders = policies.iter().zip(runs).map(|(&choice, runs)| Contender {
            name: choice_name(choice),
            runs: runs.to_vec(),
        });
        Ok(Comparison {
            load_ppm: None,
            speedup_ppm: config.speedup_ppm,
            rate_milli: rate_milli(arrivals, config.speedup_ppm),
            contenders: contenders.collect(),
        })
    }

    /// How few machines of `config`'s mix meet a goal.
    pub(super) fn sizing(
        &self,
        config: &RunConfig,
        policy: Choice,
        goal: Goal,
        arrivals: &[Arrival],
        bar: &ProgressBar,
    ) -> Result<Sizing, RunError> {
        sizing(config.machines, MACHINES_MAX, goal, |machines| {
            bar.set_message(format!("at {machines} machines"));
            bar.inc_length(self.seeds);
            let config = RunConfig {
                machines,
                ..config.clone()
            };
            let contest = self.contest(&config, &[policy], arrivals, bar)?;
            let of = |measure| contest.contenders[0].interval(measure);
            Ok(Size {
                machines,
                goodput: of(Measure::Goodput).expect("there is a seed"),
                ttft_p99: of(Measure::TtftP99).expect("there is a seed"),
            })
        })
    }

    /// How fast the arrivals may come with `config`'s policy.
    pub(super) fn capacity(
        &self,
        config: &RunConfig,
        arrivals: &[Arrival],
        bar: &ProgressBar,
    ) -> Result<u64, Box<dyn Error>> {
        bar.set_message("looking for the capacity");
        let goodput = |speedup_ppm| {
            let configs: Vec<RunConfig> = self
                .capacity_seeds()
                .map(|seed| RunConfig {
                    seed,
                    speedup_ppm,
                    ..config.clone()
                })
                .collect();
            bar.inc_length(configs.len() as u64);
            let good = self.run(&configs, arrivals, bar, |ran| ran.report.goodput_ppm)?;
            Ok::<u64, RunError>(good.iter().sum::<u64>() / good.len() as u64)
        };
        match capacity(config.speedup_ppm, goodput)? {
            Capacity::Found { speedup_ppm } => Ok(speedup_ppm),
            Capacity::Never { goodput_ppm } => Err(format!(
                "no load suits this fleet: of arrivals fifty times slower, {}.{:02} % are served \
                 within the objective; widen --slo-ttft-ms or --slo-tpot-ms, or say --speedup",
                goodput_ppm / 10_000,
                goodput_ppm / 100 % 100
            )
            .into()),
            Capacity::Beyond => Err(
                "the trace is too small to fill this fleet: take fewer --machines, or say --speedup"
                    .into(),
            ),
        }
    }

    pub(super) fn capacity_seeds(&self) -> impl Iterator<Item = u64> + Clone {
        self.seeds()
            .take(usize::try_from(CAPACITY_SEEDS).expect("few"))
    }
}

/// Counts worlds, on a terminal only.
pub(super) fn bar(worlds: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} worlds, {eta} left {msg}");
    let bar = ProgressBar::new(worlds as u64);
    bar.with_style(style.expect("the template is well formed"))
}
