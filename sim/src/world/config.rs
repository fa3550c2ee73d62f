//! Everything that shapes a `run`. All of it is printed.

use std::collections::BTreeMap;

use cereus_core::config::{Catalog, Config, Limits, ModelSpec};
use cereus_core::coordinator::Policy;
use cereus_core::draw::Seed;
use cereus_core::event::Trust;
use cereus_core::money::{MicroUsd, Price};
use cereus_core::time::Span;
use thiserror::Error;

use super::knowledge::{Knowledge, OUTPUT_TOKENS_DEFAULT};
use super::net::NetConfig;
use super::store::StoreConfig;
use crate::hardware::{Chip, Hardware, ModelFacts, Place, PlaceError};
use crate::machine::Pace;
use crate::stream::{Ratio, Stream};

/// The share of one kind of machine in the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FleetShare {
    pub place: Place,
    pub weight: u32,
}

/// The mix of machines where nothing else is asked for: what owners of Macs with room for such models
/// have, an assumption and no census.
pub const FLEET: &str = "m1-max/64:10,m2-pro/32:10,m2-ultra/192:10,m3-max/64:20,m3-ultra/256:10,\
                         m4/24:10,m4-pro/48:15,m4-max/128:15";

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
    pub fleet: Vec<FleetShare>,
    pub model: ModelFacts,
    pub pace: Pace,
    pub speedup_ppm: u64,
    pub rows_max: u16,
    pub context_tokens: u32,
    pub prefix_cache: PrefixCache,
    pub policy: Policy,
    pub knowledge: Knowledge,
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
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RunConfigError {
    #[error("at least one account must pay")]
    NoAccounts,
    #[error("the mix of machines is empty; name at least one with a weight")]
    EmptyMix,
    #[error(transparent)]
    Place(#[from] PlaceError),
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
    /// [`FLEET`] with the model that its chips were measured with, links over the internet, a local disk.
    #[must_use]
    pub fn reference(machines: u32) -> Self {
        Self {
            seed: 1,
            machines,
            fleet: parse_fleet(FLEET).expect("the default is well formed"),
            model: Hardware::built_in().measured_with().clone(),
            pace: Pace::Leap,
            speedup_ppm: 1_000_000,
            rows_max: 8,
            context_tokens: 131_072,
            prefix_cache: PrefixCache::On,
            policy: Policy::default(),
            knowledge: Knowledge::Production,
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
        if self.fleet.iter().all(|share| share.weight == 0) {
            return Err(RunConfigError::EmptyMix);
        }
        for share in &self.fleet {
            Hardware::built_in().pair(&share.place, &self.model)?;
        }
        let net = &self.net;
        let slowest = net.latency_min + net.latency_spread + net.resends_max();
        if slowest + slowest >= self.heartbeat_every {
            return Err(RunConfigError::SlowNetwork);
        }
        Ok(())
    }

    /// The coordinator's own configuration.
    #[must_use]
    pub fn core(&self) -> Config {
        let model = ModelSpec {
            id: self.model.name.clone(),
            price: Price::DEFAULT,
            context_tokens: self.context_tokens,
            output_tokens_default: OUTPUT_TOKENS_DEFAULT,
            weights_bytes: self.model.weights_bytes,
        };
        Config {
            epoch: cereus_core::ids::Epoch(0),
            seed: Seed::from_number(self.seed),
            catalog: Catalog::new(vec![model]).expect("one model is a catalogue"),
            limits: Limits {
                providers_max: self.machines,
                accounts_max: self.accounts.saturating_add(self.machines),
                queue_depth_max: self.queue_depth_max,
                queue_wait_max: self.queue_wait_max,
                requests_max: 65_536,
                ..Limits::reference()
            },
            fee_percent: 10,
            trust_min: Trust::SelfSigned,
        }
    }

    /// How many machines of each kind there are: by the weights, whatever the seed, the largest
    /// remainders rounded up.
    #[must_use]
    pub fn counts(&self) -> Vec<u32> {
        let weights = self.fleet.iter().map(|share| u64::from(share.weight));
        let total = weights.clone().sum::<u64>().max(1);
        let exact = weights.map(|weight| u64::from(self.machines) * weight);
        let exact: Vec<u64> = exact.collect();
        let floor = |exact: &u64| u32::try_from(exact / total).expect("at most all machines");
        let mut counts: Vec<u32> = exact.iter().map(floor).collect();
        let mut order: Vec<usize> = (0..exact.len()).collect();
        order.sort_by_key(|&ix| core::cmp::Reverse(exact[ix] % total));
        let rest = self.machines - counts.iter().sum::<u32>();
        for &ix in order.iter().take(rest as usize) {
            counts[ix] += 1;
        }
        counts
    }

    /// The same, by the names of the machines.
    #[must_use]
    pub fn census(&self) -> BTreeMap<String, u32> {
        let mut census = BTreeMap::new();
        for (share, count) in self.fleet.iter().zip(self.counts()) {
            *census.entry(share.place.to_string()).or_default() += count;
        }
        census
    }

    /// The chip of each machine.
    #[must_use]
    pub fn fleet(&self) -> Vec<Chip> {
        let of = |share: &FleetShare| {
            let chip = Hardware::built_in().pair(&share.place, &self.model);
            chip.expect("the configuration was checked")
        };
        let chips: Vec<Chip> = self.fleet.iter().map(of).collect();
        self.kinds().into_iter().map(|ix| chips[ix]).collect()
    }

    /// The name of each machine's kind.
    pub fn kind_names(&self) -> impl Iterator<Item = String> {
        let kinds = self.kinds().into_iter();
        kinds.map(|ix| self.fleet[ix].place.to_string())
    }

    /// The place in the mix of each machine's kind. The seed decides the order alone.
    #[must_use]
    pub fn kinds(&self) -> Vec<usize> {
        let mut fleet = Vec::new();
        for (ix, count) in self.counts().into_iter().enumerate() {
            fleet.extend(core::iter::repeat_n(ix, count as usize));
        }
        let mut stream = Stream::new(self.seed, "fleet");
        for ix in (1..fleet.len()).rev() {
            let other = usize::try_from(stream.below(ix as u64 + 1)).expect("an index");
            fleet.swap(ix, other);
        }
        fleet
    }
}

/// A mix as `m3-max/64:50,m4/24:50`; the weight is 1 where none is given.
pub fn parse_fleet(text: &str) -> Result<Vec<FleetShare>, String> {
    let share = |part: &str| {
        let (place, weight) = part.split_once(':').unwrap_or((part, "1"));
        let weight = weight.parse();
        Ok(FleetShare {
            place: place
                .parse()
                .map_err(|error: PlaceError| error.to_string())?,
            weight: weight.map_err(|_| format!("`{part}` has no weight that is a number"))?,
        })
    };
    text.split(',').map(share).collect()
}
