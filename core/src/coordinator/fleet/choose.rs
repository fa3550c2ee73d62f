//! Which machine serves a request: the least cost, in time that somebody waits ([`super::cost`]), among a
//! few candidates of each class of speed, or the asker's own machines.

use super::cost::{Cost, Work, prefill_us};
use super::pool::{Candidate, MachineTag, least_of};
use super::prefixes::Readers;
use super::{Fleet, Policy};
use crate::config::{Config, Limits};
use crate::draw::{Purpose, Seed};
use crate::event::{Ask, Machines};
use crate::ids::{AccountId, ModelIx, RequestId};
use crate::prefix::Prefix;
use crate::traits::Traits;

/// Candidates that one choice looks at, those without room among them: the cost of a choice does
/// not grow with the fleet.
pub(crate) const INSPECTED_MAX: usize = 512;
/// Of them, of one class, or among the asker's own machines.
pub(crate) const INSPECTED_PER_SOURCE_MAX: usize = 64;

/// What a request looks for in a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Want<'a> {
    pub(crate) request: RequestId,
    pub(crate) account: AccountId,
    pub(crate) model: ModelIx,
    pub(crate) prompt_tokens: u32,
    /// As expected.
    pub(crate) output_tokens: u32,
    /// Tokens that a machine must have room for.
    pub(crate) need_tokens: u64,
    /// The beginning of the prompt, by name.
    pub(crate) prefix: &'a Prefix,
    /// What a machine must have.
    pub(crate) demands: Traits,
    pub(crate) machines: Machines,
    /// Attempts before this one.
    pub(crate) nth: u8,
    /// Machines that had one of them.
    pub(crate) tried: &'a [MachineTag],
    /// Only a machine that has nothing to do will do.
    pub(crate) idle_only: bool,
}

impl<'a> Want<'a> {
    /// Of a request that has just come, whose answer will have about so many tokens.
    pub(crate) const fn of(ask: &'a Ask, output_tokens: u32) -> Self {
        Self {
            request: ask.request,
            account: ask.account,
            model: ask.model,
            prompt_tokens: ask.prompt_tokens,
            output_tokens,
            need_tokens: ask.prompt_tokens as u64 + ask.output_tokens_max as u64,
            prefix: &ask.prefix,
            demands: ask.demands(),
            machines: ask.machines,
            nth: 0,
            tried: &[],
            idle_only: false,
        }
    }

    /// Of the prompt, as far as it reaches: what a token is the machine decides.
    pub(crate) fn tokens_of(&self, blocks: u16) -> u32 {
        let tokens = u64::from(self.prompt_tokens) * u64::from(blocks);
        let of_all = tokens / u64::from(self.prefix.blocks()).max(1);
        // The last token is always read.
        let most = self.prompt_tokens.saturating_sub(1);
        u32::try_from(of_all).map_or(most, |tokens| tokens.min(most))
    }

    pub(super) const fn work(&self, cached_tokens: u32) -> Work {
        Work {
            prompt_tokens: self.prompt_tokens,
            cached_tokens,
            output_tokens: self.output_tokens,
        }
    }
}

/// Total order: cost, then chance, then identity (never the place, so join order does not matter).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    cost_us: u64,
    tie: u64,
    machine: MachineTag,
}

/// A candidate that was compared, with the terms of its cost: for people who ask why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Weighed {
    pub(crate) offer: u32,
    pub(crate) load: u32,
    pub(crate) cached_tokens: u32,
    pub(crate) cost: Cost,
}

/// The machine for a request, and what of the prompt it has read before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) offer: u32,
    pub(crate) cached_tokens: u32,
}

/// The best candidate so far, how many were compared for it and how many were looked at.
pub(crate) struct Weighing<'a> {
    want: Want<'a>,
    seed: Seed,
    /// Those that have read a part of the prompt before.
    readers: Readers,
    best: Option<(Rank, Choice)>,
    pub(crate) inspected: usize,
    weighed: usize,
    /// Of one class, and of one shelf.
    weighed_max: usize,
    per_shelf_max: usize,
    /// All that were compared, if somebody asks.
    notes: Option<Vec<Weighed>>,
}

impl<'a> Weighing<'a> {
    fn new(want: Want<'a>, seed: Seed, readers: Readers, limits: &Limits) -> Self {
        let weighed_max = usize::from(limits.candidates_max).max(1);
        Self {
            want,
            seed,
            readers,
            best: None,
            inspected: 0,
            weighed: 0,
            weighed_max,
            per_shelf_max: weighed_max.div_ceil(2),
            notes: None,
        }
    }

    /// Takes a candidate into the weighing, if it can take the request at all.
    fn weigh(&mut self, candidate: &Candidate) {
        self.weigh_with(candidate, 0);
    }

    /// The same of one whose machine has read so much of the prompt.
    fn weigh_with(&mut self, candidate: &Candidate, cached_tokens: u32) {
        self.inspected += 1;
        if !is_fit(&self.want, candidate) {
            return;
        }
        self.weighed += 1;
        let rank = self.rank(candidate, cached_tokens);
        if self.best.is_none_or(|(leader, _)| rank < leader) {
            let offer = candidate.offer;
            self.best = Some((
                rank,
                Choice {
                    offer,
                    cached_tokens,
                },
            ));
        }
    }

    /// What was chosen, if anything.
    pub(super) fn choice(&self) -> Option<Choice> {
        self.best.map(|(_, choice)| choice)
    }

    /// The tokens of the prompt that an offer's machine need not read.
    pub(super) fn cached_tokens(&self, offer: u32) -> u32 {
        self.readers.cached_tokens(offer, &self.want)
    }

    fn rank(&mut self, candidate: &Candidate, cached_tokens: u32) -> Rank {
        let machine = u128::from(candidate.machine.0);
        let cost = Cost::of(self.want.work(cached_tokens), candidate);
        if let Some(notes) = &mut self.notes {
            notes.push(Weighed {
                offer: candidate.offer,
                load: candidate.load,
                cached_tokens,
                cost,
            });
        }
        Rank {
            cost_us: cost.total_us(),
            tie: self.seed.draw(Purpose::Tie, self.want.request.0, machine),
            machine: candidate.machine,
        }
    }
}

/// Whether a candidate can take a request at all.
pub(super) fn is_fit(want: &Want<'_>, candidate: &Candidate) -> bool {
    let need = u32::try_from(want.need_tokens).unwrap_or(u32::MAX);
    let has_tried = want.tried.contains(&candidate.machine);
    let is_too_busy = want.idle_only && candidate.load > 0;
    candidate.room_tokens >= need && !has_tried && !is_too_busy && candidate.has.cover(want.demands)
}

impl Fleet {
    /// The offer to use now, or `None` when no eligible machine has room (INV-09).
    pub(crate) fn choose(&self, want: Want<'_>, config: &Config) -> Option<Choice> {
        self.weighing(want, config).choice()
    }

    pub(crate) fn weighing<'a>(&self, want: Want<'a>, config: &Config) -> Weighing<'a> {
        let readers = self.readers(&want);
        let weighing = Weighing::new(want, config.seed, readers, &config.limits);
        self.weigh_all(weighing, config)
    }

    /// The candidates that a choice compares, the best first. Changes nothing.
    pub(crate) fn weighed(&self, want: Want<'_>, config: &Config) -> Vec<Weighed> {
        let readers = self.readers(&want);
        let mut weighing = Weighing::new(want, config.seed, readers, &config.limits);
        weighing.notes = Some(Vec::new());
        let weighing = self.weigh_all(weighing, config);
        let best = weighing.choice().map(|choice| choice.offer);
        let mut notes = weighing.notes.unwrap_or_default();
        // One that was weighed twice counts with what it has read, its lower cost.
        notes.sort_by_key(|it| (it.cost.total_us(), it.offer));
        let mut seen = std::collections::BTreeSet::new();
        notes.retain(|it| seen.insert(it.offer));
        notes.sort_by_key(|it| (Some(it.offer) != best, it.cost.total_us(), it.offer));
        notes
    }

    fn weigh_all<'a>(&self, mut weighing: Weighing<'a>, config: &Config) -> Weighing<'a> {
        let want = weighing.want;
        // The asker's own machines that serve nobody else.
        let own = self.own(want.model, want.account);
        self.weigh_list(own, &config.limits, &mut weighing);
        let is_settled = match want.machines {
            Machines::Any => false,
            Machines::Own => true,
            Machines::OwnFirst => weighing.best.is_some(),
        };
        if is_settled {
            return weighing;
        }
        match self.policy {
            Policy::Expected | Policy::Told => {
                self.weigh_readers(&mut weighing);
                self.weigh_classes(&mut weighing);
            }
            Policy::CacheAware
            | Policy::ExploitExplore
            | Policy::FewestBlocks
            | Policy::HighestScore
            | Policy::LeastOutstanding
            | Policy::Random
            | Policy::Reference
            | Policy::RoundRobin
            | Policy::Sticky
            | Policy::TwoChoices => {
                let pick = self.pick(&want, config.seed);
                weighing.best = pick.map(|pick| {
                    let offer = pick.offer;
                    let cached_tokens = weighing.cached_tokens(offer);
                    let choice = Choice {
                        offer,
                        cached_tokens,
                    };
                    (weighing.rank(pick, cached_tokens), choice)
                });
            }
        }
        if weighing.best.is_none() && !want.idle_only {
            // Barred machines, while no other machine in good standing serves the model.
            let barred = &self.supply(want.model).last_resort;
            self.weigh_list(barred, &config.limits, &mut weighing);
        }
        weighing
    }

    /// Offers that are in no pool.
    fn weigh_list(&self, offers: &[u32], limits: &Limits, weighing: &mut Weighing<'_>) {
        for &offer in offers.iter().take(INSPECTED_PER_SOURCE_MAX) {
            if self.may_serve(offer, &weighing.want) {
                let cached_tokens = weighing.cached_tokens(offer);
                weighing.weigh_with(&self.candidate(offer, limits), cached_tokens);
            }
        }
    }

    /// Those whose machines have read a part of the prompt before.
    fn weigh_readers(&self, weighing: &mut Weighing<'_>) {
        let want = weighing.want;
        for nth in 0..weighing.readers.count() {
            let found = weighing.readers.at(nth);
            if let Some(place) = self.offers.at(found.offer).place {
                let candidate = self.supply(want.model).pool.at(place);
                weighing.weigh_with(candidate, want.tokens_of(found.blocks));
            }
        }
    }

    /// A few of each class, the fastest first, as long as one could be better than the best so far.
    fn weigh_classes(&self, weighing: &mut Weighing<'_>) {
        let prompt_tokens = u64::from(weighing.want.prompt_tokens);
        for class in self.supply(weighing.want.model).pool.classes() {
            let us_per_ktok = u32::try_from(least_of(class)).expect("less than a minute");
            let least_us = prefill_us(prompt_tokens, us_per_ktok);
            if weighing
                .best
                .is_some_and(|(rank, _)| rank.cost_us <= least_us)
                || weighing.inspected >= INSPECTED_MAX
            {
                return;
            }
            self.weigh_class(class, weighing);
        }
    }

    /// A few of each shelf, from a drawn place on, shortest waits first.
    fn weigh_class(&self, class: u8, weighing: &mut Weighing<'_>) {
        let want = weighing.want;
        let pool = &self.supply(want.model).pool;
        let (mut weighed_left, mut looks_left) = (weighing.weighed_max, INSPECTED_PER_SOURCE_MAX);
        for (depth, shelf) in (0u128..).zip(pool.shelves(class)) {
            let draw_ix = (u128::from(want.nth) << 64) | (u128::from(class) << 32) | depth;
            let count = shelf.len() as u64;
            let start =
                weighing
                    .seed
                    .draw_below(Purpose::Candidate, want.request.0, draw_ix, count);
            let (before, after) = shelf.split_at(usize::try_from(start).expect("an index"));
            let weighed_before = weighing.weighed;
            let quota = weighing.per_shelf_max.min(weighed_left);
            for candidate in after.iter().chain(before).take(looks_left) {
                weighing.weigh(candidate);
                looks_left -= 1;
                if weighing.weighed - weighed_before == quota {
                    break;
                }
            }
            weighed_left -= weighing.weighed - weighed_before;
            if weighed_left == 0 || looks_left == 0 {
                return;
            }
        }
    }
}
