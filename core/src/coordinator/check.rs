//! The invariants, recounted from the whole state. Slow: for tests, the simulator and fuzzers.
//!
//! Each function panics with the invariant's number when the state breaks it.

use super::fleet::NIL;
use super::life::Phase;
use super::{Coordinator, TIMERS_PER_PROVIDER};
use crate::ids::ModelIx;
use crate::money::MicroUsd;

impl Coordinator {
    /// Every invariant that the state alone can show.
    pub fn check(&self) {
        self.invariant_conservation();
        self.invariant_money();
        self.invariant_ledger();
        self.invariant_index();
        self.invariant_work_conserving();
        self.invariant_bounded();
    }

    /// INV-01: arrived = finished + refused + failed + alive. INV-02 follows: each end is counted
    /// where its terminal effect is pushed.
    pub fn invariant_conservation(&self) {
        let parked = self
            .requests
            .iter()
            .filter(|(_, r)| r.phase == Phase::Parked)
            .count();
        let alive = (self.requests.count() - parked) as u64;
        let ended = self.counts.finished + self.counts.refused + self.counts.failed;
        assert_eq!(
            self.counts.arrived,
            ended + alive,
            "INV-01: a request was lost or made"
        );
    }

    /// INV-03 and INV-04: the books sum to zero, and what is held is the sum of open holds.
    pub fn invariant_money(&self) {
        assert_eq!(
            self.books.total(),
            MicroUsd::ZERO,
            "INV-03: money was made or lost"
        );
        let open: MicroUsd = self
            .requests
            .iter()
            .filter_map(|(_, r)| r.hold.as_ref())
            .map(|hold| hold.amount)
            .sum();
        assert_eq!(
            self.books.held(),
            open,
            "INV-04: held money has no open hold, or the reverse"
        );
    }

    /// INV-08: debits equal the attempts that made them.
    pub fn invariant_ledger(&self) {
        for (key, provider) in self.fleet.providers.iter() {
            let mut listed = 0;
            let mut ix = provider.first_attempt;
            while ix != NIL {
                let attempt = self.attempts.at(ix);
                assert_eq!(
                    attempt.provider, key.slot,
                    "INV-08: an attempt on a foreign list"
                );
                assert_eq!(
                    attempt.conn, provider.conn,
                    "INV-08: an attempt of a past life"
                );
                listed += 1;
                ix = attempt.next;
            }
            assert_eq!(
                provider.pending, listed,
                "INV-08: the ledger forgot an attempt"
            );
            let debits: u32 = provider
                .offers
                .iter()
                .map(|&ix| self.fleet.offers.at(ix).pending)
                .sum();
            assert_eq!(debits, listed, "INV-08: offers and provider disagree");
        }
        let mut racing = 0;
        for (key, request) in self.requests.iter() {
            let is_out = match request.phase {
                Phase::Parked | Phase::Running => true,
                Phase::Queued | Phase::Settling => false,
            };
            let out = request.racing.count();
            assert_eq!(is_out, out > 0, "INV-08: a request runs by its attempts");
            for attempt in request.racing.iter() {
                let owner = self.attempts.get(attempt).map(|attempt| attempt.request);
                assert_eq!(owner, Some(key), "INV-08: a request races with another's");
            }
            racing += out;
        }
        assert_eq!(
            racing,
            self.attempts.count(),
            "INV-08: an attempt without a request"
        );
    }

    /// The index holds exactly the open offers, each where it says.
    pub fn invariant_index(&self) {
        let mut placed = 0;
        for (key, offer) in self.fleet.offers.iter() {
            let (gate, place) = self.fleet.place_of(key.slot);
            let is_private = self.fleet.providers.at(offer.provider).is_private();
            assert_eq!(
                gate.is_open() && !is_private,
                place.is_some(),
                "INV-12: the index names a stale offer"
            );
            let Some(place) = place else { continue };
            let supply = self.fleet.supply(offer.model);
            assert_eq!(supply.pool.at(place).offer, key.slot, "INV-12: misplaced");
            placed += 1;
        }
        let models = (0u16..).map(ModelIx).take(self.config.catalog.count());
        let indexed: usize = models
            .map(|model| self.fleet.supply(model).pool.count())
            .sum();
        assert_eq!(
            placed, indexed,
            "INV-12: the index holds what nobody placed"
        );
    }

    /// INV-09: nothing waits while an eligible machine has room for it.
    pub fn invariant_work_conserving(&self) {
        for queue in &self.queues {
            for key in queue.keys(&self.requests) {
                assert!(
                    self.choose(key).is_none(),
                    "INV-09: queued beside a free machine"
                );
            }
        }
    }

    /// INV-12: every collection is within its limit.
    pub fn invariant_bounded(&self) {
        let limits = &self.config.limits;
        assert!(
            self.requests.count() <= limits.requests_max as usize,
            "INV-12: requests"
        );
        assert!(
            self.fleet.providers.count() <= limits.providers_max as usize,
            "INV-12: providers"
        );
        for queue in &self.queues {
            assert!(queue.count() <= limits.queue_depth_max, "INV-12: queue");
        }
        let memory = &self.fleet.memory;
        assert!(
            memory.count() <= memory.count_max() as usize,
            "INV-12: machines"
        );
        let timers_max = self.requests.count()
            + self.attempts.count()
            + TIMERS_PER_PROVIDER as usize * self.fleet.providers.count();
        assert!(self.wheel.count() <= timers_max, "INV-12: timers");
    }

    /// After the last request has ended nothing is held, reserved or timed.
    pub fn invariant_quiescent(&self) {
        assert!(self.requests.is_empty(), "INV-15: a request never ended");
        assert!(
            self.attempts.is_empty(),
            "INV-08: an attempt outlived its request"
        );
        assert_eq!(
            self.books.held(),
            MicroUsd::ZERO,
            "INV-04: held after quiescence"
        );
        for (_, provider) in self.fleet.providers.iter() {
            assert_eq!(provider.pending, 0, "INV-08: reserved after quiescence");
        }
    }
}
