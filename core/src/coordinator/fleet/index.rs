//! Keeps each model's supply in line with the ledger.

use super::Fleet;
use super::estimate::{candidate_of, gate_of};
use super::pool::Pool;
use crate::config::Config;
use crate::ids::ModelIx;

impl Fleet {
    /// Brings the index in line with the ledger for every offer of a provider.
    pub(crate) fn refresh(&mut self, slot: u32, config: &Config) {
        let count = self.providers.at(slot).offers.len();
        for at in 0..count {
            let ix = self.providers.at(slot).offers[at];
            self.refresh_offer(ix, config);
        }
    }

    fn refresh_offer(&mut self, ix: u32, config: &Config) {
        let offer = self.offers.at(ix);
        let provider = self.providers.at(offer.provider);
        let spec = config
            .catalog
            .spec(offer.model)
            .expect("offers name models of the catalogue");
        let gate = gate_of(provider, offer, spec, self.trust_min);
        if provider.is_private() {
            self.offers.at_mut(ix).gate = gate;
            return;
        }
        let (was, place, named) = (offer.gate, offer.place, offer.model);
        let model = usize::from(named.0);
        let (counted_tokens, capacity_tokens) = (offer.counted_tokens, offer.capacity_tokens);
        let (counted_has, has) = (offer.counted_has, provider.has());
        let was_warm = offer.counted_warm;
        let is_resident = offer.report.state.is_resident();
        let is_warm = is_resident && gate.is_capable();
        let candidate = candidate_of(provider, ix, offer, &config.limits);
        if was != gate || counted_tokens != capacity_tokens || counted_has != has {
            self.supplies[model].leave(ix, was, counted_has, counted_tokens);
            self.supplies[model].enter(ix, gate, has, capacity_tokens);
            if was.is_capable() && !(gate.is_capable() && has.cover(counted_has)) {
                self.note_loss(named);
            }
        }
        let place = match place {
            Some(place) if gate.is_open() && Pool::is_home(place, &candidate) => {
                self.supplies[model].pool.replace(place, candidate);
                Some(place)
            }
            _ => {
                self.take_out(ix);
                gate.is_open()
                    .then(|| self.supplies[model].pool.put(candidate))
            }
        };
        let is_stranger =
            gate.is_open() && self.providers.at(self.offers.at(ix).provider).is_stranger();
        self.list_stranger(ix, is_stranger);
        self.list_turn(ix, gate.is_open());
        let offer = self.offers.at_mut(ix);
        offer.gate = gate;
        offer.place = place;
        offer.counted_tokens = capacity_tokens;
        offer.counted_has = has;
        offer.counted_warm = is_warm;
        let supply = &mut self.supplies[model];
        supply.warm += u32::from(is_warm);
        supply.warm -= u32::from(was_warm);
        let could_load = gate.is_open() && !is_resident;
        if could_load || (was_warm && !is_warm) {
            self.note_short(named);
        }
    }

    /// One machine in good standing less: those that are barred may be needed.
    fn note_loss(&mut self, model: ModelIx) {
        if !self.supply(model).last_resort.is_empty() && !self.bare.contains(&model) {
            self.bare.push(model);
        }
    }

    fn take_out(&mut self, ix: u32) {
        let offer = self.offers.at_mut(ix);
        let Some(place) = offer.place.take() else {
            return;
        };
        let model = usize::from(offer.model.0);
        if let Some(moved) = self.supplies[model].pool.take(place) {
            self.offers.at_mut(moved).place = Some(place);
        }
    }

    /// Lists a new offer, closed as it is.
    pub(super) fn list(&mut self, ix: u32) {
        let offer = self.offers.at(ix);
        let provider = self.providers.at(offer.provider);
        if provider.is_private() {
            let own = self.own.entry((offer.model, provider.owner));
            own.or_default().push(ix);
            return;
        }
        let (model, gate, tokens) = (offer.model, offer.gate, offer.counted_tokens);
        let has = provider.has();
        self.supplies[usize::from(model.0)].enter(ix, gate, has, tokens);
        self.offers.at_mut(ix).counted_has = has;
    }

    pub(super) fn drop_offer(&mut self, ix: u32) {
        self.take_out(ix);
        self.list_stranger(ix, false);
        self.list_turn(ix, false);
        let offer = self
            .offers
            .remove(self.offers.key_at(ix))
            .expect("it was there");
        let provider = self.providers.at_mut(offer.provider);
        provider.offers.retain(|other| *other != ix);
        if provider.is_private() {
            let name = (offer.model, provider.owner);
            let own = self.own.get_mut(&name).expect("it was listed");
            own.retain(|other| *other != ix);
            if own.is_empty() {
                self.own.remove(&name);
            }
            return;
        }
        let supply = &mut self.supplies[usize::from(offer.model.0)];
        supply.leave(ix, offer.gate, offer.counted_has, offer.counted_tokens);
        supply.warm -= u32::from(offer.counted_warm);
        self.note_short(offer.model);
        if offer.gate.is_capable() {
            self.note_loss(offer.model);
        }
    }
}
