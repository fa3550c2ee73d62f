//! What the commands share that run one world for each seed.

use core::fmt;
use std::io::IsTerminal;
use std::ops::Range;
use std::process::ExitCode;

use cereus_sim::swarm::Failure;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use indicatif::{ProgressBar, ProgressStyle};

#[derive(Debug, clap::Args)]
pub(super) struct Seeds {
    /// How many worlds.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first seed; the others follow it.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl Seeds {
    pub(super) const fn range(&self) -> Range<u64> {
        self.seed..self.seed.saturating_add(self.seeds)
    }

    pub(super) const fn count(&self) -> u64 {
        self.seeds
    }

    pub(super) fn bar(&self) -> ProgressBar {
        if !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{bar:40} {pos} of {len} seeds, {eta} left");
        ProgressBar::new(self.seeds).with_style(style.expect("the template is well formed"))
    }
}

impl fmt::Display for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.seeds, self.seed)
    }
}

/// Takes the names of these values.
pub(super) fn named<T, const N: usize>(
    all: [T; N],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    PossibleValuesParser::new(all.map(name)).map(move |given| {
        let found = all.into_iter().find(|&it| name(it) == given);
        found.expect("only these names are taken")
    })
}

/// A failure is what a plant is there for.
pub(super) fn report_failure(command: &str, plant: Option<&str>, failure: &Failure) -> ExitCode {
    if let Some(plant) = plant {
        println!("planted {plant}: found. {failure}");
        return ExitCode::SUCCESS;
    }
    eprintln!("FAILED {failure}");
    eprintln!(
        "repeat it with: cargo xtask sim {command} --seed {} --seeds 1",
        failure.seed
    );
    if command == "swarm" {
        eprintln!("make it small: cargo xtask sim shrink {}", failure.seed);
    }
    ExitCode::FAILURE
}
