//! The options that make a world, the same for every command that runs one.

use cereus_core::coordinator::Policy;
use cereus_core::money::MicroUsd;
use cereus_core::time::Span;
use cereus_sim::hardware::Hardware;
use cereus_sim::machine::Pace;
use cereus_sim::stream::Ratio;
use cereus_sim::world::config::{
    FLEET, FleetShare, MACHINES_MAX, ModelShare, PrefixCache, RunConfig, Slo, parse_fleet,
    parse_models,
};
use cereus_sim::world::knowledge::Knowledge;
use clap::ValueEnum;

use super::world::Life;

/// A policy by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Choice {
    /// The least expected time to first content: what a coordinator does.
    #[default]
    Expected,
    /// SGLang's: the longest match of the prompt if it is long enough, otherwise who was sent least.
    CacheAware,
    /// Preble's: the longest match where it is more than the rest, otherwise the least work.
    ExploitExplore,
    /// Dynamo's: the fewest blocks to read and to hold.
    FewestBlocks,
    /// llm-d's: the highest weighted sum of match, queue and memory.
    HighestScore,
    /// The fewest requests under way.
    LeastOutstanding,
    /// Any machine that has room.
    Random,
    /// What the network that this one is compatible with did: the least of a cost in milliseconds.
    Reference,
    /// Ours, if it knew all lengths and speeds beforehand: no policy, but what knowing them would be worth.
    Oracle,
    /// Each machine in turn.
    RoundRobin,
    /// Always the same machine for an account, while that has no more than its share.
    Sticky,
    /// The less loaded of two that chance picks.
    TwoChoices,
}

impl Choice {
    /// The world in which it chooses, at this seed.
    pub(super) fn world(self, seed: u64, base: &RunConfig) -> RunConfig {
        RunConfig {
            seed,
            policy: self.policy(),
            knowledge: if self == Self::Oracle {
                Knowledge::Perfect
            } else {
                base.knowledge
            },
            ..base.clone()
        }
    }

    const fn policy(self) -> Policy {
        match self {
            Self::CacheAware => Policy::CacheAware,
            Self::Expected => Policy::Expected,
            Self::ExploitExplore => Policy::ExploitExplore,
            Self::FewestBlocks => Policy::FewestBlocks,
            Self::HighestScore => Policy::HighestScore,
            Self::LeastOutstanding => Policy::LeastOutstanding,
            Self::Oracle => Policy::Told,
            Self::Random => Policy::Random,
            Self::Reference => Policy::Reference,
            Self::RoundRobin => Policy::RoundRobin,
            Self::Sticky => Policy::Sticky,
            Self::TwoChoices => Policy::TwoChoices,
        }
    }
}

/// As it is given on the command line.
pub(super) fn choice_name(choice: Choice) -> String {
    let value = choice.to_possible_value();
    value.expect("no choice is hidden").get_name().to_owned()
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Told {
    Perfect,
    Production,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Cache {
    Off,
    On,
}

/// All but the trace, the seed and the policy: those are what commands vary.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// How many machines serve.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(MACHINES_MAX)))]
    machines: u32,
    /// Arrivals come this many times as fast as they were recorded.
    #[arg(long, default_value = "1", value_parser = parse_ppm)]
    speedup: Ppm,
    /// Mix of machines as chip/gigabytes:weight,...
    #[arg(long, default_value = FLEET, value_parser = parse_mix)]
    fleet: Mix,
    /// A table of chips beside those that are known, as `calibrate` writes it.
    #[arg(long, value_name = "FILE", value_parser = read_chips)]
    chips: Option<Box<Hardware>>,
    /// What they serve: a name of the table of models, or several, as a,b,c (each is asked for as often
    /// as the first divided by its place) or a:5,b:1. Of several each machine has those that fit its
    /// memory, loads what it is asked for, and has one in memory at first.
    #[arg(long, default_value = "llama-3-8b-4bit", value_parser = parse_shares)]
    model: Models,
    /// What the coordinator is told: estimates and bounds as in production, or true lengths and rates,
    /// as an upper bound.
    #[arg(long, value_enum, default_value_t = Told::Production)]
    knowledge: Told,
    /// Whether machines find what they have computed of earlier prompts, by the blocks that a trace
    /// names (Mooncake's).
    #[arg(long, value_enum, default_value_t = Cache::On)]
    prefix_cache: Cache,
    /// Rows that a machine computes together.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    rows: u16,
    /// Requests that may wait for one model.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    queue: u32,
    /// A request that has waited so long is refused.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    queue_wait_s: u64,
    /// The objective: the first token comes within this time,
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(0..=86_400_000))]
    slo_ttft_ms: u64,
    /// and each later one takes at most this time, on average over the answer.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(0..=86_400_000))]
    slo_tpot_ms: u64,
    /// Least one-way latency of a link.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    latency_ms: u64,
    /// Uniform addition to the latency.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    jitter_ms: u64,
    /// Lost messages in a million, at most half; each comes late, by as many resends as are lost too.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(0..=500_000))]
    loss_ppm: u32,
    /// Consumers' accounts.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    accounts: u32,
    /// Deposit of each account in whole US dollars.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    balance_usd: u32,
    /// Advance decode token by token. The digest is the same.
    #[arg(long)]
    slow: bool,
    #[command(flatten)]
    life: Box<Life>,
}

/// A number with up to six digits after the point, above zero.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ppm(pub(super) u64);

#[derive(Clone, Debug)]
struct Mix(Vec<FleetShare>);

#[derive(Clone, Debug)]
struct Models(Vec<ModelShare>);

impl Options {
    /// At the reference seed, with the policy that a coordinator runs.
    pub(super) fn config(&self) -> RunConfig {
        let mut config = RunConfig::reference(self.machines);
        config.fleet.clone_from(&self.fleet.0);
        if let Some(chips) = &self.chips {
            config.hardware.clone_from(chips);
        }
        config.models.clone_from(&self.model.0);
        config.pace = if self.slow { Pace::Step } else { Pace::Leap };
        config.speedup_ppm = self.speedup.0;
        config.rows_max = self.rows;
        config.prefix_cache = match self.prefix_cache {
            Cache::Off => PrefixCache::Off,
            Cache::On => PrefixCache::On,
        };
        config.queue_depth_max = self.queue;
        config.queue_wait_max = Span::secs(self.queue_wait_s);
        config.accounts = self.accounts;
        config.balance = MicroUsd(i64::from(self.balance_usd) * 1_000_000);
        config.net.latency_min = Span::millis(self.latency_ms);
        config.net.latency_spread = Span::millis(self.jitter_ms);
        config.net.loss = Ratio::ppm(self.loss_ppm);
        config.slo = Slo {
            ttft: Span::millis(self.slo_ttft_ms),
            tpot: Span::millis(self.slo_tpot_ms),
        };
        config.knowledge = match self.knowledge {
            Told::Perfect => Knowledge::Perfect,
            Told::Production => Knowledge::Production,
        };
        self.life.shape(&mut config);
        config
    }
}

pub(super) fn parse_ppm(text: &str) -> Result<Ppm, String> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let number = |text: &str| {
        text.parse::<u64>()
            .map_err(|_| format!("`{text}` is no number"))
    };
    if fraction.len() > 6 {
        return Err("at most six digits after the point".into());
    }
    let parts = number(&format!("0{fraction:0<6}"))?;
    let ppm = number(whole)?
        .checked_mul(1_000_000)
        .and_then(|whole| whole.checked_add(parts))
        .ok_or("too large")?;
    if ppm == 0 {
        return Err("must be above zero".into());
    }
    Ok(Ppm(ppm))
}

fn read_chips(path: &str) -> Result<Box<Hardware>, String> {
    let table = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let hardware = Hardware::built_in().clone().with_chips(table);
    hardware.map(Box::new).map_err(|error| error.to_string())
}

fn parse_shares(text: &str) -> Result<Models, String> {
    parse_models(text).map(Models)
}

fn parse_mix(text: &str) -> Result<Mix, String> {
    parse_fleet(text).map(Mix)
}
