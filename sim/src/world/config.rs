//! Everything that shapes a `run`. All of it is printed.

use std::collections::BTreeMap;

use cereus_core::config::{Catalog, Config, Limits, ModelSpec};
use cereus_core::coordinator::Policy;
use cereus_core::draw::Seed;
use cereus_core::event::Trust;
use cereus_core::money::{MicroUsd, Price};
use cereus_core::time::Span;
use thiserror::Error;

use super::churn::Churn;
use super::defects::Defects;
use super::heat::Heat;
use super::knowledge::{Knowledge, OUTPUT_TOKENS_DEFAULT};
use super::net::NetConfig;
use super::people::People;
use super::store::StoreConfig;
use super::wares::Wares;
use crate::hardware::{Hardware, ModelFacts, Place, PlaceError};
use crate::machine::Pace;
use crate::stream::{Ratio, Stream};

/// The share of one kind of machine in the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FleetShare {
    pub place: Place,
    pub weight: u32,
}

/// A machine that nobody knows, which comes so long after the first request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Newcomer {
    pub place: Place,
    pub after: Span,
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

/// Whether machines find what they have computed of earlier prompts. Where accounts are alike all
/// requests of a trace are of one scope: traces do not say whose they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PrefixCache {
    Off,
    On,
}

/// Whether the report tells what each kind of machine got to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Telling {
    Left,
    Told,
}

/// One model and its share of the demand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelShare {
    pub facts: ModelFacts,
    pub weight: u32,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunConfig {
    pub seed: u64,
    /// Those of the mix.
    pub machines: u32,
    pub fleet: Vec<FleetShare>,
    /// What its chips can do.
    pub hardware: Hardware,
    /// Machines beside the mix.
    pub newcomers: Vec<Newcomer>,
    pub churn: Churn,
    pub heat: Heat,
    pub defects: Vec<Defects>,
    /// Where there is more than one, each machine offers those that fit its memory, and has in memory
    /// what is asked of it; the only one is in the memory of every machine.
    pub models: Vec<ModelShare>,
    /// How fast weights come from the disk, in millions of bytes a second.
    pub disk_mbs: u32,
    /// Machines that should have each model in memory, whether or not anybody asks for it.
    pub warm_min: u16,
    pub pace: Pace,
    pub speedup_ppm: u64,
    pub rows_max: u16,
    pub context_tokens: u32,
    pub prefix_cache: PrefixCache,
    pub policy: Policy,
    pub knowledge: Knowledge,
    pub queue_depth_max: u32,
    pub queue_wait_max: Span,
    pub people: People,
    pub shares: Telling,
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
    #[error("a disk reads at least a million bytes a second")]
    NoDisk,
    /// It would be asked for in vain.
    #[error("no machine of the fleet has room for {0}")]
    NowhereToLoad(String),
    #[error("{0} has room for none of the models; they need memory for keys and values too")]
    NothingFits(String),
    #[error("name each model once, with a weight above zero")]
    Models,
    #[error("more machines than the coordinator holds")]
    TooManyMachines,
}

/// What a laptop's disk reads, less than its maker says: an assumption.
pub const DISK_MBS: u32 = 2_500;

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
            hardware: Hardware::built_in().clone(),
            newcomers: Vec::new(),
            churn: Churn::None,
            heat: Heat::None,
            defects: Vec::new(),
            models: vec![ModelShare {
                facts: Hardware::built_in().measured_with().clone(),
                weight: 1,
            }],
            disk_mbs: DISK_MBS,
            warm_min: 0,
            pace: Pace::Leap,
            speedup_ppm: 1_000_000,
            rows_max: 8,
            context_tokens: 131_072,
            prefix_cache: PrefixCache::On,
            policy: Policy::default(),
            knowledge: Knowledge::Production,
            queue_depth_max: Limits::reference().queue_depth_max,
            queue_wait_max: Limits::reference().queue_wait_max,
            people: People::patient(),
            shares: Telling::Left,
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
        if self.machines.saturating_add(count(self.newcomers.len())) > MACHINES_MAX {
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
        if self.disk_mbs == 0 {
            return Err(RunConfigError::NoDisk);
        }
        Wares::check(self)?;
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
        let spec = |share: &ModelShare| ModelSpec {
            id: share.facts.name.clone(),
            price: Price::DEFAULT,
            context_tokens: self.context_tokens,
            output_tokens_default: OUTPUT_TOKENS_DEFAULT,
            weights_bytes: share.facts.weights_bytes,
        };
        let models = self.models.iter().map(spec).collect();
        Config {
            epoch: cereus_core::ids::Epoch(0),
            seed: Seed::from_number(self.seed),
            catalog: Catalog::new(models).expect("the configuration was checked"),
            limits: Limits {
                providers_max: self.connections_max(),
                accounts_max: self.accounts.saturating_add(self.machines_in_all()),
                queue_depth_max: self.queue_depth_max,
                queue_wait_max: self.queue_wait_max,
                requests_max: 65_536,
                ..Limits::reference()
            },
            fee_percent: 10,
            trust_min: Trust::SelfSigned,
        }
    }

    /// Those of the mix, and newcomers.
    #[must_use]
    pub fn machines_in_all(&self) -> u32 {
        self.machines + count(self.newcomers.len())
    }

    /// A machine that comes back may do so before its last connection was missed.
    fn connections_max(&self) -> u32 {
        match self.churn {
            Churn::None => self.machines_in_all(),
            Churn::Home { .. } => self.machines_in_all().saturating_mul(4),
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

    /// The same by the names of the machines, newcomers among them.
    #[must_use]
    pub fn census(&self) -> BTreeMap<String, u32> {
        let mut census = BTreeMap::new();
        for (share, count) in self.fleet.iter().zip(self.counts()) {
            *census.entry(share.place.to_string()).or_default() += count;
        }
        for newcomer in &self.newcomers {
            *census.entry(newcomer.place.to_string()).or_default() += 1;
        }
        census
    }

    /// The models, the first of the list first.
    #[must_use]
    pub fn model_names(&self) -> String {
        let names = self.models.iter().map(|share| share.facts.name.as_str());
        names.collect::<Vec<_>>().join(", ")
    }

    /// The name of each machine's kind.
    pub fn kind_names(&self) -> impl Iterator<Item = String> {
        self.places().into_iter().map(Place::to_string)
    }

    /// What each machine is, newcomers last. The seed decides the order of the others alone.
    #[must_use]
    pub fn places(&self) -> Vec<&Place> {
        let mut places = Vec::new();
        for (share, count) in self.fleet.iter().zip(self.counts()) {
            places.extend(core::iter::repeat_n(&share.place, count as usize));
        }
        let mut stream = Stream::new(self.seed, "fleet");
        for ix in (1..places.len()).rev() {
            let other = usize::try_from(stream.below(ix as u64 + 1)).expect("an index");
            places.swap(ix, other);
        }
        places.extend(self.newcomers.iter().map(|newcomer| &newcomer.place));
        places
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

/// A newcomer as `m4-max/128@600`: what it is, and how many seconds after the first request it comes.
pub fn parse_newcomer(text: &str) -> Result<Newcomer, String> {
    let parts = text.split_once('@');
    let (place, after_s) = parts.ok_or("write what comes and when, as in m4-max/128@600")?;
    let after_s: u32 = after_s
        .parse()
        .map_err(|_| format!("`{after_s}` is no number of seconds"))?;
    Ok(Newcomer {
        place: place
            .parse()
            .map_err(|error: PlaceError| error.to_string())?,
        after: Span::secs(after_s.into()),
    })
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// Models as `a,b,c`, the most wanted first, so that each is asked for as often as the first divided by
/// its place in the list (Zipf); or with weights, as `a:5,b:1`.
pub fn parse_models(text: &str) -> Result<Vec<ModelShare>, String> {
    /// Divides by the first ten places.
    const FIRST: u32 = 2_520;
    let share = |(place, part): (u32, &str)| {
        let (name, weight) = match part.split_once(':') {
            Some((name, weight)) => (name, weight.parse().ok()),
            None => (part, Some((FIRST / place).max(1))),
        };
        let facts = Hardware::built_in().model(name);
        Ok(ModelShare {
            facts: facts.map_err(|error| error.to_string())?.clone(),
            weight: weight.ok_or_else(|| format!("`{part}` has no weight that is a number"))?,
        })
    };
    (1..).zip(text.split(',')).map(share).collect()
}
