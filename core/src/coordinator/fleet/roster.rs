//! The fleet as an operator sees it, by the gates that decide.

use super::gate::Gate;
use super::offer::Offer;
use super::{Fleet, Provider};
use crate::coordinator::roster::{Audience, Offered, Present};
use crate::ids::ConnId;
use crate::time::Tick;

impl Fleet {
    /// Every connection, by its number.
    pub(crate) fn roster(&self, now: Tick) -> Vec<Present> {
        let providers = self.providers.iter();
        let mut roster: Vec<Present> = providers
            .map(|(key, provider)| self.present(now, key.slot, provider))
            .collect();
        roster.sort_unstable_by_key(|present| present.conn);
        roster
    }

    pub(crate) fn present_at(&self, now: Tick, conn: ConnId) -> Option<Present> {
        let slot = self.find(conn)?;
        Some(self.present(now, slot, self.providers.at(slot)))
    }

    fn present(&self, now: Tick, slot: u32, provider: &Provider) -> Present {
        let barred_until = self.barred_until(slot);
        let offers = provider.offers.iter();
        Present {
            conn: provider.conn,
            machine: provider.machine,
            owner: provider.owner,
            trust: provider.has().trust(),
            is_verified: provider.is_verified,
            audience: if provider.is_private() {
                Audience::Owner
            } else {
                Audience::Everybody
            },
            report_age: now.since(provider.reported_at),
            barred_for: barred_until.map(|until| until.since(now)),
            lossy: self.memory.at(provider.record).losses.told(now),
            pending: provider.pending,
            offers: offers.map(|&ix| offered(self.offers.at(ix))).collect(),
        }
    }
}

fn offered(offer: &Offer) -> Offered {
    Offered {
        model: offer.model,
        state: offer.report.state,
        pending: offer.pending,
        others: offer.others(),
        concurrency_max: offer.report.concurrency_max,
        closed: offer.gate.reasons().map(Gate::name).collect(),
    }
}
