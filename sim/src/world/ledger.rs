//! The books once more, from the posted transfers alone: independent of the core's own.

use std::collections::BTreeMap;

use cereus_core::effect::{LedgerAccount, Transfer, TransferKind};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    balances: BTreeMap<LedgerAccount, i128>,
    pub deposits: u64,
    pub holds: u64,
    pub settles: u64,
    pub voids: u64,
}

/// Where the money is, in micro-USD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Totals {
    pub clearing: i128,
    pub consumers: i128,
    pub held: i128,
    pub platform: i128,
    pub providers: i128,
}

impl Totals {
    #[must_use]
    pub const fn sum(&self) -> i128 {
        self.clearing + self.consumers + self.held + self.platform + self.providers
    }
}

impl Ledger {
    pub fn note(&mut self, transfer: &Transfer) {
        assert!(transfer.is_balanced(), "postings sum to zero (INV-03)");
        for posting in &transfer.postings {
            if posting.amount.0 != 0 {
                *self.balances.entry(posting.account).or_default() += i128::from(posting.amount.0);
            }
        }
        match transfer.kind {
            TransferKind::Deposit => self.deposits += 1,
            TransferKind::Hold => self.holds += 1,
            TransferKind::Settle => self.settles += 1,
            TransferKind::Void => self.voids += 1,
        }
    }

    /// Whether every hold has been settled or voided.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.holds == self.settles + self.voids
    }

    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for (account, &amount) in &self.balances {
            match account {
                LedgerAccount::Clearing => totals.clearing += amount,
                LedgerAccount::Consumer(_) => totals.consumers += amount,
                LedgerAccount::Held(_) => totals.held += amount,
                LedgerAccount::Platform => totals.platform += amount,
                LedgerAccount::Provider(_) => totals.providers += amount,
            }
        }
        totals
    }
}
