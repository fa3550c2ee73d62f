//! What the fleet offers of one model: who could take a request now, and what those who could take
//! one later are able to hold.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Fleet;
use super::choose::Want;
use super::gate::Gate;
use super::pool::Pool;
use super::rota::Rota;
use super::strangers::Strangers;
use crate::event::Machines;
use crate::ewma::Ewma;
use crate::traits::Traits;

/// Whether waiting can help a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Somebody has, or will have, room for it.
    Possible,
    /// Machines serve the model, and none that suits is large enough.
    NoneLargeEnough,
    /// Machines serve the model, and none is what the request demands.
    NoneSuited,
    /// No machine serves the model at present.
    Nobody,
}

/// One model, all machines that serve everybody.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Supply {
    pub(super) pool: Pool,
    /// How many offers that are open, or closed only for want of room, have these traits and can hold
    /// at most so many tokens. Few machines differ in their traits.
    capable: BTreeMap<Traits, BTreeMap<u64, u32>>,
    capable_count: u32,
    /// Offers of barred machines that could take some request, now or once there is room.
    pub(super) last_resort: Vec<u32>,
    /// Open offers of machines of which no answer has come yet.
    pub(super) strangers: Strangers,
    pub(super) rota: Rota,
    /// How many offers each reason closes.
    closed: [u32; Gate::REASONS],
    /// Machines that should have the model in memory; those that have it and could take a request,
    /// now or later; and those that were told to load it.
    pub(super) warm_min: u32,
    pub(super) warm: u32,
    pub(super) loading: u32,
    /// Nothing before the first answer.
    pub(super) typical: Option<Typical>,
}

/// The newest request weighs one in 128, so that what follows from the mean stays calm.
const TYPICAL_SHIFT: u8 = 7;

/// What requests of a model are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Typical {
    fresh: Ewma,
    output: Ewma,
}

impl Typical {
    pub(super) const fn first(fresh_tokens: u32, output_tokens: u32) -> Self {
        Self {
            fresh: Ewma::seeded(fresh_tokens, TYPICAL_SHIFT),
            output: Ewma::seeded(output_tokens, TYPICAL_SHIFT),
        }
    }

    pub(super) const fn push(&mut self, fresh_tokens: u32, output_tokens: u32) {
        self.fresh.push(fresh_tokens);
        self.output.push(output_tokens);
    }

    /// Of the prompt, what the machine had not read before.
    pub(super) const fn fresh_tokens(&self) -> u32 {
        self.fresh.value()
    }

    /// At least one.
    pub(super) fn output_tokens(&self) -> u32 {
        self.output.value().max(1)
    }
}

impl Supply {
    pub(super) fn new() -> Self {
        Self {
            pool: Pool::new(),
            capable: BTreeMap::new(),
            capable_count: 0,
            last_resort: Vec::new(),
            strangers: Strangers::default(),
            rota: Rota::default(),
            closed: [0; Gate::REASONS],
            warm_min: 0,
            warm: 0,
            loading: 0,
            typical: None,
        }
    }

    pub(super) fn enter(&mut self, ix: u32, gate: Gate, has: Traits, capacity_tokens: u64) {
        for reason in gate.reasons() {
            self.closed[reason] += 1;
        }
        if gate.is_capable() {
            self.capable_count += 1;
            let sizes = self.capable.entry(has).or_default();
            *sizes.entry(capacity_tokens).or_insert(0) += 1;
        } else if gate.is_capable_at_last() {
            self.last_resort.push(ix);
        }
    }

    /// Undoes [`Supply::enter`] with the same arguments.
    pub(super) fn leave(&mut self, ix: u32, gate: Gate, has: Traits, capacity_tokens: u64) {
        for reason in gate.reasons() {
            self.closed[reason] -= 1;
        }
        if !gate.is_capable() {
            self.last_resort.retain(|other| *other != ix);
            return;
        }
        let sizes = self.capable.get_mut(&has).expect("it was entered");
        let count = sizes.get_mut(&capacity_tokens).expect("it was entered");
        *count -= 1;
        self.capable_count -= 1;
        if *count == 0 {
            sizes.remove(&capacity_tokens);
        }
        if sizes.is_empty() {
            self.capable.remove(&has);
        }
    }

    /// Whether another count of the same offers came to the same.
    pub(super) fn counts_as(&self, other: &Self) -> bool {
        let sorted = |offers: &[u32]| {
            let mut offers = offers.to_vec();
            offers.sort_unstable();
            offers
        };
        self.capable == other.capable
            && self.capable_count == other.capable_count
            && self.closed == other.closed
            && self.warm == other.warm
            && sorted(&self.last_resort) == sorted(&other.last_resort)
    }

    pub(super) fn reach(&self, demands: Traits, need_tokens: u64) -> Reach {
        let suited = self.capable.iter().filter(|(has, _)| has.cover(demands));
        let largest = suited.filter_map(|(_, sizes)| sizes.last_key_value());
        match largest.map(|(&largest, _)| largest).max() {
            None if self.capable.is_empty() => Reach::Nobody,
            None => Reach::NoneSuited,
            Some(largest) if largest < need_tokens => Reach::NoneLargeEnough,
            Some(_) => Reach::Possible,
        }
    }

    /// Whether too few machines have the model in memory, or are about to.
    pub(super) const fn is_short(&self) -> bool {
        self.warm + self.loading < self.warm_min
    }

    /// How many offers are open, or closed only for want of room, and have these traits.
    pub(super) fn capable_with(&self, demands: Traits) -> u32 {
        if demands == Traits::NONE {
            return self.capable_count;
        }
        let suited = self.capable.iter().filter(|(has, _)| has.cover(demands));
        suited.flat_map(|(_, sizes)| sizes.values()).sum()
    }

    /// How many offers could take some request now.
    pub(crate) fn open_count(&self) -> usize {
        self.pool.count()
    }

    /// How many of them have nothing to do.
    pub(crate) const fn idle_count(&self) -> u32 {
        self.pool.idle_count()
    }

    /// The reasons that close offers, and how many each does; one offer may have several.
    pub(crate) fn closed(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let counts = self.closed.iter().enumerate();
        let counts = counts.filter(|(_, count)| **count > 0);
        counts.map(|(reason, &count)| (Gate::name(reason), count))
    }
}

impl Fleet {
    /// Whether a request can be served, now or once there is room.
    pub(crate) fn reach(&self, want: &Want<'_>) -> Reach {
        let own = self.reach_among(self.own(want.model, want.account), want);
        let others = match want.machines {
            Machines::Own => return own,
            Machines::Any | Machines::OwnFirst => {
                let supply = self.supply(want.model);
                let reach = supply.reach(want.demands, want.need_tokens);
                match reach {
                    // Barred machines, once nobody else is there that has what is demanded.
                    Reach::Nobody | Reach::NoneSuited => {
                        match self.reach_among(&supply.last_resort, want) {
                            Reach::Nobody => reach,
                            last => last,
                        }
                    }
                    Reach::NoneLargeEnough | Reach::Possible => reach,
                }
            }
        };
        match (own, others) {
            (Reach::Possible, _) => own,
            (_, Reach::Nobody) => own,
            (Reach::Nobody | Reach::NoneLargeEnough | Reach::NoneSuited, _) => others,
        }
    }

    /// The same among these offers alone.
    fn reach_among(&self, offers: &[u32], want: &Want<'_>) -> Reach {
        let mut reach = Reach::Nobody;
        for &ix in offers {
            let offer = self.offers.at(ix);
            if !offer.gate.is_capable_at_last() {
                continue;
            }
            let has = self.providers.at(offer.provider).has();
            if !has.cover(want.demands) {
                reach = match reach {
                    Reach::Nobody => Reach::NoneSuited,
                    found => found,
                };
            } else if want.need_tokens <= offer.capacity_tokens {
                return Reach::Possible;
            } else {
                reach = Reach::NoneLargeEnough;
            }
        }
        reach
    }
}
