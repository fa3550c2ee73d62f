//! Transfers in, balances out.

use cereus_core::effect::{LedgerAccount, Transfer, TransferKind};
use cereus_core::ids::{AccountId, RequestId};
use cereus_core::money::MicroUsd;
use rusqlite::{Transaction, params};

use super::keys::{account_id, row_id};
use super::{Store, StoreError, unix_now_s};

/// A hold whose request died with an earlier process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenHold {
    pub account: AccountId,
    pub request: RequestId,
    pub amount: MicroUsd,
}

/// Money that came in and is not in the ledger yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitingDeposit {
    pub id: i64,
    pub account: AccountId,
    pub amount: MicroUsd,
}

/// A transfer with the deposit that it applies, if it is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) transfer: Transfer,
    pub(crate) deposit: Option<i64>,
}

impl Store {
    /// Makes all of `entries` durable, or none.
    pub(crate) fn commit(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        let tx = self.db.transaction()?;
        for entry in entries {
            write_entry(&tx, entry)?;
        }
        tx.commit()?;
        Ok(())
    }

    /// Records money that came in. A coordinator on this folder applies it, now or at its next start.
    pub fn deposit(&mut self, account: AccountId, amount: MicroUsd) -> Result<(), StoreError> {
        if amount <= MicroUsd::ZERO {
            return Err(StoreError::Name(
                "the amount must be more than nothing".to_owned(),
            ));
        }
        self.db.execute(
            "INSERT INTO deposits (account, amount, created_at) VALUES (?, ?, ?)",
            params![row_id(account), amount.0, unix_now_s()],
        )?;
        Ok(())
    }

    /// Deposits numbered above `after` that no transfer has applied.
    pub fn waiting_deposits(&self, after: i64) -> Result<Vec<WaitingDeposit>, StoreError> {
        let mut statement = self.db.prepare_cached(
            "SELECT id, account, amount FROM deposits WHERE transfer IS NULL AND id > ? ORDER BY id",
        )?;
        let rows = statement.query_map([after], |row| {
            Ok(WaitingDeposit {
                id: row.get(0)?,
                account: account_id(row.get(1)?),
                amount: MicroUsd(row.get(2)?),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What each account numbered above `after` may spend.
    pub fn consumer_balances(
        &self,
        after: AccountId,
    ) -> Result<Vec<(AccountId, MicroUsd)>, StoreError> {
        let mut statement = self.db.prepare_cached(
            "SELECT a.id, coalesce(b.amount, 0) FROM accounts a
             LEFT JOIN balances b ON b.side = 'consumer' AND b.account = a.id
             WHERE a.id > ? ORDER BY a.id",
        )?;
        let rows = statement.query_map([row_id(after)], |row| {
            Ok((account_id(row.get(0)?), MicroUsd(row.get(1)?)))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Changes whenever another connection commits.
    pub(crate) fn data_version(&self) -> Result<i64, StoreError> {
        Ok(self
            .db
            .pragma_query_value(None, "data_version", |row| row.get(0))?)
    }

    /// Holds that were neither settled nor voided.
    pub fn open_holds(&self) -> Result<Vec<OpenHold>, StoreError> {
        let mut statement = self.db.prepare_cached(
            "SELECT p.account, h.request, p.amount
             FROM transfers h JOIN postings p ON p.transfer = h.id AND p.side = 'held'
             WHERE h.kind = 'hold' AND NOT EXISTS (
                 SELECT 1 FROM transfers e
                 WHERE e.request = h.request AND e.kind IN ('settle', 'void'))
             ORDER BY h.id",
        )?;
        let rows = statement.query_map([], |row| {
            let request: Vec<u8> = row.get(1)?;
            let request = request.try_into().expect("the table checks the length");
            Ok(OpenHold {
                account: account_id(row.get(0)?),
                request: RequestId(u128::from_be_bytes(request)),
                amount: MicroUsd(row.get(2)?),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

fn write_entry(tx: &Transaction<'_>, entry: &Entry) -> Result<(), StoreError> {
    let transfer = &entry.transfer;
    assert!(
        transfer.is_balanced(),
        "a transfer neither makes nor loses money"
    );
    let request = match transfer.kind {
        TransferKind::Deposit => None,
        TransferKind::Hold | TransferKind::Settle | TransferKind::Void => {
            Some(transfer.request.0.to_be_bytes())
        }
    };
    tx.prepare_cached("INSERT INTO transfers (kind, request, made_at) VALUES (?, ?, ?)")?
        .execute(params![kind_name(transfer.kind), request, unix_now_s()])?;
    let id = tx.last_insert_rowid();
    let mut posting_in = tx.prepare_cached(
        "INSERT INTO postings (transfer, side, account, amount) VALUES (?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
    )?;
    let mut balance_in = tx.prepare_cached(
        "INSERT INTO balances (side, account, amount) VALUES (?, ?, ?)
         ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
    )?;
    for posting in &transfer.postings {
        if posting.amount == MicroUsd::ZERO {
            continue;
        }
        let (side, account) = side_of(posting.account);
        posting_in.execute(params![id, side, account, posting.amount.0])?;
        balance_in.execute(params![side, account, posting.amount.0])?;
    }
    if let Some(deposit) = entry.deposit {
        let changed = tx
            .prepare_cached("UPDATE deposits SET transfer = ? WHERE id = ? AND transfer IS NULL")?
            .execute(params![id, deposit])?;
        if changed != 1 {
            return Err(StoreError::Name(format!(
                "deposit {deposit} was applied before"
            )));
        }
    }
    Ok(())
}

const fn kind_name(kind: TransferKind) -> &'static str {
    match kind {
        TransferKind::Deposit => "deposit",
        TransferKind::Hold => "hold",
        TransferKind::Settle => "settle",
        TransferKind::Void => "void",
    }
}

/// The two columns of a ledger account; 0 stands for "not anybody's".
fn side_of(account: LedgerAccount) -> (&'static str, i64) {
    match account {
        LedgerAccount::Clearing => ("clearing", 0),
        LedgerAccount::Consumer(account) => ("consumer", row_id(account)),
        LedgerAccount::Held(account) => ("held", row_id(account)),
        LedgerAccount::Platform => ("platform", 0),
        LedgerAccount::Provider(account) => ("provider", row_id(account)),
    }
}
