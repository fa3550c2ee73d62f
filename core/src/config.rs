//! What a coordinator is told at birth: catalogue, prices, limits. Every value is passed and
//! printed; there are no hidden defaults. The journal's header carries it whole; what changes later
//! is an event (`ModelListed`, `ModelPriced`, `ModelRetired`, `LimitsChanged`).

mod changes;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::draw::Seed;
use crate::ids::{Epoch, ModelIx};
use crate::money::Price;
use crate::time::Span;

/// One model that the coordinator knows, sells and routes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelSpec {
    /// The public name and the build id (`model` on both wires).
    pub id: String,
    pub price: Price,
    /// Longest prompt plus output, in tokens.
    pub context_tokens: u32,
    /// Output bound when the request names none.
    pub output_tokens_default: u32,
    /// Size of the weights, for cold-load estimates.
    pub weights_bytes: u64,
}

/// The models by their [`ModelIx`]. A place belongs to its model for ever: one that is no longer sold
/// leaves a tombstone, so that whoever still holds its index finds what it was, and one that is sold
/// again finds its old place.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Catalog {
    models: Vec<ModelSpec>,
    /// Places in order of the ids.
    order: Vec<ModelIx>,
    /// Places of models that are not sold any more.
    retired: BTreeSet<ModelIx>,
    /// Rises with each change, so that a copy can tell that it is old.
    epoch: u64,
}

/// The catalogue cannot be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogError {
    Duplicate(String),
    Empty,
    TooMany(usize),
}

impl core::fmt::Display for CatalogError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Duplicate(id) => write!(f, "model `{id}` is listed twice"),
            Self::Empty => f.write_str("the catalogue lists no model; add at least one"),
            Self::TooMany(count) => {
                write!(
                    f,
                    "{count} models; the catalogue holds at most {}",
                    Catalog::MODELS_MAX
                )
            }
        }
    }
}

impl core::error::Error for CatalogError {}

impl Catalog {
    pub const MODELS_MAX: usize = 4_096;

    /// Sorts by id, so that the order in a file does not matter.
    pub fn new(mut models: Vec<ModelSpec>) -> Result<Self, CatalogError> {
        if models.is_empty() {
            return Err(CatalogError::Empty);
        }
        if models.len() > Self::MODELS_MAX {
            return Err(CatalogError::TooMany(models.len()));
        }
        models.sort_by(|a, b| a.id.cmp(&b.id));
        for pair in models.windows(2) {
            if pair[0].id == pair[1].id {
                return Err(CatalogError::Duplicate(pair[0].id.clone()));
            }
        }
        let order = (0u16..).map(ModelIx).take(models.len()).collect();
        Ok(Self {
            models,
            order,
            retired: BTreeSet::new(),
            epoch: 0,
        })
    }

    /// Whether a model can be put on sale.
    ///
    /// # Errors
    /// It is on sale, or the catalogue is full of models and tombstones.
    pub fn may_list(&self, id: &str) -> Result<(), CatalogError> {
        match self.place(id) {
            Ok(at) if self.retired.contains(&self.order[at]) => Ok(()),
            Ok(_) => Err(CatalogError::Duplicate(id.into())),
            Err(_) if self.models.len() >= Self::MODELS_MAX => {
                Err(CatalogError::TooMany(self.models.len() + 1))
            }
            Err(_) => Ok(()),
        }
    }

    /// Puts a model on sale, at the place that it had if it was sold before.
    pub fn list(&mut self, spec: ModelSpec) -> Result<ModelIx, CatalogError> {
        self.may_list(&spec.id)?;
        self.epoch += 1;
        match self.place(&spec.id) {
            Ok(at) => {
                let model = self.order[at];
                self.retired.remove(&model);
                self.models[usize::from(model.0)] = spec;
                Ok(model)
            }
            Err(at) => {
                let model = u16::try_from(self.models.len()).expect("below the limit");
                self.order.insert(at, ModelIx(model));
                self.models.push(spec);
                Ok(ModelIx(model))
            }
        }
    }

    /// Changes what a model costs. `false`: it is not sold.
    pub fn price(&mut self, model: ModelIx, price: Price) -> bool {
        let is_sold = self.is_sold(model);
        if is_sold {
            self.models[usize::from(model.0)].price = price;
            self.epoch += 1;
        }
        is_sold
    }

    /// Takes a model off sale. `false`: it is not sold.
    pub fn retire(&mut self, model: ModelIx) -> bool {
        let is_sold = self.is_sold(model);
        if is_sold {
            self.retired.insert(model);
            self.epoch += 1;
        }
        is_sold
    }

    /// A model that is sold.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<ModelIx> {
        let model = self.order[self.place(id).ok()?];
        self.is_sold(model).then_some(model)
    }

    /// What a model is, or was.
    #[must_use]
    pub fn spec(&self, model: ModelIx) -> Option<&ModelSpec> {
        self.models.get(usize::from(model.0))
    }

    #[must_use]
    pub fn is_sold(&self, model: ModelIx) -> bool {
        self.spec(model).is_some() && !self.retired.contains(&model)
    }

    /// The models that are sold, by id.
    pub fn iter(&self) -> impl Iterator<Item = (ModelIx, &ModelSpec)> {
        let sold = self.order.iter().filter(|model| self.is_sold(**model));
        sold.map(|&model| (model, &self.models[usize::from(model.0)]))
    }

    /// Places, tombstones among them: every [`ModelIx`] that was ever given is below.
    #[must_use]
    pub fn count(&self) -> usize {
        self.models.len()
    }

    /// Rises with each change.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether the parts fit together, for one that was read from bytes: every place has one entry in
    /// the order, ids differ, and only places are retired.
    #[must_use]
    pub(crate) fn is_sound(&self) -> bool {
        let id = |model: &ModelIx| self.spec(*model).map(|spec| spec.id.as_str());
        let is_place = |model: &ModelIx| usize::from(model.0) < self.models.len();
        (1..=Self::MODELS_MAX).contains(&self.models.len())
            && self.order.len() == self.models.len()
            && self.order.iter().all(is_place)
            && self
                .order
                .windows(2)
                .all(|pair| id(&pair[0]) < id(&pair[1]))
            && self.retired.iter().all(is_place)
    }

    fn place(&self, id: &str) -> Result<usize, usize> {
        self.order
            .binary_search_by(|model| self.models[usize::from(model.0)].id.as_str().cmp(id))
    }
}

/// Everything that bounds a coordinator, each with its unit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limits {
    pub accounts_max: u32,
    pub providers_max: u32,
    pub models_per_provider_max: u16,
    pub requests_max: u32,
    /// Waiting requests for one model. More are refused at once: they would only wait in vain.
    pub queue_depth_max: u32,
    pub queue_wait_max: Span,
    /// From dispatch to `inference_accepted` or first content; then another machine is asked.
    pub accept_wait_max: Span,
    /// Added to `accept_wait_max` for each prompt token.
    pub accept_wait_per_prompt_token: Span,
    /// From arrival to first content, over all attempts and all waiting. A single attempt has the
    /// time that its machine's forecast explains.
    pub first_content_wait_max: Span,
    /// Between two pieces of content, at most: only lack of progress ends an answer, never its length.
    /// A machine whose own figures make it quick gets less.
    pub idle_wait_max: Span,
    pub attempts_max: u8,
    /// So many machines may refuse a request for want of room before it is refused as busy.
    pub capacity_refusals_max: u8,
    /// How long after a passed challenge a provider may be routed to.
    pub challenge_fresh_max: Span,
    /// Cold load assumed when a machine has not measured one.
    pub cold_load_default: Span,
    /// The most machines that are compared for one decision.
    pub candidates_max: u8,
    /// A second attempt begins when the first has shown nothing for this share, in percent, of the
    /// time that its machine's forecast gives it. Nought: none does.
    pub second_attempt_percent: u8,
    /// Where waits have been longer than `overload_wait_max` for so long, more is asked than the fleet can
    /// do: what would wait longer is turned away at once.
    pub overload_after: Span,
    pub overload_wait_max: Span,
    /// Thousandths of a token a second at which each answer should come at least: a machine gets no more
    /// requests at once than leave them that. Nought: as many as it says.
    pub pace_min_mtps: u32,
}

/// A coordinator's whole configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Config {
    /// Which run this is: transfers and connections are numbered from its origin.
    pub epoch: Epoch,
    pub seed: Seed,
    pub catalog: Catalog,
    pub limits: Limits,
    /// The platform's share of each charge.
    pub fee_percent: u8,
    /// Whether a provider whose identity is self-signed may serve (a development fleet) or only
    /// hardware-attested ones.
    pub trust_min: crate::event::Trust,
}

impl Limits {
    /// What a coordinator runs with; "Limits and timeouts" in `docs/protocol.md` says why.
    #[must_use]
    pub const fn reference() -> Self {
        Self {
            accounts_max: 1_000_000,
            providers_max: 131_072,
            models_per_provider_max: 64,
            requests_max: 1_048_576,
            queue_depth_max: 256,
            queue_wait_max: Span::secs(120),
            accept_wait_max: Span::secs(4),
            accept_wait_per_prompt_token: Span::millis(1),
            first_content_wait_max: Span::secs(600),
            idle_wait_max: Span::secs(600),
            attempts_max: 8,
            capacity_refusals_max: 3,
            challenge_fresh_max: Span::secs(16 * 60),
            cold_load_default: Span::secs(30),
            candidates_max: 8,
            second_attempt_percent: 0,
            overload_after: Span::secs(10),
            overload_wait_max: Span::secs(1),
            pace_min_mtps: 15_000,
        }
    }
}
