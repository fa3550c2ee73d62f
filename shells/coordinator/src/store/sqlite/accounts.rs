//! Accounts and their API keys. A key is shown once and kept as a hash only.

use cereus_core::ids::AccountId;
use cereus_core::money::MicroUsd;
use orion::util::secure_rand_bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};
use secrecy::{ExposeSecret, SecretString};

use super::super::rows::{AccountRow, ApiKey, KeyHash, KeyRow};
use super::super::{StoreError, unix_now_s};
use super::{account_id, row_id};

const ID_BYTES: usize = 12;
/// Characters of the secret part that a label shows at each end.
const LABEL_CHARS: usize = 4;
const NAME_CHARS_MAX: usize = 128;

const KEY_COLUMNS: &str = "k.id, k.label, k.account, a.name, k.created_at, k.disabled, k.hash
    FROM api_keys k JOIN accounts a ON a.id = k.account";

pub(super) fn ensure(db: &Connection, name: &str) -> Result<AccountId, StoreError> {
    let is_fit =
        (1..=NAME_CHARS_MAX).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    if !is_fit {
        return Err(StoreError::Request(format!(
            "an account's name has 1 to {NAME_CHARS_MAX} characters, none of them for control"
        )));
    }
    if let Some(id) = find(db, name)? {
        return Ok(id);
    }
    db.execute(
        "INSERT INTO accounts (name, created_at) VALUES (?, ?) ON CONFLICT (name) DO NOTHING",
        params![name, unix_now_s()],
    )?;
    let id = find(db, name)?;
    id.ok_or_else(|| StoreError::Request(format!("the account {name} vanished")))
}

pub(super) fn find(db: &Connection, name: &str) -> Result<Option<AccountId>, StoreError> {
    let id = db
        .query_row("SELECT id FROM accounts WHERE name = ?", [name], |row| {
            row.get(0)
        })
        .optional()?;
    Ok(id.map(account_id))
}

pub(super) fn list(db: &Connection) -> Result<Vec<AccountRow>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT a.id, a.name, a.created_at,
             coalesce((SELECT amount FROM balances WHERE side = 'consumer' AND account = a.id), 0),
             coalesce((SELECT amount FROM balances WHERE side = 'held' AND account = a.id), 0),
             coalesce((SELECT amount FROM balances WHERE side = 'provider' AND account = a.id), 0),
             (SELECT count(*) FROM api_keys WHERE account = a.id AND disabled = 0)
         FROM accounts a ORDER BY a.name",
    )?;
    let rows = statement.query_map([], |row| {
        Ok(AccountRow {
            id: account_id(row.get(0)?),
            name: row.get(1)?,
            created_unix_s: row.get(2)?,
            balance: MicroUsd(row.get(3)?),
            held: MicroUsd(row.get(4)?),
            earned: MicroUsd(row.get(5)?),
            key_count: row.get(6)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn create_key(db: &mut Connection, account: &str) -> Result<ApiKey, StoreError> {
    let tx = db.transaction()?;
    let account = ensure(&tx, account)?;
    let secret = format!("{}{}", ApiKey::PREFIX, random_hex(ApiKey::SECRET_BYTES));
    let key = ApiKey {
        id: format!("key_{}", random_hex(ID_BYTES)),
        label: label_of(&secret),
        secret: SecretString::from(secret),
    };
    tx.execute(
        "INSERT INTO api_keys (id, account, hash, label, created_at) VALUES (?, ?, ?, ?, ?)",
        params![
            key.id,
            row_id(account),
            KeyHash::of(key.secret.expose_secret()).bytes(),
            key.label,
            unix_now_s()
        ],
    )?;
    tx.commit()?;
    Ok(key)
}

pub(super) fn keys(db: &Connection) -> Result<Vec<KeyRow>, StoreError> {
    let sql = format!("SELECT {KEY_COLUMNS} ORDER BY k.created_at, k.rowid");
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map([], read_key)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn key_of_row(db: &Connection, rowid: i64) -> Result<Option<KeyRow>, StoreError> {
    let sql = format!("SELECT {KEY_COLUMNS} WHERE k.rowid = ?");
    let mut statement = db.prepare_cached(&sql)?;
    Ok(statement.query_row([rowid], read_key).optional()?)
}

pub(super) fn revoke_key(db: &mut Connection, id: &str) -> Result<KeyRow, StoreError> {
    let tx = db.transaction()?;
    tx.execute(
        "UPDATE api_keys SET disabled = 1 WHERE id = ? AND disabled = 0",
        [id],
    )?;
    let sql = format!("SELECT {KEY_COLUMNS} WHERE k.id = ?");
    let key = tx.query_row(&sql, [id], read_key).optional()?;
    let key = key.ok_or_else(|| StoreError::NoKey(id.to_owned()))?;
    tx.commit()?;
    Ok(key)
}

fn read_key(row: &Row<'_>) -> rusqlite::Result<KeyRow> {
    let hash: Vec<u8> = row.get(6)?;
    Ok(KeyRow {
        id: row.get(0)?,
        label: row.get(1)?,
        account: account_id(row.get(2)?),
        account_name: row.get(3)?,
        created_unix_s: row.get(4)?,
        is_revoked: row.get(5)?,
        hash: KeyHash::read(&hash).expect("the table checks the length"),
    })
}

/// A key's readable form: the prefix, the first and the last characters.
fn label_of(secret: &str) -> String {
    let first = &secret[..ApiKey::PREFIX.len() + LABEL_CHARS];
    let last = &secret[secret.len() - LABEL_CHARS..];
    format!("{first}...{last}")
}

fn random_hex(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    secure_rand_bytes(&mut random).expect("the system gives randomness");
    hex::encode(random)
}
