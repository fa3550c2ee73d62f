//! Everything that shapes a `run`. All of it is printed.

use cereus_core::config::{Catalog, Config, Limits, ModelSpec};
use cereus_core::draw::Seed;
use cereus_core::event::Trust;
use cereus_core::money::{MicroUsd, Price};
use cereus_core::time::Span;
use thiserror::Error;

use super::net::NetConfig;
use super::store::StoreConfig;
use crate::machine::{CHIPS, Chip, Pace, WEIGHTS_SIZE};
use crate::stream::{Ratio, Stream};

/// The share of a chip in the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChipShare {
    pub chip: Chip,
    pub weight: u32,
}

/// What a consumer calls good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slo {
    pub ttft: Span,
    /// For each token after the first.
    pub tpot: Span,
}

/// Whether machines find what they have computed of earlier prompts. All requests of a trace are of
/// one tenant here: traces do not say whose they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PrefixCache {
    Off,
    On,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunConfig {
    pub seed: u64,
    pub machines: u32,
    pub chips: Vec<ChipShare>,
    pub pace: Pace,
    pub speedup_ppm: u64,
    pub rows_max: u16,
    pub context_tokens: u32,
    pub prefix_cache: PrefixCache,
    pub candidates_max: u8,
    pub queue_depth_max: u32,
    pub queue_wait_max: Span,
    pub accounts: u32,
    pub balance: MicroUsd,
    pub net: NetConfig,
    pub store: StoreConfig,
    pub slo: Slo,
    pub heartbeat_every: Span,
    pub challenge_every: Span,
}

/// A configuration that cannot be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RunConfigError {
    #[error("at least one account must pay")]
    NoAccounts,
    #[error("the mix of chips is empty; name at least one with a weight")]
    NoChips,
    #[error("at least one machine is needed")]
    NoMachines,
    /// No more than a step has room for.
    #[error("a machine computes between 1 and 1,024 rows together")]
    Rows,
    /// Two heartbeats of one machine would be under way at once.
    #[error("latency and resend together must stay below the heartbeat")]
    SlowNetwork,
    #[error("more machines than the coordinator holds")]
    TooManyMachines,
}

/// Half of the tokens of a step, so that prefill always moves on.
const ROWS_MAX: u16 = 1_024;

/// The room of the coordinator's table of providers in simulations.
pub const MACHINES_MAX: u32 = 131_072;

impl RunConfig {
    /// A fleet like that of the public network whose chips were measured ([`CHIPS`]): half of the machines
    /// of the previous generation, links over the internet, a local disk.
    #[must_use]
    pub fn reference(machines: u32) -> Self {
        let weights = [50, 30, 20];
        let chips = CHIPS
            .iter()
            .zip(weights)
            .map(|(&chip, weight)| ChipShare { chip, weight });
        Self {
            seed: 1,
            machines,
            chips: chips.collect(),
            pace: Pace::Leap,
            speedup_ppm: 1_000_000,
            rows_max: 8,
            context_tokens: 131_072,
            prefix_cache: PrefixCache::On,
            candidates_max: Limits::reference().candidates_max,
            queue_depth_max: Limits::reference().queue_depth_max,
            queue_wait_max: Limits::reference().queue_wait_max,
            accounts: 64,
            balance: MicroUsd(1_000_000_000),
            net: NetConfig {
                latency_min: Span::millis(8),
                latency_spread: Span::millis(30),
                loss: Ratio::ppm(1_000),
                resend_after: Span::millis(250),
            },
            store: StoreConfig {
                write_min: Span::millis(2),
                write_spread: Span::millis(6),
            },
            slo: Slo {
                ttft: Span::secs(5),
                tpot: Span::millis(100),
            },
            heartbeat_every: Span::secs(5),
            challenge_every: Span::secs(300),
        }
    }

    pub fn check(&self) -> Result<(), RunConfigError> {
        if self.machines == 0 {
            return Err(RunConfigError::NoMachines);
        }
        if self.machines > MACHINES_MAX {
            return Err(RunConfigError::TooManyMachines);
        }
        if !(1..=ROWS_MAX).contains(&self.rows_max) {
            return Err(RunConfigError::Rows);
        }
        if self.accounts == 0 {
            return Err(RunConfigError::NoAccounts);
        }
        if self.chips.iter().all(|share| share.weight == 0) {
            return Err(RunConfigError::NoChips);
        }
        let net = &self.net;
        let slowest = net.latency_min + net.latency_spread + net.resend_after;
        if slowest + slowest >= self.heartbeat_every {
            return Err(RunConfigError::SlowNetwork);
        }
        Ok(())
    }

    /// The coordinator's own configuration.
    #[must_use]
    pub fn core(&self) -> Config {
        let model = ModelSpec {
            id: "simulated-7b".into(),
            price: Price::DEFAULT,
            context_tokens: self.context_tokens,
            output_tokens_default: 1_024,
            weights_bytes: WEIGHTS_SIZE,
        };
        Config {
            epoch: cereus_core::ids::Epoch(0),
            seed: Seed::from_number(self.seed),
            catalog: Catalog::new(vec![model]).expect("one model is a catalogue"),
            limits: Limits {
                providers_max: self.machines,
                accounts_max: self.accounts.saturating_add(self.machines),
                candidates_max: self.candidates_max,
                queue_depth_max: self.queue_depth_max,
                queue_wait_max: self.queue_wait_max,
                requests_max: 65_536,
                ..Limits::reference()
            },
            fee_percent: 10,
            trust_min: Trust::SelfSigned,
        }
    }

    /// The chip of each machine.
    #[must_use]
    pub fn draw_chips(&self) -> Vec<Chip> {
        let mut stream = Stream::new(self.seed, "chips");
        let total: u64 = self.chips.iter().map(|share| u64::from(share.weight)).sum();
        let one = |_| {
            let mut left = stream.below(total);
            for share in &self.chips {
                if left < u64::from(share.weight) {
                    return share.chip;
                }
                left -= u64::from(share.weight);
            }
            unreachable!("a draw below the sum falls to a share")
        };
        (0..self.machines).map(one).collect()
    }
}
