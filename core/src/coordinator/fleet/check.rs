//! The fleet's own books, recounted. Slow: for tests, the simulator and fuzzers.

use super::{Fleet, Supply};
use crate::config::Limits;
use crate::ids::{ConnId, ModelIx};

/// What was debited for the attempts on one connection.
pub(crate) struct Debits {
    /// The connection's place.
    pub(crate) provider: u32,
    pub(crate) conn: ConnId,
    pub(crate) attempts: u32,
}

impl Fleet {
    /// The debits of every connection. INV-08: those of its offers are its own.
    pub(crate) fn debits(&self) -> impl Iterator<Item = Debits> {
        self.providers.iter().map(|(key, provider)| {
            let offers = provider.offers.iter();
            let of_offers: u32 = offers.map(|&ix| self.offers.at(ix).pending).sum();
            assert_eq!(
                of_offers, provider.pending,
                "INV-08: offers and provider disagree"
            );
            Debits {
                provider: key.slot,
                conn: provider.conn,
                attempts: provider.pending,
            }
        })
    }

    /// The index holds exactly the open offers, each where it says.
    pub(crate) fn invariant_index(&self) {
        let mut placed = 0;
        for (key, offer) in self.offers.iter() {
            let is_private = self.providers.at(offer.provider).is_private();
            assert_eq!(
                offer.gate.is_open() && !is_private,
                offer.place.is_some(),
                "INV-12: the index names a stale offer"
            );
            let is_stranger = self.providers.at(offer.provider).is_stranger();
            assert_eq!(
                offer.stranger_at.is_some(),
                offer.place.is_some() && is_stranger,
                "INV-12: the list of strangers is not theirs"
            );
            if let Some(turn) = offer.stranger_at {
                let strangers = &self.supply(offer.model).strangers;
                assert!(strangers.has(turn, key.slot), "INV-12: misplaced");
            }
            assert_eq!(
                offer.turn_at.is_some(),
                offer.place.is_some(),
                "INV-12: the rota is not that of the open offers"
            );
            if let Some(at) = offer.turn_at {
                let listed = self.supply(offer.model).rota.at(at);
                assert_eq!(listed, Some(key.slot), "INV-12: misplaced");
            }
            let Some(place) = offer.place else { continue };
            let supply = self.supply(offer.model);
            assert_eq!(supply.pool.at(place).offer, key.slot, "INV-12: misplaced");
            placed += 1;
        }
        let models = (0u16..).map(ModelIx).take(self.supplies.len());
        let indexed: usize = models.map(|model| self.supply(model).pool.count()).sum();
        assert_eq!(
            placed, indexed,
            "INV-12: the index holds what nobody placed"
        );
    }

    /// INV-12: what is counted of each model's offers is what a fresh count of them gives.
    pub(crate) fn invariant_supply(&self) {
        let mut recounts: Vec<Supply> = Vec::new();
        recounts.resize_with(self.supplies.len(), Supply::new);
        let mut idle = vec![0; recounts.len()];
        for (key, offer) in self.offers.iter() {
            let provider = self.providers.at(offer.provider);
            if provider.is_private() {
                continue;
            }
            let model = usize::from(offer.model.0);
            recounts[model].enter(key.slot, offer.gate, provider.has(), offer.counted_tokens);
            let is_warm = offer.report.state.is_resident() && offer.gate.is_capable();
            recounts[model].warm += u32::from(is_warm);
            idle[model] += u32::from(offer.place.is_some() && offer.load() == 0);
        }
        for ((supply, recount), idle) in self.supplies.iter().zip(&recounts).zip(idle) {
            assert!(supply.counts_as(recount), "INV-12: offers are miscounted");
            assert_eq!(supply.idle_count(), idle, "INV-12: idle machines");
        }
    }

    pub(crate) fn invariant_bounded(&self, limits: &Limits) {
        assert!(
            self.providers.count() <= limits.providers_max as usize,
            "INV-12: providers"
        );
        assert!(
            self.memory.count() <= self.memory.count_max() as usize,
            "INV-12: machines"
        );
    }
}
