//! The tables, as numbered migrations. Once released a migration never changes: append.

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;

/// One script per version, in order; `user_version` says how many have run.
const MIGRATIONS: &[&str] = &["
CREATE TABLE accounts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    account INTEGER NOT NULL REFERENCES accounts (id),
    hash BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    label TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    disabled INTEGER NOT NULL DEFAULT 0
) STRICT;

-- One row for each transaction of the double-entry ledger.
CREATE TABLE transfers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('deposit', 'hold', 'settle', 'void')),
    request BLOB CHECK (request IS NULL OR length(request) = 16),
    made_at INTEGER NOT NULL,
    CHECK ((kind = 'deposit') = (request IS NULL))
) STRICT;
CREATE UNIQUE INDEX transfers_each_kind_once ON transfers (request, kind)
    WHERE request IS NOT NULL;
-- A request is settled or voided, never both.
CREATE UNIQUE INDEX transfers_end_once ON transfers (request) WHERE kind IN ('settle', 'void');

CREATE TABLE postings (
    transfer INTEGER NOT NULL REFERENCES transfers (id),
    side TEXT NOT NULL CHECK (side IN ('clearing', 'consumer', 'held', 'platform', 'provider')),
    account INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    PRIMARY KEY (transfer, side, account)
) STRICT, WITHOUT ROWID;

-- The sums of the postings, kept for speed; the audit at start compares the two.
CREATE TABLE balances (
    side TEXT NOT NULL,
    account INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    PRIMARY KEY (side, account)
) STRICT, WITHOUT ROWID;

-- Money that came in; applied once, in the transaction of its transfer.
CREATE TABLE deposits (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account INTEGER NOT NULL REFERENCES accounts (id),
    amount INTEGER NOT NULL CHECK (amount > 0),
    created_at INTEGER NOT NULL,
    transfer INTEGER REFERENCES transfers (id)
) STRICT;
CREATE INDEX deposits_waiting ON deposits (id) WHERE transfer IS NULL;
"];

/// Brings the tables to this build's version.
pub(super) fn migrate(db: &mut Connection) -> Result<(), StoreError> {
    // Taken before reading the version, so that two processes cannot migrate at once.
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = i64::try_from(MIGRATIONS.len()).expect("few migrations");
    if found > known {
        return Err(StoreError::TooNew { found, known });
    }
    let done = usize::try_from(found).map_err(|_| StoreError::TooNew { found, known })?;
    for script in &MIGRATIONS[done..] {
        tx.execute_batch(script)?;
    }
    tx.pragma_update(None, "user_version", known)?;
    tx.commit()?;
    Ok(())
}
