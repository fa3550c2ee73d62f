//! Which of the machines that could take a request gets it. [`Policy::Expected`] is what a coordinator
//! runs; the others are the field's, for simulations to compare with. Whatever the policy, gates,
//! queues, admission and money are the same.

mod prefix;
mod reference;

use serde::{Deserialize, Serialize};

use super::Fleet;
use super::choose::{Want, is_fit};
use super::pool::Candidate;
use crate::draw::{Purpose, Seed};

/// See the module. Snapshots number them: what is newer stands below.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Policy {
    /// The least expected time to first content, with the work that it would disturb.
    #[default]
    Expected,
    /// The fewest requests under way, chance among equals.
    LeastOutstanding,
    /// Any, with equal chance.
    Random,
    /// Each in turn.
    RoundRobin,
    /// The less loaded of two that chance picks.
    TwoChoices,
    /// What the network that this one is compatible with did: the least of a cost in milliseconds.
    Reference,
    /// Always the same machine for an account, while that has no more than its share.
    Sticky,
    /// `SGLang`'s: the longest match if it is long enough, otherwise who was sent least.
    CacheAware,
    /// `Dynamo`'s: the fewest blocks to read and to hold.
    FewestBlocks,
    /// Preble's: the longest match where it is more than the rest, otherwise the least work.
    ExploitExplore,
    /// `llm-d`'s: the highest weighted sum of match, queue and memory.
    HighestScore,
    /// As [`Policy::Expected`], but the bound that a consumer states is taken for the length of its answer:
    /// where that is the truth, this says what knowing it is worth.
    Told,
}

/// A machine that has more than this share of the mean load is passed over, in thousandths, as
/// consistent hashing with bounded loads does.
const BOUND_MILLI: u64 = 1_250;

impl Fleet {
    pub(crate) const fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Whether what a consumer allows is what its answer will be.
    pub(crate) const fn takes_bounds_for_lengths(&self) -> bool {
        matches!(self.policy, Policy::Told)
    }

    /// The pick of a policy that compares no expectations. It looks at every machine: simulations can
    /// afford that.
    pub(super) fn pick(&self, want: &Want<'_>, seed: Seed) -> Option<&Candidate> {
        let pool = &self.supply(want.model).pool;
        let fit = pool.iter().filter(|candidate| is_fit(want, candidate));
        let chance = |candidate: &&Candidate| {
            let which = u128::from(candidate.machine.0);
            let draw = seed.draw(Purpose::Tie, want.request.0, which);
            (draw, candidate.machine)
        };
        match self.policy {
            Policy::Expected | Policy::Told => unreachable!("they weigh"),
            Policy::LeastOutstanding => fit.min_by_key(|fit| (fit.load, chance(fit))),
            Policy::Random => fit.min_by_key(chance),
            Policy::RoundRobin => {
                let next = self.last_sent.wrapping_add(1);
                fit.min_by_key(|fit| fit.offer.wrapping_sub(next))
            }
            Policy::TwoChoices => {
                let mut two: [Option<&Candidate>; 2] = [None; 2];
                for candidate in fit {
                    let is_before = |other: &Option<&Candidate>| {
                        other.is_none_or(|it| chance(&candidate) < chance(&it))
                    };
                    if is_before(&two[0]) {
                        two = [Some(candidate), two[0]];
                    } else if is_before(&two[1]) {
                        two[1] = Some(candidate);
                    }
                }
                two.into_iter()
                    .flatten()
                    .min_by_key(|one| (one.load, chance(one)))
            }
            Policy::Reference => {
                let offers = fit.map(|candidate| candidate.offer);
                let offer = self.cheapest_by_reference(offers, want, seed)?;
                let place = self.offers.at(offer).place.expect("it came from the pool");
                Some(pool.at(place))
            }
            Policy::Sticky => self.pick_sticky(want, seed),
            Policy::CacheAware => self.cache_aware(want, seed),
            Policy::FewestBlocks => self.fewest_blocks(want, seed),
            Policy::ExploitExplore => self.exploit_or_explore(want, seed),
            Policy::HighestScore => self.highest_score(want, seed),
        }
    }

    /// Machines stand in an order that is the account's own; the first is taken that is not loaded
    /// beyond its bound.
    fn pick_sticky(&self, want: &Want<'_>, seed: Seed) -> Option<&Candidate> {
        let pool = &self.supply(want.model).pool;
        let all = || pool.iter();
        let count = pool.count() as u64;
        let load: u64 = all().map(|candidate| u64::from(candidate.load)).sum();
        // With the newcomer, rounded up: somebody is always below.
        let bound = ((load + 1) * BOUND_MILLI).div_ceil(count.max(1) * 1_000);
        let order = |candidate: &&Candidate| {
            let which = u128::from(candidate.machine.0);
            let draw = seed.draw(Purpose::Tie, u128::from(want.account.0), which);
            (draw, candidate.machine)
        };
        let fit = || all().filter(|candidate| is_fit(want, candidate));
        let bounded = fit().filter(|candidate| u64::from(candidate.load) < bound);
        // Those below the bound may have no room for this request.
        bounded
            .min_by_key(order)
            .or_else(|| fit().min_by_key(order))
    }
}
