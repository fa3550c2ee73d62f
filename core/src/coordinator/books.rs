//! The books: double entry in integer micro-USD. Every transfer sums to zero; a hold is settled or
//! voided exactly once. The store makes transfers durable; this part decides and numbers them.

use serde::{Deserialize, Serialize};

use super::terms::{Beneficiary, SHARES_MAX, Share, divide};
use crate::effect::{
    Cause, LedgerAccount, POSTINGS_MAX, Posting, Postings, Transfer, TransferKind,
};
use crate::ids::{AccountId, Epoch, RequestId};
use crate::lookup::Lookup;
use crate::money::{BALANCE_MAX, BOOKS_MAX, DEPOSIT_MAX, MicroUsd};

/// One account as the core sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Account {
    pub id: AccountId,
    /// What may be spent now.
    pub available: MicroUsd,
    /// Set aside for running requests.
    pub held: MicroUsd,
    /// Earned by this account's machines in this process's life.
    pub earned: MicroUsd,
    /// Holds that are open.
    open: u32,
}

/// Money set aside for one request. Consumed by value: it cannot be settled twice.
#[derive(Debug, PartialEq, Eq, Hash, Clone, Serialize, Deserialize)]
#[must_use = "a hold that is dropped is money lost"]
pub struct Hold {
    pub account: AccountId,
    pub request: RequestId,
    pub amount: MicroUsd,
    /// The transfer that placed it.
    pub seq: u64,
}

/// The hold cannot be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldError {
    Insufficient,
    UnknownAccount,
}

/// Money from outside that the books do not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DepositError {
    /// Nothing, more than [`DEPOSIT_MAX`], or more than the account or the books may hold.
    OutOfBounds,
    UnknownAccount,
}

/// The account cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    Full,
    /// The balance is larger than [`BALANCE_MAX`], or the books would pass [`BOOKS_MAX`].
    OutOfBounds,
    Reopened,
}

/// How a settled hold was split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    pub charged: MicroUsd,
    pub payout: MicroUsd,
}

impl Settled {
    pub const NOTHING: Self = Self {
        charged: MicroUsd::ZERO,
        payout: MicroUsd::ZERO,
    };
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, Serialize, Deserialize)]
pub struct Books {
    accounts: Vec<Account>,
    by_id: Lookup<AccountId>,
    accounts_max: u32,
    /// Accounts with open holds, and how many these are.
    busy_count: u32,
    open_count: u32,
    /// What came in from outside, negated.
    clearing: MicroUsd,
    platform: MicroUsd,
    last_seq: u64,
}

impl Books {
    #[must_use]
    pub fn new(accounts_max: u32, epoch: Epoch) -> Self {
        Self {
            accounts: Vec::new(),
            by_id: Lookup::default(),
            accounts_max,
            busy_count: 0,
            open_count: 0,
            clearing: MicroUsd::ZERO,
            platform: MicroUsd::ZERO,
            last_seq: epoch.origin(),
        }
    }

    /// Takes over what the store knows. No transfer: the money is on the books already.
    pub fn open(&mut self, id: AccountId, balance: MicroUsd) -> Result<(), OpenError> {
        if self.by_id.get(id).is_some() {
            return Err(OpenError::Reopened);
        }
        if !balance.is_within(BALANCE_MAX) || !self.has_room(balance) {
            return Err(OpenError::OutOfBounds);
        }
        let row = self.row(id).ok_or(OpenError::Full)?;
        self.accounts[row].available = balance;
        self.clearing -= balance;
        Ok(())
    }

    /// Whether [`Self::deposit`] would take it.
    pub fn admits(&self, id: AccountId, amount: MicroUsd) -> Result<(), DepositError> {
        let account = self.account(id).ok_or(DepositError::UnknownAccount)?;
        let balance = account.available.checked_add(amount);
        let is_in_bounds = amount != MicroUsd::ZERO
            && amount.is_within(DEPOSIT_MAX)
            && balance.is_some_and(|balance| balance.is_within(BALANCE_MAX))
            && self.has_room(amount);
        is_in_bounds.then_some(()).ok_or(DepositError::OutOfBounds)
    }

    /// Whether money that an earlier process set aside may be taken over.
    #[must_use]
    pub fn admits_hold(&self, amount: MicroUsd) -> bool {
        amount >= MicroUsd::ZERO && amount.is_within(BALANCE_MAX) && self.has_room(amount)
    }

    /// Money from outside. A negative amount is a counter-entry: it takes an earlier deposit back,
    /// also where it was spent since, so that the account may owe.
    /// `reference` names it outside.
    pub fn deposit(
        &mut self,
        id: AccountId,
        amount: MicroUsd,
        reference: Option<u64>,
    ) -> Result<Transfer, DepositError> {
        self.admits(id, amount)?;
        let row = self.by_id.get(id).ok_or(DepositError::UnknownAccount)? as usize;
        self.accounts[row].available += amount;
        self.clearing -= amount;
        let postings = Postings::listed(&[
            (LedgerAccount::Clearing, -amount),
            (LedgerAccount::Consumer(id), amount),
        ]);
        let transfer = self.numbered(TransferKind::Deposit, Cause::Outside, postings);
        Ok(Transfer {
            reference,
            ..transfer
        })
    }

    pub fn hold(
        &mut self,
        id: AccountId,
        request: RequestId,
        amount: MicroUsd,
    ) -> Result<(Hold, Transfer), HoldError> {
        let row = self.by_id.get(id).ok_or(HoldError::UnknownAccount)? as usize;
        let account = &mut self.accounts[row];
        // A free request holds nothing, and still has its hold: one that ends exactly once.
        assert!(amount >= MicroUsd::ZERO, "a hold takes, it never gives");
        if account.available < amount {
            return Err(HoldError::Insufficient);
        }
        account.available -= amount;
        account.held += amount;
        self.count_hold(row);
        let postings = Postings::listed(&[
            (LedgerAccount::Consumer(id), -amount),
            (LedgerAccount::Held(id), amount),
        ]);
        let cause = Cause::Request(request);
        let transfer = self.numbered(TransferKind::Hold, cause, postings);
        Ok((
            Hold {
                account: id,
                request,
                amount,
                seq: transfer.seq,
            },
            transfer,
        ))
    }

    /// A hold that an earlier process left open in the store.
    pub fn recover(
        &mut self,
        id: AccountId,
        request: RequestId,
        amount: MicroUsd,
    ) -> Result<Hold, HoldError> {
        let row = self.by_id.get(id).ok_or(HoldError::UnknownAccount)? as usize;
        self.accounts[row].held += amount;
        self.count_hold(row);
        self.clearing -= amount;
        Ok(Hold {
            account: id,
            request,
            amount,
            seq: 0,
        })
    }

    /// Charges at most the hold and gives the rest back.
    ///
    /// # Errors
    /// The books have no room for the payee's account; the hold comes back, still open.
    pub fn settle(
        &mut self,
        hold: Hold,
        cost: MicroUsd,
        payee: AccountId,
        shares: &[Share],
    ) -> Result<(Settled, Transfer), Hold> {
        let earners = shares.iter().filter_map(|share| match share.beneficiary {
            Beneficiary::Earner(account) => Some(account),
            Beneficiary::Platform => None,
        });
        for earner in earners.chain([payee]) {
            if self.row(earner).is_none() {
                return Err(hold);
            }
        }
        let charged = cost.min(hold.amount).max(MicroUsd::ZERO);
        let returned = hold.amount - charged;
        assert_eq!(
            charged + returned,
            hold.amount,
            "settling neither makes nor loses money"
        );
        let (parts, payout) = divide(charged, shares);
        self.release(&hold, returned);
        let mut postings = Postings::listed(&[
            (LedgerAccount::Held(hold.account), -hold.amount),
            (LedgerAccount::Consumer(hold.account), returned),
        ]);
        let served = (Beneficiary::Earner(payee), payout);
        let shared = shares.iter().map(|share| share.beneficiary).zip(parts);
        for (beneficiary, amount) in shared.chain([served]) {
            self.earn(beneficiary, amount);
            postings.push(Posting {
                account: beneficiary.ledger_account(),
                amount,
            });
        }
        let cause = Cause::Request(hold.request);
        let transfer = self.numbered(TransferKind::Settle, cause, postings);
        Ok((Settled { charged, payout }, transfer))
    }

    /// Gives the whole hold back.
    pub fn void(&mut self, hold: Hold) -> Transfer {
        self.release(&hold, hold.amount);
        let postings = Postings::listed(&[
            (LedgerAccount::Held(hold.account), -hold.amount),
            (LedgerAccount::Consumer(hold.account), hold.amount),
        ]);
        self.numbered(TransferKind::Void, Cause::Request(hold.request), postings)
    }

    /// From now on.
    pub const fn set_limit(&mut self, accounts_max: u32) {
        self.accounts_max = accounts_max;
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.accounts.len()
    }

    #[must_use]
    pub fn is_open(&self, id: AccountId) -> bool {
        self.account(id).is_some()
    }

    #[must_use]
    pub fn account(&self, id: AccountId) -> Option<&Account> {
        self.by_id.get(id).map(|row| &self.accounts[row as usize])
    }

    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.accounts.iter()
    }

    #[must_use]
    pub const fn platform(&self) -> MicroUsd {
        self.platform
    }

    /// Number of the newest transfer.
    #[must_use]
    pub const fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Zero, always (INV-03).
    #[must_use]
    pub fn total(&self) -> MicroUsd {
        let on_accounts: MicroUsd = self
            .accounts
            .iter()
            .map(|a| a.available + a.held + a.earned)
            .sum();
        on_accounts + self.platform + self.clearing
    }

    #[must_use]
    pub fn held(&self) -> MicroUsd {
        self.accounts.iter().map(|account| account.held).sum()
    }

    /// Whether the sum of everything stays in its range.
    fn has_room(&self, amount: MicroUsd) -> bool {
        let clearing = self.clearing.checked_add(-amount);
        clearing.is_some_and(|clearing| clearing.is_within(BOOKS_MAX))
    }

    fn release(&mut self, hold: &Hold, returned: MicroUsd) {
        let row = self
            .by_id
            .get(hold.account)
            .expect("a hold names an open account") as usize;
        let account = &mut self.accounts[row];
        assert!(
            account.held >= hold.amount,
            "what is held covers each open hold"
        );
        account.held -= hold.amount;
        account.available += returned;
        account.open -= 1;
        self.open_count -= 1;
        self.busy_count -= u32::from(account.open == 0);
    }

    fn count_hold(&mut self, row: usize) {
        let account = &mut self.accounts[row];
        self.busy_count += u32::from(account.open == 0);
        self.open_count += 1;
        account.open += 1;
    }

    /// Whether an account has at most half as many requests under way as the others with any have on
    /// average.
    #[must_use]
    pub fn is_light(&self, id: AccountId) -> bool {
        let open = self.account(id).map_or(0, |account| account.open);
        2 * u64::from(open) * u64::from(self.busy_count) <= u64::from(self.open_count)
    }

    fn earn(&mut self, beneficiary: Beneficiary, amount: MicroUsd) {
        match beneficiary {
            Beneficiary::Earner(account) => {
                let row = self.row(account).expect("the caller saw to it");
                self.accounts[row].earned += amount;
            }
            Beneficiary::Platform => self.platform += amount,
        }
    }

    fn row(&mut self, id: AccountId) -> Option<usize> {
        if let Some(row) = self.by_id.get(id) {
            return Some(row as usize);
        }
        let row = u32::try_from(self.accounts.len())
            .ok()
            .filter(|&r| r < self.accounts_max)?;
        let zero = MicroUsd::ZERO;
        self.accounts.push(Account {
            id,
            available: zero,
            held: zero,
            earned: zero,
            open: 0,
        });
        self.by_id.insert(id, row);
        Some(row as usize)
    }

    fn numbered(&mut self, kind: TransferKind, cause: Cause, postings: Postings) -> Transfer {
        self.last_seq += 1;
        Transfer {
            seq: self.last_seq,
            kind,
            cause,
            reference: None,
            postings,
        }
    }
}

/// The hold, its rest, who served and every share have their place.
const _: () = assert!(SHARES_MAX + 3 <= POSTINGS_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    const PAYER: AccountId = AccountId(1);
    const PAYEE: AccountId = AccountId(2);
    const REFERRER: AccountId = AccountId(3);

    fn books() -> (Books, Hold) {
        let mut books = Books::new(3, Epoch(0));
        books.open(PAYER, MicroUsd(1_000)).unwrap();
        let (hold, _) = books.hold(PAYER, RequestId(7), MicroUsd(300)).unwrap();
        (books, hold)
    }

    fn shares() -> [Share; 2] {
        [
            (Beneficiary::Platform, 10),
            (Beneficiary::Earner(REFERRER), 5),
        ]
        .map(|(beneficiary, percent)| Share {
            beneficiary,
            percent,
        })
    }

    #[test]
    fn a_charge_is_divided_among_its_beneficiaries_and_nothing_is_lost() {
        let (mut books, hold) = books();
        let settled = books.settle(hold, MicroUsd(101), PAYEE, &shares());
        let (settled, transfer) = settled.unwrap();
        assert_eq!(settled.payout, MicroUsd(86));
        assert!(transfer.is_balanced());
        assert_eq!(transfer.postings.count(), 5);
        assert_eq!(transfer.request(), Some(RequestId(7)));
        let earned = |account| books.account(account).unwrap().earned;
        assert_eq!(
            (earned(PAYEE), earned(REFERRER)),
            (MicroUsd(86), MicroUsd(5))
        );
        assert_eq!(books.platform(), MicroUsd(10));
        assert_eq!(books.total(), MicroUsd::ZERO, "INV-03");
        assert_eq!(books.held(), MicroUsd::ZERO, "INV-04");
    }

    #[test]
    fn books_without_room_for_a_beneficiary_give_the_hold_back() {
        let (mut books, hold) = books();
        books.set_limit(2);
        let hold = books
            .settle(hold, MicroUsd(101), PAYEE, &shares())
            .unwrap_err();
        books.void(hold);
        assert_eq!(books.account(PAYER).unwrap().available, MicroUsd(1_000));
        assert_eq!(books.total(), MicroUsd::ZERO);
    }

    #[test]
    fn a_deposit_is_caused_from_outside_and_keeps_its_number_there() {
        let (mut books, _) = books();
        let transfer = books.deposit(PAYER, MicroUsd(5), Some(41)).unwrap();
        assert_eq!(
            (transfer.cause, transfer.reference),
            (Cause::Outside, Some(41))
        );
    }
}
