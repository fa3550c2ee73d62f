//! What a coordinator must know, and what changed since: triggers on the tables list each change, so
//! that whoever writes, with whatever tool, is heard.

use cereus_core::ids::AccountId;
use cereus_core::money::MicroUsd;
use rusqlite::{Connection, OptionalExtension, Transaction};

use super::super::StoreError;
use super::super::rows::Changes;
use super::{account_id, accounts, deposits};

/// Changes told at once; the rest comes with the next look.
const TOLD_MAX: i64 = 4_096;

pub(super) fn everything(db: &mut Connection) -> Result<Changes, StoreError> {
    let tx = db.transaction()?;
    // The counter and not the newest row: at the last start the rows were trimmed.
    let up_to: Option<i64> = tx
        .query_row(
            "SELECT seq FROM sqlite_sequence WHERE name = 'changes'",
            [],
            |row| row.get(0),
        )
        .optional()?;
    let changes = Changes {
        up_to: up_to.map_or(0, seq),
        accounts: balances(&tx)?,
        deposits: deposits::waiting(&tx)?,
        keys: accounts::keys(&tx)?,
    };
    tx.execute("DELETE FROM changes", [])?;
    tx.commit()?;
    Ok(changes)
}

pub(super) fn since(db: &mut Connection, after: u64) -> Result<Changes, StoreError> {
    // Reads only, and must not wait for who writes.
    let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Deferred)?;
    let mut changes = Changes {
        up_to: after,
        ..Changes::default()
    };
    let mut statement =
        tx.prepare_cached("SELECT seq, kind, row FROM changes WHERE seq > ? ORDER BY seq LIMIT ?")?;
    let mut rows = statement.query([i64::try_from(after).unwrap_or(i64::MAX), TOLD_MAX])?;
    while let Some(row) = rows.next()? {
        let (number, kind, id): (i64, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        changes.up_to = seq(number);
        match kind.as_str() {
            "account" => changes.accounts.push((account_id(id), balance(&tx, id)?)),
            "deposit" => changes.deposits.extend(deposits::waiting_of_row(&tx, id)?),
            "key" => changes.keys.extend(accounts::key_of_row(&tx, id)?),
            other => unreachable!("the table checks the kind: {other}"),
        }
    }
    drop(rows);
    drop(statement);
    tx.commit()?;
    Ok(changes)
}

/// What each account may spend.
fn balances(tx: &Transaction<'_>) -> Result<Vec<(AccountId, MicroUsd)>, StoreError> {
    let mut statement = tx.prepare_cached(
        "SELECT a.id, coalesce(b.amount, 0) FROM accounts a
         LEFT JOIN balances b ON b.side = 'consumer' AND b.account = a.id ORDER BY a.id",
    )?;
    let rows = statement.query_map([], |row| {
        Ok((account_id(row.get(0)?), MicroUsd(row.get(1)?)))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn balance(tx: &Transaction<'_>, account: i64) -> Result<MicroUsd, StoreError> {
    let mut statement =
        tx.prepare_cached("SELECT amount FROM balances WHERE side = 'consumer' AND account = ?")?;
    let amount = statement
        .query_row([account], |row| row.get(0))
        .optional()?;
    Ok(MicroUsd(amount.unwrap_or(0)))
}

fn seq(number: i64) -> u64 {
    u64::try_from(number).expect("SQLite's row counter starts at 1")
}
