//! Money, from posted transfers alone, across restarts: what is durable survives, the rest never was.

use std::collections::{BTreeMap, BTreeSet};

use cereus_core::coordinator::Coordinator;
use cereus_core::effect::{LedgerAccount, Receipt, Transfer, TransferKind};
use cereus_core::ids::{AccountId, Epoch, RequestId};

use super::{Violation, require};

/// How far the money of one request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HoldState {
    Open,
    Settled,
    Voided,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HoldModel {
    account: AccountId,
    amount: i64,
    state: HoldState,
    charged: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Books {
    balances: BTreeMap<LedgerAccount, i64>,
    holds: BTreeMap<RequestId, HoldModel>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct MoneyModel {
    live: Books,
    durable: Books,
    /// Posted in this life and not yet durable, from number `first`.
    pending: Vec<Transfer>,
    first: u64,
    /// Charged in this life, durably, and without a receipt so far.
    unreceipted: BTreeSet<RequestId>,
}

impl MoneyModel {
    #[must_use]
    pub fn new() -> Self {
        Self {
            first: 1,
            ..Self::default()
        }
    }

    /// The core posted a transfer.
    pub fn post(&mut self, transfer: &Transfer) -> Result<(), Violation> {
        let expected = self.first + self.pending.len() as u64;
        require(transfer.seq == expected, "INV-03", || {
            format!("transfer {} comes where {expected} is next", transfer.seq)
        })?;
        self.live.apply(transfer)?;
        self.pending.push(*transfer);
        Ok(())
    }

    /// The store made everything up to `up_to` durable.
    pub fn persist(&mut self, up_to: u64) -> Result<(), Violation> {
        let count = usize::try_from((up_to + 1).saturating_sub(self.first)).unwrap_or(usize::MAX);
        let count = count.min(self.pending.len());
        for transfer in self.pending.drain(..count) {
            self.durable.apply(&transfer)?;
            self.first = transfer.seq + 1;
            if transfer.kind == TransferKind::Settle && paid(&transfer) > 0 {
                self.unreceipted.extend(transfer.request());
            }
        }
        Ok(())
    }

    /// INV-29: beside a settlement that charges something goes its receipt, so that whoever paid has
    /// one, whatever becomes of the process in the same moment.
    pub fn require_receipt_beside(
        transfer: &Transfer,
        receipt: Option<&Receipt>,
    ) -> Result<(), Violation> {
        let charged = paid(transfer);
        if transfer.kind != TransferKind::Settle || charged == 0 {
            return Ok(());
        }
        require(
            receipt.is_some_and(|it| it.charged.0 == charged),
            "INV-29",
            || {
                format!(
                    "transfer {} charges {charged} beside {receipt:?}",
                    transfer.seq
                )
            },
        )
    }

    /// A receipt goes to the store.
    pub fn receipted(&mut self, receipt: &Receipt) {
        self.unreceipted.remove(&receipt.request);
    }

    /// INV-29: what was charged has its receipt as soon as it is durable, however the request ended.
    pub fn require_receipts(&self) -> Result<(), Violation> {
        require(self.unreceipted.is_empty(), "INV-29", || {
            format!("{:?} pay, and have no receipt", self.unreceipted)
        })
    }

    /// The coordinator's process died: what counts is in `log`, heard of or not, and the rest never
    /// happened. The next process numbers its transfers from the origin of `next`.
    pub fn crash<'t>(
        &mut self,
        next: Epoch,
        log: impl Iterator<Item = &'t Transfer>,
    ) -> Result<(), Violation> {
        self.unreceipted.clear();
        self.pending.clear();
        self.first = next.origin() + 1;
        let mut books = Books::default();
        for transfer in log {
            books.apply(transfer)?;
        }
        self.live = books.clone();
        self.durable = books;
        Ok(())
    }

    /// INV-03: what each account may spend is the sum of its entries, in the core and here.
    pub fn require_balances(&self, core: &Coordinator) -> Result<(), Violation> {
        for account in core.books().accounts() {
            let consumer = LedgerAccount::Consumer(account.id);
            let sum = self.live.balances.get(&consumer).copied().unwrap_or(0);
            require(account.available.0 == sum, "INV-03", || {
                format!(
                    "{:?} may spend {} and its entries sum to {sum}",
                    account.id, account.available.0
                )
            })?;
        }
        Ok(())
    }

    /// INV-05: the hold of `request` is on disk.
    #[must_use]
    pub fn is_hold_durable(&self, request: RequestId) -> bool {
        self.durable.holds.contains_key(&request)
    }

    /// What `request` was charged, once the settlement is on disk.
    #[must_use]
    pub fn durable_charge(&self, request: RequestId) -> Option<i64> {
        let hold = self.durable.holds.get(&request)?;
        (hold.state == HoldState::Settled).then_some(hold.charged)
    }

    /// INV-03, INV-04: nothing is held, everything adds up.
    pub fn quiescent(&self) -> Result<(), Violation> {
        let held = self.live.balances.iter();
        let mut held = held.filter(|(account, _)| matches!(account, LedgerAccount::Held(_)));
        if let Some((account, amount)) = held.find(|(_, amount)| **amount != 0) {
            return Err(Violation {
                law: "INV-04",
                what: format!("{account:?} has {amount} after all has ended"),
            });
        }
        let sum: i64 = self.live.balances.values().sum();
        require(sum == 0, "INV-03", || format!("the books sum to {sum}"))
    }
}

impl Books {
    /// INV-03: postings sum to zero. INV-04: a hold opens once and closes once, for at most itself.
    fn apply(&mut self, transfer: &Transfer) -> Result<(), Violation> {
        let sum: i64 = transfer
            .postings
            .iter()
            .map(|posting| posting.amount.0)
            .sum();
        require(sum == 0, "INV-03", || {
            format!("transfer {} sums to {sum}", transfer.seq)
        })?;
        for posting in &transfer.postings {
            if posting.amount.0 != 0 {
                *self.balances.entry(posting.account).or_default() += posting.amount.0;
            }
        }
        match transfer.kind {
            TransferKind::Deposit => {}
            TransferKind::Hold => {
                let request = transfer.request().ok_or_else(|| misfit(transfer))?;
                let hold = opened(transfer).ok_or_else(|| misfit(transfer))?;
                let before = self.holds.insert(request, hold);
                require(before.is_none(), "INV-04", || {
                    format!("{request} holds money twice")
                })?;
            }
            TransferKind::Settle => {
                let charged = paid(transfer);
                self.close(transfer, HoldState::Settled, charged)?;
            }
            TransferKind::Void => self.close(transfer, HoldState::Voided, 0)?,
        }
        let consumer = |account: &LedgerAccount| {
            matches!(account, LedgerAccount::Consumer(_) | LedgerAccount::Held(_))
        };
        for posting in &transfer.postings {
            let balance = self.balances.get(&posting.account).copied().unwrap_or(0);
            require(
                balance >= 0 || !consumer(&posting.account),
                "INV-04",
                || format!("{:?} falls to {balance}", posting.account),
            )?;
        }
        Ok(())
    }

    fn close(
        &mut self,
        transfer: &Transfer,
        state: HoldState,
        charged: i64,
    ) -> Result<(), Violation> {
        let request = transfer.request().ok_or_else(|| misfit(transfer))?;
        let Some(hold) = self.holds.get_mut(&request) else {
            return Err(misfit(transfer));
        };
        require(hold.state == HoldState::Open, "INV-04", || {
            format!("{request} was {:?} and is {state:?} again", hold.state)
        })?;
        require((0..=hold.amount).contains(&charged), "INV-04", || {
            format!("{request} pays {charged} of {}", hold.amount)
        })?;
        hold.state = state;
        hold.charged = charged;
        Ok(())
    }
}

fn misfit(transfer: &Transfer) -> Violation {
    Violation {
        law: "INV-04",
        what: format!(
            "transfer {} closes no hold: {:?}",
            transfer.seq, transfer.kind
        ),
    }
}

fn opened(transfer: &Transfer) -> Option<HoldModel> {
    let held = transfer
        .postings
        .iter()
        .find_map(|posting| match posting.account {
            LedgerAccount::Held(account) => Some((account, posting.amount.0)),
            LedgerAccount::Clearing
            | LedgerAccount::Consumer(_)
            | LedgerAccount::Platform
            | LedgerAccount::Provider(_) => None,
        });
    let (account, amount) = held?;
    (amount >= 0).then_some(HoldModel {
        account,
        amount,
        state: HoldState::Open,
        charged: 0,
    })
}

/// What went to the provider and the platform.
fn paid(transfer: &Transfer) -> i64 {
    let gains = transfer.postings.iter().filter(|posting| {
        matches!(
            posting.account,
            LedgerAccount::Platform | LedgerAccount::Provider(_)
        )
    });
    gains.map(|posting| posting.amount.0).sum()
}
