//! The models of a run: what is sold, how often each is asked for, and what fits on which machine.

use cereus_core::draw::{Purpose, Seed};
use cereus_core::ids::ModelIx;
use cereus_core::memory::{KvRate, Load, MemoryCap, MemoryPolicy, Occupancy};
use cereus_core::slots::{BuildSpec, Keep, Offer};

use super::config::{ModelShare, RunConfig, RunConfigError};
use crate::hardware::{Chip, Hardware, ModelFacts, Place};
use crate::stream::Stream;

/// In the order of the catalogue.
#[derive(Clone, Debug)]
pub(super) struct Wares {
    shares: Vec<ModelShare>,
    hardware: Hardware,
    context_tokens: u32,
}

/// What one machine offers: each model, and how fast it serves it.
#[derive(Clone, Debug)]
pub(super) struct Stock(pub(super) Vec<(ModelIx, Chip)>);

impl Wares {
    pub(super) fn new(config: &RunConfig) -> Self {
        let mut shares = config.models.clone();
        shares.sort_by(|one, other| one.facts.name.cmp(&other.facts.name));
        Self {
            shares,
            hardware: config.hardware.clone(),
            context_tokens: config.context_tokens,
        }
    }

    /// Every machine can serve something, and everything is served by some machine.
    pub(super) fn check(config: &RunConfig) -> Result<(), RunConfigError> {
        let wares = Self::new(config);
        let twice = (wares.shares.windows(2)).any(|pair| pair[0].facts.name == pair[1].facts.name);
        if wares.shares.is_empty() || twice || wares.shares.iter().any(|share| share.weight == 0) {
            return Err(RunConfigError::Models);
        }
        let places = config.fleet.iter().map(|share| &share.place);
        let places = places.chain(config.newcomers.iter().map(|newcomer| &newcomer.place));
        let mut is_served = vec![false; wares.shares.len()];
        for place in places {
            let stock = wares.stock(place);
            if stock.0.is_empty() {
                // The smallest is the one that comes nearest.
                let facts = wares.shares.iter().map(|share| &share.facts);
                let least = facts.min_by_key(|facts| facts.weights_bytes);
                config
                    .hardware
                    .pair(place, least.expect("there is a model"))?;
                return Err(RunConfigError::NothingFits(place.to_string()));
            }
            for (model, _) in stock.0 {
                is_served[usize::from(model.0)] = true;
            }
        }
        let missing = is_served.iter().position(|is_served| !is_served);
        match missing {
            Some(ix) => Err(RunConfigError::NowhereToLoad(
                wares.shares[ix].facts.name.clone(),
            )),
            None => Ok(()),
        }
    }

    /// Whether machines have more than one model to choose among.
    pub(super) fn is_choice(&self) -> bool {
        self.shares.len() > 1
    }

    pub(super) fn all(&self) -> impl Iterator<Item = ModelIx> + use<> {
        let count = u16::try_from(self.shares.len()).expect("a catalogue is small");
        (0..count).map(ModelIx)
    }

    pub(super) fn facts(&self, model: ModelIx) -> &ModelFacts {
        &self.shares[usize::from(model.0)].facts
    }

    /// The model that a request asks for.
    pub(super) fn wanted(&self, seed: Seed, number: u64) -> ModelIx {
        if !self.is_choice() {
            return ModelIx(0);
        }
        let weights = self.shares.iter().map(|share| u64::from(share.weight));
        let all = weights.sum();
        let at = seed.draw_below(Purpose::Simulation, u128::from(number), 2, all);
        let models: Vec<ModelIx> = self.all().collect();
        self.at_weight(&models, at)
    }

    /// Those that fit a machine. One that is the only one anywhere is held against the chip alone, which
    /// keeps less for itself.
    pub(super) fn stock(&self, place: &Place) -> Stock {
        let fits = |model: ModelIx| {
            let facts = self.facts(model);
            let chip = self.hardware.pair(place, facts).ok()?;
            let empty = Occupancy {
                facts: memory_of(place.memory_gb, 0),
                ..Occupancy::default()
            };
            let load = cap_of(place.memory_gb).load(empty, facts.weights_bytes);
            let fits = load == Load::Fits || !self.is_choice();
            fits.then_some((model, chip))
        };
        Stock(self.all().filter_map(fits).collect())
    }

    /// What a machine has in memory when it comes for the first time: one of its models, by how much each
    /// is wanted.
    pub(super) fn first(&self, stock: &Stock, stream: &mut Stream) -> usize {
        let models: Vec<ModelIx> = stock.0.iter().map(|(model, _)| *model).collect();
        let weights = models.iter().map(|model| self.weight(*model));
        let model = self.at_weight(&models, stream.below(weights.sum()));
        let found = models.iter().position(|other| *other == model);
        found.expect("it is one of these")
    }

    /// As the provider's own slots see it.
    pub(super) fn build(&self, model: ModelIx) -> BuildSpec {
        let facts = self.facts(model);
        BuildSpec {
            weights_bytes: facts.weights_bytes,
            kv: Some(KvRate {
                bytes_per_token: facts.kv_bytes_per_token,
                context_tokens: self.context_tokens.into(),
            }),
            keep: Keep::WhileUsed,
            offer: Offer::Open,
        }
    }

    fn weight(&self, model: ModelIx) -> u64 {
        self.shares[usize::from(model.0)].weight.into()
    }

    fn at_weight(&self, models: &[ModelIx], mut at: u64) -> ModelIx {
        for &model in models {
            match at.checked_sub(self.weight(model)) {
                Some(left) => at = left,
                None => return model,
            }
        }
        unreachable!("drawn below the sum of the weights")
    }
}

const GB: u64 = 1_000_000_000;
/// What the owner's own programs and the system hold: an assumption.
const OTHERS_GB: u64 = 3;
/// What weights take in memory, in percent of their files.
const LOADED_PERCENT: u64 = 105;

pub(super) fn cap_of(memory_gb: u32) -> MemoryCap {
    MemoryCap::new(u64::from(memory_gb) * GB, MemoryPolicy::reference())
}

/// What a machine measures that has weights of this size in memory.
pub(super) fn memory_of(memory_gb: u32, weights_bytes: u64) -> cereus_core::memory::MemoryFacts {
    let engine_used_bytes = weights_bytes / 100 * LOADED_PERCENT;
    let used = engine_used_bytes + OTHERS_GB * GB;
    cereus_core::memory::MemoryFacts {
        available_bytes: (u64::from(memory_gb) * GB).saturating_sub(used),
        engine_used_bytes,
    }
}
