//! What is sold, for how much, and within which limits, changes while the coordinator runs.

use super::timers::attempts_max;
use super::{Coordinator, Misuse};
use crate::config::{CatalogError, Limits, ModelSpec};
use crate::denial::Denial;
use crate::effect::Effects;
use crate::ids::ModelIx;

impl Coordinator {
    pub(super) fn listable(&self, spec: &ModelSpec) -> Result<(), Misuse> {
        self.config
            .catalog
            .may_list(&spec.id)
            .map_err(|error| match error {
                CatalogError::Duplicate(_) | CatalogError::Empty => Misuse::ModelReused,
                CatalogError::TooMany(_) => Misuse::CatalogFull,
            })
    }

    pub(super) fn on_listed(&mut self, spec: &ModelSpec) {
        let listed = self.config.catalog.list(spec.clone());
        listed.expect("checked before");
        let models = self.config.catalog.count();
        self.queues.grow(models);
        self.tallies.resize_with(models, super::Tally::new);
        self.lengths.grow(models);
        self.overload.grow(models);
        self.fleet.grow(models);
    }

    /// Whoever waits is told at once; what runs ends as usual, at the price that it was promised.
    pub(super) fn on_retired(&mut self, model: ModelIx, out: &mut Effects) {
        self.config.catalog.retire(model);
        self.refuse_waiting(model, Denial::UnknownModel, out);
    }

    /// Limits may fall, not below what is there.
    pub(super) fn tolerable(&self, limits: &Limits) -> Result<(), Misuse> {
        let is_enough = self.requests.count() <= limits.requests_max as usize
            && self.fleet.count() <= limits.providers_max as usize
            && self.books.count() <= limits.accounts_max as usize;
        match is_enough {
            true => Ok(()),
            false => Err(Misuse::LimitBelowUse),
        }
    }

    /// Queues that are too long now lose what the accounts with the most places added last.
    pub(super) fn on_limits(&mut self, limits: &Limits, out: &mut Effects) {
        self.config.limits = limits.clone();
        self.requests.set_limit(limits.requests_max);
        self.attempts.set_limit(attempts_max(limits));
        self.timers.set_limits(limits);
        self.fleet.set_limits(limits);
        self.books.set_limit(limits.accounts_max);
        for model in self.queues.models() {
            while self.queues.count(model) > limits.queue_depth_max {
                let newest = self.queues.newest_of_the_longest(model);
                self.shed(newest.expect("somebody waits"), out);
            }
        }
    }
}
