//! Do balances and ledger agree? Asked at every start, before anything is served.
//!
//! The history only grows, so a start does not read it again: each audit that found no contradiction
//! keeps the balances that it proved, and the next one adds what was written since. `cereus audit`
//! looks at everything.

use std::path::Path;

use cereus_core::money::MicroUsd;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::super::error::Disagreement;
use super::super::rows::{Audit, AuditExtent};
use super::super::{StoreError, unix_now_s};

const UNBALANCED: &str = "SELECT transfer FROM postings WHERE transfer > ?
     GROUP BY transfer HAVING sum(amount) <> 0 LIMIT 1";
const NO_HOLD: &str = "SELECT e.id FROM transfers e
     WHERE e.id > ? AND e.kind IN ('settle', 'void')
     AND NOT EXISTS (SELECT 1 FROM transfers h WHERE h.request = e.request AND h.kind = 'hold')
     LIMIT 1";
/// Both directions at once: a balance without postings counts as much as postings without balance.
const BALANCE: &str = "SELECT side, account FROM (
         SELECT side, account, amount FROM balances
         UNION ALL
         SELECT side, account, -amount FROM audited
         UNION ALL
         SELECT side, account, -amount FROM postings WHERE transfer > ?)
     GROUP BY side, account HAVING sum(amount) <> 0 LIMIT 1";
const HELD: &str = "SELECT account FROM (
         SELECT account, amount FROM balances WHERE side = 'held'
         UNION ALL
         SELECT account, -amount FROM open_holds)
     GROUP BY account HAVING sum(amount) <> 0 LIMIT 1";
const PLATFORM: &str = "SELECT coalesce(sum(amount), 0) FROM balances WHERE side = 'platform'";
/// Holds without an end, by the history alone.
const OPEN_BY_HISTORY: &str = "SELECT p.account FROM transfers h
     JOIN postings p ON p.transfer = h.id AND p.side = 'held'
     WHERE h.kind = 'hold'
     AND EXISTS (SELECT 1 FROM transfers e WHERE e.request = h.request AND e.kind IN ('settle', 'void'))
         = EXISTS (SELECT 1 FROM open_holds o WHERE o.request = h.request)
     LIMIT 1";

pub(super) fn run(
    db: &mut Connection,
    extent: AuditExtent,
    path: &Path,
) -> Result<Audit, StoreError> {
    let tx = db.transaction()?;
    match extent {
        AuditExtent::Everything => {
            check_file(&tx, path)?;
            tx.execute_batch("DELETE FROM audited; DELETE FROM audits;")?;
            if let Some(account) = first(&tx, OPEN_BY_HISTORY, None)? {
                return Err(StoreError::Audit(Disagreement::Held { account }));
            }
        }
        AuditExtent::SinceLast => {}
    }
    let from: i64 = tx
        .query_row("SELECT transfer FROM audits", [], |row| row.get(0))
        .optional()?
        .unwrap_or(0);
    let to: i64 = tx.query_row("SELECT coalesce(max(id), 0) FROM transfers", [], |row| {
        row.get(0)
    })?;
    if let Some(transfer) = first(&tx, UNBALANCED, Some(from))? {
        return Err(StoreError::Audit(Disagreement::Unbalanced { transfer }));
    }
    if let Some(transfer) = first(&tx, NO_HOLD, Some(from))? {
        return Err(StoreError::Audit(Disagreement::NoHold { transfer }));
    }
    let broken = tx
        .query_row(BALANCE, [from], |row| {
            Ok(Disagreement::Balance {
                side: row.get(0)?,
                account: row.get(1)?,
            })
        })
        .optional()?;
    if let Some(broken) = broken {
        return Err(StoreError::Audit(broken));
    }
    if let Some(account) = first(&tx, HELD, None)? {
        return Err(StoreError::Audit(Disagreement::Held { account }));
    }
    remember(&tx, from, to)?;
    let (open_hold_count, held): (u32, _) = tx.query_row(
        "SELECT count(*), coalesce(sum(amount), 0) FROM open_holds",
        [],
        |row| Ok((row.get(0)?, MicroUsd(row.get(1)?))),
    )?;
    let platform = tx.query_row(PLATFORM, [], |row| Ok(MicroUsd(row.get(0)?)))?;
    tx.commit()?;
    Ok(Audit {
        transfer_count: u64::try_from(to - from).unwrap_or_default(),
        open_hold_count: u64::from(open_hold_count),
        held,
        platform,
    })
}

/// Reads every page: for the audit that somebody asked for.
fn check_file(tx: &Transaction<'_>, path: &Path) -> Result<(), StoreError> {
    let verdict: String = tx.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(StoreError::Corrupt {
        path: path.to_owned(),
        detail: verdict,
    })
}

/// What was proved becomes what the next audit builds on.
fn remember(tx: &Transaction<'_>, from: i64, to: i64) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO audited (side, account, amount)
         SELECT side, account, sum(amount) FROM postings WHERE transfer > ? GROUP BY side, account
         ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
        [from],
    )?;
    tx.execute(
        "INSERT INTO audits (only, transfer, made_at) VALUES (1, ?, ?)
         ON CONFLICT DO UPDATE SET transfer = excluded.transfer, made_at = excluded.made_at",
        params![to, unix_now_s()],
    )?;
    Ok(())
}

fn first(tx: &Transaction<'_>, sql: &str, after: Option<i64>) -> Result<Option<i64>, StoreError> {
    let found = match after {
        Some(after) => tx.query_row(sql, [after], |row| row.get(0)),
        None => tx.query_row(sql, [], |row| row.get(0)),
    };
    Ok(found.optional()?)
}
