//! Moves what machines earned without an account to the accounts of their owners.
//!
//! Which machine earned what is known from its receipts, so this reaches back as far as they are kept.
//! No balance that a coordinator holds in memory changes, hence none need be told.

use cereus_core::effect::LedgerAccount;
use cereus_core::ids::{AccountId, MachineId};
use cereus_core::money::MicroUsd;
use rusqlite::{Connection, Transaction, params};

use super::super::{RECEIPT_DAYS_KEPT, StoreError, unix_now_s};
use super::{ledger, row_id};

/// What the ledger calls it.
const KIND: &str = "claim";
/// Receipts of a machine whose payment went to an account and was not moved.
const UNCLAIMED: &str = "FROM receipts r
     JOIN postings p ON p.transfer = r.transfer AND p.side = 'provider' AND p.account = ?2
     WHERE r.machine = ?1 AND r.claim IS NULL";

pub(super) fn move_earned(
    db: &mut Connection,
    machine: MachineId,
    from: AccountId,
    to: AccountId,
) -> Result<MicroUsd, StoreError> {
    if from == to {
        return Err(StoreError::Request(
            "the money is in that account already".to_owned(),
        ));
    }
    let tx = db.transaction()?;
    let amount = earned(&tx, machine, from)?;
    if amount == MicroUsd::ZERO {
        return Err(StoreError::Request(format!(
            "machine {:032x} has earned nothing without an account that was not moved before, as far \
             as receipts reach back ({RECEIPT_DAYS_KEPT} days)",
            machine.0
        )));
    }
    let transfer = transfer(&tx, machine, [(from, MicroUsd(-amount.0)), (to, amount)])?;
    tx.execute(
        "INSERT INTO claims (machine, account, amount, made_at, transfer) VALUES (?, ?, ?, ?, ?)",
        params![
            machine.0.to_be_bytes(),
            row_id(to),
            amount.0,
            unix_now_s(),
            transfer
        ],
    )?;
    let claim = tx.last_insert_rowid();
    tx.execute(
        &format!(
            "UPDATE receipts SET claim = ?3 WHERE transfer IN (SELECT r.transfer {UNCLAIMED})"
        ),
        params![machine.0.to_be_bytes(), row_id(from), claim],
    )?;
    tx.commit()?;
    Ok(amount)
}

/// What a machine earned for `account` and nobody has claimed.
fn earned(
    tx: &Transaction<'_>,
    machine: MachineId,
    account: AccountId,
) -> Result<MicroUsd, StoreError> {
    let earned = tx.query_row(
        &format!("SELECT coalesce(sum(p.amount), 0) {UNCLAIMED}"),
        params![machine.0.to_be_bytes(), row_id(account)],
        |row| row.get(0),
    )?;
    Ok(MicroUsd(earned))
}

fn transfer(
    tx: &Transaction<'_>,
    machine: MachineId,
    postings: [(AccountId, MicroUsd); 2],
) -> Result<i64, StoreError> {
    tx.execute(
        "INSERT INTO transfers (kind, cause, made_at, reference) VALUES (?, 'outside', ?, ?)",
        params![KIND, unix_now_s(), format!("{:032x}", machine.0)],
    )?;
    let id = tx.last_insert_rowid();
    let mut changed = ledger::Changed::default();
    for (account, amount) in postings {
        let account = LedgerAccount::Provider(account);
        ledger::post(tx, id, account, amount, &mut changed)?;
    }
    changed.write(tx)?;
    Ok(id)
}
