//! Which machine serves a request: the least expected time to first content, with the decode work
//! that it would disturb, among a handful of candidates from the shortest waits.

use super::Coordinator;
use super::admit::fresh_request;
use super::life::Request;
use super::pool::{Candidate, MachineTag};
use crate::draw::Purpose;
use crate::event::Ask;
use crate::ids::ConnId;
use crate::slab::Key;

/// A prefill stalls the rows that decode on the same machine; their delay counts a quarter of ours.
const INTERFERENCE_DIVISOR: u64 = 4;

/// Total order: cost, then chance, then identity (never the place, so join order does not matter).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    cost_us: u64,
    tie: u64,
    machine: MachineTag,
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
        let need = u32::try_from(request.need_tokens()).unwrap_or(u32::MAX);
        let candidates_max = usize::from(self.config.limits.candidates_max).max(1);
        let per_bucket_max = candidates_max.div_ceil(2);
        let mut best: Option<(Rank, u32)> = None;
        let mut weighed = 0;
        for (depth, bucket) in (0u128..).zip(self.fleet.pool(request.ask.model).buckets()) {
            let draw_ix = (u128::from(request.attempts) << 64) | depth;
            let id = request.ask.request.0;
            let count = bucket.len() as u64;
            let start = self
                .config
                .seed
                .draw_below(Purpose::Candidate, id, draw_ix, count);
            let (before, after) = bucket.split_at(usize::try_from(start).expect("an index"));
            let mut weighed_here = 0;
            for candidate in after.iter().chain(before) {
                if candidate.room_tokens < need || request.has_tried(candidate.machine) {
                    continue;
                }
                let rank = self.rank(request, candidate);
                if best.is_none_or(|(leader, _)| rank < leader) {
                    best = Some((rank, candidate.offer));
                }
                weighed_here += 1;
                if weighed_here == per_bucket_max {
                    break;
                }
            }
            weighed += weighed_here;
            if weighed >= candidates_max {
                break;
            }
        }
        best.map(|(_, offer)| offer)
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
