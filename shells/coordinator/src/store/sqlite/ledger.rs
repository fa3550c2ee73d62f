//! Transfers in, balances out.

use std::collections::BTreeMap;

use cereus_core::effect::{Cause, LedgerAccount, Transfer, TransferKind};
use cereus_core::money::MicroUsd;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::super::log::BatchNo;
use super::super::rows::{DepositId, OpenHold};
use super::super::{StoreError, unix_now_s};
use super::{account_id, deposits, request_id, row_id};

/// By how much one commit changes each balance. Many requests of one commit touch few balances.
#[derive(Debug, Default)]
pub(super) struct Changed(BTreeMap<(&'static str, i64), i64>);

impl Changed {
    pub(super) fn write(&self, tx: &Transaction<'_>) -> Result<(), StoreError> {
        let mut statement = tx.prepare_cached(
            "INSERT INTO balances (side, account, amount) VALUES (?, ?, ?)
             ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
        )?;
        for ((side, account), amount) in &self.0 {
            statement.execute(params![side, account, amount])?;
        }
        Ok(())
    }
}

/// One transfer with its postings, and what follows from them: balances, open holds, deposits.
pub(super) fn write(
    tx: &Transaction<'_>,
    transfer: &Transfer,
    changed: &mut Changed,
) -> Result<(), StoreError> {
    assert!(
        transfer.is_balanced(),
        "a transfer neither makes nor loses money"
    );
    let request = transfer.request().map(|id| id.0.to_be_bytes());
    let reference = transfer.reference.map(|number| number.to_string());
    tx.prepare_cached(
        "INSERT INTO transfers (kind, cause, request, reference, made_at) VALUES (?, ?, ?, ?, ?)",
    )?
    .execute(params![
        kind_name(transfer.kind),
        cause_name(transfer.cause),
        request,
        reference,
        unix_now_s()
    ])?;
    let id = tx.last_insert_rowid();
    for posting in &transfer.postings {
        // A posting of nothing is left out, but not that of a hold: a free request has a hold too,
        // and it must be found to be settled.
        let is_hold = matches!(posting.account, LedgerAccount::Held(_));
        if posting.amount != MicroUsd::ZERO || is_hold {
            post(tx, id, posting.account, posting.amount, changed)?;
        }
    }
    match transfer.kind {
        TransferKind::Deposit => {
            if let Some(number) = transfer.reference {
                deposits::apply(tx, DepositId::of(number), id)?;
            }
        }
        TransferKind::Hold => open_hold(tx, id, request, transfer)?,
        TransferKind::Settle | TransferKind::Void => {
            let closed = tx
                .prepare_cached("DELETE FROM open_holds WHERE request = ?")?
                .execute([request])?;
            if closed != 1 {
                return Err(StoreError::Request(
                    "a settlement or a void without an open hold".to_owned(),
                ));
            }
        }
    }
    Ok(())
}

pub(super) fn post(
    tx: &Transaction<'_>,
    transfer: i64,
    account: LedgerAccount,
    amount: MicroUsd,
    changed: &mut Changed,
) -> Result<(), StoreError> {
    let (side, account) = side_of(account);
    tx.prepare_cached(
        "INSERT INTO postings (transfer, side, account, amount) VALUES (?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
    )?
    .execute(params![transfer, side, account, amount.0])?;
    let balance = changed.0.entry((side, account)).or_default();
    *balance = balance
        .checked_add(amount.0)
        .expect("what the books hold fits, and so does what changes in them");
    Ok(())
}

fn open_hold(
    tx: &Transaction<'_>,
    id: i64,
    request: Option<[u8; 16]>,
    transfer: &Transfer,
) -> Result<(), StoreError> {
    for posting in &transfer.postings {
        if let LedgerAccount::Held(account) = posting.account {
            tx.prepare_cached(
                "INSERT INTO open_holds (request, account, amount, transfer) VALUES (?, ?, ?, ?)",
            )?
            .execute(params![request, row_id(account), posting.amount.0, id])?;
        }
    }
    Ok(())
}

/// How far the log of transfers is written here.
pub(super) fn applied(db: &Connection) -> Result<BatchNo, StoreError> {
    let batch: Option<i64> = db
        .query_row("SELECT batch FROM applied", [], |row| row.get(0))
        .optional()?;
    Ok(batch.map_or(0, |batch| u64::try_from(batch).unwrap_or_default()))
}

pub(super) fn applied_to(tx: &Transaction<'_>, batch: BatchNo) -> Result<(), StoreError> {
    let batch = i64::try_from(batch).expect("batches are counted from 1");
    tx.prepare_cached(
        "INSERT INTO applied (only, batch) VALUES (1, ?)
         ON CONFLICT DO UPDATE SET batch = excluded.batch",
    )?
    .execute([batch])?;
    Ok(())
}

pub(super) fn open_holds(db: &Connection) -> Result<Vec<OpenHold>, StoreError> {
    let mut statement =
        db.prepare_cached("SELECT account, request, amount FROM open_holds ORDER BY transfer")?;
    let rows = statement.query_map([], |row| {
        Ok(OpenHold {
            account: account_id(row.get(0)?),
            request: request_id(row.get(1)?),
            amount: MicroUsd(row.get(2)?),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

const fn kind_name(kind: TransferKind) -> &'static str {
    match kind {
        TransferKind::Deposit => "deposit",
        TransferKind::Hold => "hold",
        TransferKind::Settle => "settle",
        TransferKind::Void => "void",
    }
}

const fn cause_name(cause: Cause) -> &'static str {
    match cause {
        Cause::Outside => "outside",
        Cause::Request(_) => "request",
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
