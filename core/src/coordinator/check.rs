//! The invariants, recounted from the whole state. Slow: for tests, the simulator and fuzzers.
//!
//! Each function panics with the invariant's number when the state breaks it.

use super::Coordinator;
use super::requests::Phase;
use super::timers::TIMERS_PER_PROVIDER;
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
        self.fleet.invariant_loads();
        self.fleet.invariant_supply();
    }

    /// INV-01: arrived = finished + refused + failed + alive. INV-02 follows: each end is counted
    /// where its terminal effect is pushed.
    pub fn invariant_conservation(&self) {
        let ended = self
            .requests
            .iter()
            .filter(|(_, r)| match r.phase() {
                // Their consumers were told; the money is still on its way.
                Phase::Billed | Phase::Parked => true,
                Phase::Queued | Phase::Running | Phase::Settling => false,
            })
            .count();
        let alive = (self.requests.count() - ended) as u64;
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
            .filter_map(|(_, r)| r.hold())
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
        for debits in self.fleet.debits() {
            let mut listed = 0;
            for attempt in self.attempts.on(debits.provider) {
                let route = self.attempts.at(attempt).route();
                assert_eq!(
                    route.provider, debits.provider,
                    "INV-08: an attempt on a foreign list"
                );
                assert_eq!(route.conn, debits.conn, "INV-08: an attempt of a past life");
                listed += 1;
            }
            assert_eq!(
                debits.attempts, listed,
                "INV-08: the ledger forgot an attempt"
            );
        }
        let mut racing = 0;
        for (key, request) in self.requests.iter() {
            let is_out = match request.phase() {
                Phase::Parked | Phase::Running => true,
                Phase::Billed | Phase::Queued | Phase::Settling => false,
            };
            let out = request.racing().count();
            assert_eq!(is_out, out > 0, "INV-08: a request runs by its attempts");
            for attempt in request.racing().iter() {
                let owner = self.attempts.get(attempt).map(|it| it.route().request);
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

    /// INV-12: the index holds exactly the open offers, each where it says.
    pub fn invariant_index(&self) {
        self.fleet.invariant_index();
    }

    /// INV-09: nothing waits while an eligible machine has room for it.
    pub fn invariant_work_conserving(&self) {
        for model in self.queues.models() {
            for key in self.queues.keys(model) {
                let want = self.requests.at(key).want();
                assert!(
                    self.fleet.choose(want, &self.config).is_none(),
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
        self.fleet.invariant_bounded(limits);
        for model in self.queues.models() {
            let count = self.queues.count(model);
            assert!(count <= limits.queue_depth_max, "INV-12: queue");
        }
        let timers_max = self.requests.count()
            + self.attempts.count()
            + TIMERS_PER_PROVIDER * self.fleet.count();
        assert!(self.timers.count() <= timers_max, "INV-12: timers");
    }

    /// After the last request has ended nothing is held, reserved or timed.
    pub fn invariant_quiescent(&self) {
        assert_eq!(self.requests.count(), 0, "INV-15: a request never ended");
        assert_eq!(
            self.attempts.count(),
            0,
            "INV-08: an attempt outlived its request"
        );
        assert_eq!(
            self.books.held(),
            MicroUsd::ZERO,
            "INV-04: held after quiescence"
        );
        for debits in self.fleet.debits() {
            assert_eq!(debits.attempts, 0, "INV-08: reserved after quiescence");
        }
    }
}
