//! Money that comes in from outside, and counter-entries that take it back.
//!
//! A deposit is recorded by the command line and applied by a coordinator: in the transaction of its
//! transfer, once. One that the books do not take is set aside with the reason, and never counts.

use cereus_core::ids::AccountId;
use cereus_core::money::{DEPOSIT_MAX, MicroUsd};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::super::rows::{DepositId, DepositRow, DepositState, WaitingDeposit};
use super::super::{StoreError, unix_now_s};
use super::{account_id, row_id};

const COLUMNS: &str = "d.id, d.account, a.name, d.amount, d.created_at, d.transfer IS NOT NULL,
    d.refused, d.reverses, (SELECT r.id FROM deposits r WHERE r.reverses = d.id)
    FROM deposits d JOIN accounts a ON a.id = d.account";

pub(super) fn record(
    db: &Connection,
    account: AccountId,
    amount: MicroUsd,
) -> Result<DepositId, StoreError> {
    if amount <= MicroUsd::ZERO || !amount.is_within(DEPOSIT_MAX) {
        return Err(StoreError::Request(format!(
            "a credit is more than nothing and at most ${}; give more in several",
            DEPOSIT_MAX.0 / 1_000_000
        )));
    }
    db.execute(
        "INSERT INTO deposits (account, amount, created_at) VALUES (?, ?, ?)",
        params![row_id(account), amount.0, unix_now_s()],
    )?;
    Ok(DepositId(db.last_insert_rowid()))
}

/// Records the counter-entry of a deposit that counts, or will.
pub(super) fn reverse(db: &mut Connection, id: DepositId) -> Result<DepositId, StoreError> {
    let tx = db.transaction()?;
    let deposit = find(&tx, id)?;
    let DepositId(number) = id;
    let refused = |why: String| Err(StoreError::Request(why));
    if let DepositState::Refused(reason) = &deposit.state {
        return refused(format!(
            "credit {number} was set aside ({reason}) and never counted: there is nothing to reverse"
        ));
    }
    if let Some(DepositId(first)) = deposit.reverses {
        return refused(format!(
            "credit {number} is itself the reversal of {first}; to give the money back, credit it \
             anew"
        ));
    }
    if let Some(DepositId(by)) = deposit.reversed_by {
        return refused(format!("credit {number} is reversed already, by {by}"));
    }
    tx.execute(
        "INSERT INTO deposits (account, amount, created_at, reverses) VALUES (?, ?, ?, ?)",
        params![
            row_id(deposit.account),
            deposit.amount.0.saturating_neg(),
            unix_now_s(),
            number
        ],
    )?;
    let made = DepositId(tx.last_insert_rowid());
    tx.commit()?;
    Ok(made)
}

pub(super) fn refuse(tx: &Transaction<'_>, id: DepositId, reason: &str) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE deposits SET refused = ? WHERE id = ? AND transfer IS NULL")?
        .execute(params![reason, id.0])?;
    Ok(())
}

/// Marks a deposit as applied by `transfer`.
pub(super) fn apply(tx: &Transaction<'_>, id: DepositId, transfer: i64) -> Result<(), StoreError> {
    let changed = tx
        .prepare_cached(
            "UPDATE deposits SET transfer = ?
             WHERE id = ? AND transfer IS NULL AND refused IS NULL",
        )?
        .execute(params![transfer, id.0])?;
    if changed != 1 {
        return Err(StoreError::Request(format!(
            "credit {} was applied or set aside before",
            id.0
        )));
    }
    Ok(())
}

pub(super) fn find(db: &Connection, id: DepositId) -> Result<DepositRow, StoreError> {
    let sql = format!("SELECT {COLUMNS} WHERE d.id = ?");
    let found = db.query_row(&sql, [id.0], read).optional()?;
    found.ok_or(StoreError::NoCredit(id))
}

pub(super) fn list(
    db: &Connection,
    account: Option<AccountId>,
    count_max: u32,
) -> Result<Vec<DepositRow>, StoreError> {
    let sql =
        format!("SELECT {COLUMNS} WHERE ?1 IS NULL OR d.account = ?1 ORDER BY d.id DESC LIMIT ?2");
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map(params![account.map(row_id), count_max], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// All that no coordinator has applied or set aside.
pub(super) fn waiting(db: &Connection) -> Result<Vec<WaitingDeposit>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT id, account, amount FROM deposits
         WHERE transfer IS NULL AND refused IS NULL ORDER BY id",
    )?;
    let rows = statement.query_map([], read_waiting)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn waiting_of_row(
    db: &Connection,
    id: i64,
) -> Result<Option<WaitingDeposit>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT id, account, amount FROM deposits
         WHERE id = ? AND transfer IS NULL AND refused IS NULL",
    )?;
    Ok(statement.query_row([id], read_waiting).optional()?)
}

fn read_waiting(row: &Row<'_>) -> rusqlite::Result<WaitingDeposit> {
    Ok(WaitingDeposit {
        id: DepositId(row.get(0)?),
        account: account_id(row.get(1)?),
        amount: MicroUsd(row.get(2)?),
    })
}

fn read(row: &Row<'_>) -> rusqlite::Result<DepositRow> {
    let is_applied: bool = row.get(5)?;
    let refused: Option<String> = row.get(6)?;
    let state = match (is_applied, refused) {
        (_, Some(reason)) => DepositState::Refused(reason),
        (true, None) => DepositState::Applied,
        (false, None) => DepositState::Waiting,
    };
    Ok(DepositRow {
        id: DepositId(row.get(0)?),
        account: account_id(row.get(1)?),
        account_name: row.get(2)?,
        amount: MicroUsd(row.get(3)?),
        created_unix_s: row.get(4)?,
        state,
        reverses: row.get::<_, Option<i64>>(7)?.map(DepositId),
        reversed_by: row.get::<_, Option<i64>>(8)?.map(DepositId),
    })
}
