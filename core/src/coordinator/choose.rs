//! Which machine serves a request: the least expected time to first content, with the decode work
//! that it would disturb, among a handful of candidates from several sources: the shortest waits,
//! and the asker's own machines.

use super::Coordinator;
use super::admit::fresh_request;
use super::life::Request;
use super::pool::{Candidate, MachineTag};
use crate::config::Limits;
use crate::draw::Purpose;
use crate::event::Ask;
use crate::ids::ConnId;
use crate::slab::Key;

/// A prefill stalls the rows that decode on the same machine; their delay counts a quarter of ours.
const INTERFERENCE_DIVISOR: u64 = 4;
/// Candidates that one choice looks at, those without room among them: the cost of a choice does
/// not grow with the fleet.
pub(super) const INSPECTED_MAX: usize = 256;
/// Of them, in one bucket, or among the asker's own machines.
pub(super) const INSPECTED_PER_SOURCE_MAX: usize = 64;

/// Total order: cost, then chance, then identity (never the place, so join order does not matter).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    cost_us: u64,
    tie: u64,
    machine: MachineTag,
}

/// The best candidate so far, how many were compared for it and how many were looked at.
pub(super) struct Weighing {
    best: Option<(Rank, u32)>,
    pub(super) inspected: usize,
    weighed: usize,
    weighed_max: usize,
    per_bucket_max: usize,
}

impl Weighing {
    fn new(limits: &Limits) -> Self {
        let weighed_max = usize::from(limits.candidates_max).max(1);
        Self {
            best: None,
            inspected: 0,
            weighed: 0,
            weighed_max,
            per_bucket_max: weighed_max.div_ceil(2),
        }
    }
}

impl Coordinator {
    /// Which connection an arrival would be sent to at this moment. Changes nothing; the same code
    /// decides for real.
    #[must_use]
    pub fn preview(&self, ask: Ask) -> Option<ConnId> {
        self.config.catalog.spec(ask.model)?;
        let offer = self.choose_for(&fresh_request(self.now, ask))?;
        let slot = self.fleet.offers.at(offer).provider;
        Some(self.fleet.providers.at(slot).conn)
    }

    /// The offer to use now, or `None` when no eligible machine has room (INV-09).
    pub(super) fn choose(&self, key: Key) -> Option<u32> {
        self.choose_for(self.requests.get(key).expect("a live request"))
    }

    fn choose_for(&self, request: &Request) -> Option<u32> {
        self.weighing_for(request).best.map(|(_, offer)| offer)
    }

    pub(super) fn weighing_for(&self, request: &Request) -> Weighing {
        let mut weighing = Weighing::new(&self.config.limits);
        self.weigh_own(request, &mut weighing);
        self.weigh_shortest_waits(request, &mut weighing);
        if weighing.best.is_none() {
            self.weigh_last_resort(request, &mut weighing);
        }
        weighing
    }

    /// The asker's own machines that serve nobody else.
    fn weigh_own(&self, request: &Request, weighing: &mut Weighing) {
        let own = self.fleet.own(request.ask.model, request.ask.account);
        for &offer in own.iter().take(INSPECTED_PER_SOURCE_MAX) {
            if self.fleet.may_serve(offer, request.tried_machines()) {
                let candidate = self.fleet.candidate(offer, &self.config.limits);
                self.weigh(request, &candidate, weighing);
            }
        }
    }

    /// Barred machines, while no other machine in good standing serves the model.
    fn weigh_last_resort(&self, request: &Request, weighing: &mut Weighing) {
        let barred = &self.fleet.supply(request.ask.model).last_resort;
        for &offer in barred.iter().take(INSPECTED_PER_SOURCE_MAX) {
            if self.fleet.may_serve(offer, request.tried_machines()) {
                let candidate = self.fleet.candidate(offer, &self.config.limits);
                self.weigh(request, &candidate, weighing);
            }
        }
    }

    /// A few of each bucket, from a drawn place on, shortest waits first.
    fn weigh_shortest_waits(&self, request: &Request, weighing: &mut Weighing) {
        let pool = &self.fleet.supply(request.ask.model).pool;
        for (depth, bucket) in (0u128..).zip(pool.buckets()) {
            let draw_ix = (u128::from(request.attempts) << 64) | depth;
            let id = request.ask.request.0;
            let count = bucket.len() as u64;
            let start = self
                .config
                .seed
                .draw_below(Purpose::Candidate, id, draw_ix, count);
            let (before, after) = bucket.split_at(usize::try_from(start).expect("an index"));
            let weighed_before = weighing.weighed;
            for candidate in after.iter().chain(before).take(INSPECTED_PER_SOURCE_MAX) {
                self.weigh(request, candidate, weighing);
                if weighing.weighed - weighed_before == weighing.per_bucket_max {
                    break;
                }
            }
            if weighing.weighed >= weighing.weighed_max || weighing.inspected >= INSPECTED_MAX {
                return;
            }
        }
    }

    /// Takes a candidate into the weighing, if it can take the request at all.
    fn weigh(&self, request: &Request, candidate: &Candidate, weighing: &mut Weighing) {
        weighing.inspected += 1;
        let need = u32::try_from(request.need_tokens()).unwrap_or(u32::MAX);
        if candidate.room_tokens < need || request.has_tried(candidate.machine) {
            return;
        }
        weighing.weighed += 1;
        let rank = self.rank(request, candidate);
        if weighing.best.is_none_or(|(leader, _)| rank < leader) {
            weighing.best = Some((rank, candidate.offer));
        }
    }

    fn rank(&self, request: &Request, candidate: &Candidate) -> Rank {
        let prompt = u64::from(request.ask.prompt_tokens);
        let prefill_us = prompt * u64::from(candidate.prefill_us_per_ktok) / 1_000;
        let disturbed_us = prefill_us * u64::from(candidate.load) / INTERFERENCE_DIVISOR;
        let request = request.ask.request.0;
        Rank {
            cost_us: u64::from(candidate.wait_us) + prefill_us + disturbed_us,
            tie: self
                .config
                .seed
                .draw(Purpose::Tie, request, u128::from(candidate.machine.0)),
            machine: candidate.machine,
        }
    }
}
