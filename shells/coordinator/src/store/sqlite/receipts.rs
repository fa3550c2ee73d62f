//! Receipts, and requests as ledger and receipts together know them.
//!
//! Receipts go as they age; what was charged is in the ledger for good.

use cereus_core::ids::{AccountId, RequestId};
use cereus_core::money::MicroUsd;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::super::rows::{LoggedReceipt, RequestRow, RequestState, StoredReceipt};
use super::super::{RECEIPT_DAYS_KEPT, RECEIPTS_KEPT_MAX, StoreError, unix_now_s};
use super::{account_id, request_id, row_id};

/// Receipts that one commit forgets for their age: more than it adds, in the long run.
const FORGOTTEN_AT_ONCE: i64 = 4_096;
const DAY_S: i64 = 24 * 3_600;
/// A hold and what ends it: receipts are numbered by the latter.
const TRANSFERS_PER_REQUEST: i64 = 2;

pub(super) fn keep(tx: &Transaction<'_>, receipt: &LoggedReceipt) -> Result<(), StoreError> {
    let kept = tx
        .prepare_cached(
            "INSERT INTO receipts (transfer, account, machine, made_at, model, prompt_tokens,
             completion_tokens, body)
         SELECT id, ?, ?, ?, ?, ?, ?, ? FROM transfers
             WHERE request = ? AND kind IN ('settle', 'void')",
        )?
        .execute(params![
            row_id(receipt.account),
            receipt.machine.0.to_be_bytes(),
            unix_now_s(),
            receipt.model,
            receipt.usage.prompt_tokens,
            receipt.usage.completion_tokens,
            receipt.body,
            receipt.request.0.to_be_bytes(),
        ])?;
    if kept != 1 {
        // Only the receipt is lost and the books are right, so the store goes on.
        tracing::error!(request = %receipt.request, "a receipt of what was not settled is dropped");
    }
    Ok(())
}

pub(super) fn forget_oldest(tx: &Transaction<'_>) -> Result<(), StoreError> {
    forget(
        tx,
        unix_now_s() - RECEIPT_DAYS_KEPT * DAY_S,
        RECEIPTS_KEPT_MAX,
    )
}

fn forget(tx: &Transaction<'_>, made_before: i64, kept_max: i64) -> Result<(), StoreError> {
    tx.prepare_cached(
        "DELETE FROM receipts WHERE transfer <= (SELECT max(transfer) FROM receipts) - ?",
    )?
    .execute([kept_max.saturating_mul(TRANSFERS_PER_REQUEST)])?;
    let oldest: Option<i64> = tx
        .prepare_cached("SELECT made_at FROM receipts ORDER BY transfer LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    if oldest.is_some_and(|made_at| made_at < made_before) {
        tx.prepare_cached(
            "DELETE FROM receipts WHERE transfer IN (
                 SELECT transfer FROM (
                     SELECT transfer, made_at FROM receipts ORDER BY transfer LIMIT ?)
                 WHERE made_at < ?)",
        )?
        .execute([FORGOTTEN_AT_ONCE, made_before])?;
    }
    Ok(())
}

pub(super) fn find(
    db: &Connection,
    request: RequestId,
) -> Result<Option<StoredReceipt>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT r.account, r.body FROM transfers e JOIN receipts r ON r.transfer = e.id
         WHERE e.request = ? AND e.kind IN ('settle', 'void')",
    )?;
    let found = statement.query_row([request.0.to_be_bytes()], |row| {
        Ok(StoredReceipt {
            account: account_id(row.get(0)?),
            body: row.get(1)?,
        })
    });
    Ok(found.optional()?)
}

pub(super) fn requests(
    db: &Connection,
    account: Option<AccountId>,
    count_max: u32,
) -> Result<Vec<RequestRow>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT h.request, p.account, a.name, h.made_at, p.amount, e.kind,
             coalesce((SELECT amount FROM postings
                 WHERE transfer = e.id AND side = 'consumer' AND account = p.account), 0),
             r.model, r.prompt_tokens, r.completion_tokens
         FROM transfers h
         JOIN postings p ON p.transfer = h.id AND p.side = 'held'
         JOIN accounts a ON a.id = p.account
         LEFT JOIN transfers e ON e.request = h.request AND e.kind IN ('settle', 'void')
         LEFT JOIN receipts r ON r.transfer = e.id
         WHERE h.kind = 'hold' AND (?1 IS NULL OR p.account = ?1)
         ORDER BY h.id DESC LIMIT ?2",
    )?;
    let rows = statement.query_map(params![account.map(row_id), count_max], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn read(row: &Row<'_>) -> rusqlite::Result<RequestRow> {
    let held = MicroUsd(row.get(4)?);
    let returned = MicroUsd(row.get(6)?);
    let ended: Option<String> = row.get(5)?;
    let state = match ended.as_deref() {
        None => RequestState::Running,
        Some("settle") => RequestState::Settled,
        Some(_) => RequestState::Voided,
    };
    let charged = match state {
        RequestState::Settled => held - returned,
        RequestState::Running | RequestState::Voided => MicroUsd::ZERO,
    };
    Ok(RequestRow {
        request: request_id(row.get(0)?),
        account: account_id(row.get(1)?),
        account_name: row.get(2)?,
        held_unix_s: row.get(3)?,
        held,
        charged,
        state,
        model: row.get(7)?,
        prompt_tokens: row.get(8)?,
        completion_tokens: row.get(9)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_receipts_go_by_number_and_by_age() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = super::super::SqliteStore::open(folder.path()).unwrap();
        for ix in 1_u8..=9 {
            store
                .db
                .execute(
                    "INSERT INTO receipts VALUES
                     (2 * ?1, 1, zeroblob(16), 100 * ?1, 'm', 1, 1, '{}', NULL)",
                    params![ix],
                )
                .unwrap();
        }
        let mut kept = |made_before, kept_max| {
            let tx = store.db.transaction().unwrap();
            forget(&tx, made_before, kept_max).unwrap();
            let ids: String = tx
                .query_row(
                    "SELECT group_concat(transfer / 2) FROM receipts",
                    [],
                    |row| row.get(0),
                )
                .unwrap();
            tx.commit().unwrap();
            ids
        };
        assert_eq!(kept(0, 100), "1,2,3,4,5,6,7,8,9");
        assert_eq!(kept(0, 6), "4,5,6,7,8,9");
        assert_eq!(kept(601, 100), "7,8,9");
    }
}
