//! Accounts and their API keys. A key is shown once and kept as a hash only.

use cereus_core::ids::AccountId;
use cereus_core::money::MicroUsd;
use orion::util::secure_rand_bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};
use secrecy::{ExposeSecret, SecretString};

use super::super::rows::{AccountRow, ApiKey, KeyHash, KeyRow, RevokedKey};
use super::super::{StoreError, unix_now_s};
use super::{account_id, row_id};

const ID_BYTES: usize = 12;
/// Characters of the secret part that a label shows at each end.
const LABEL_CHARS: usize = 4;
const NAME_CHARS_MAX: usize = 128;

const KEY_COLUMNS: &str = "k.id, k.label, k.account, a.name, k.created_at, k.disabled, k.hash
    FROM api_keys k JOIN accounts a ON a.id = k.account";

pub(super) fn ensure(db: &Connection, name: &str) -> Result<AccountId, StoreError> {
    if let Some(id) = find(db, name)? {
        return Ok(id);
    }
    if !is_name(name) {
        return Err(StoreError::Request(format!(
            "an account's name has 1 to {NAME_CHARS_MAX} characters that can be seen, and between \
             them single spaces"
        )));
    }
    db.execute(
        "INSERT INTO accounts (name, created_at) VALUES (?, ?) ON CONFLICT (name) DO NOTHING",
        params![name, unix_now_s()],
    )?;
    let id = find(db, name)?;
    id.ok_or_else(|| StoreError::Request(format!("the account {name} vanished")))
}

/// Whether an account may be called so: two names that look alike would be one to whoever gives
/// money to an account.
fn is_name(name: &str) -> bool {
    let is_blank = |char: char| char.is_whitespace() && char != ' ';
    let has_odd =
        name.contains(|char: char| is_blank(char) || char.is_control() || is_unseen(char));
    (1..=NAME_CHARS_MAX).contains(&name.chars().count())
        && name.trim() == name
        && !name.contains("  ")
        && !has_odd
}

/// Characters of the category Cf, those that Unicode says may be left out of what is shown
/// (`Default_Ignorable_Code_Point`), and the pattern of Braille without a dot.
fn is_unseen(char: char) -> bool {
    matches!(
        char,
        '\u{ad}'
            | '\u{34f}'
            | '\u{600}'..='\u{605}'
            | '\u{61c}'
            | '\u{6dd}'
            | '\u{70f}'
            | '\u{890}'..='\u{891}'
            | '\u{8e2}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{110bd}'
            | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
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

pub(super) fn revoke_key(db: &mut Connection, id: &str) -> Result<RevokedKey, StoreError> {
    let tx = db.transaction()?;
    let count = tx.execute(
        "UPDATE api_keys SET disabled = 1 WHERE id = ? AND disabled = 0",
        [id],
    )?;
    let sql = format!("SELECT {KEY_COLUMNS} WHERE k.id = ?");
    let key = tx.query_row(&sql, [id], read_key).optional()?;
    let key = key.ok_or_else(|| StoreError::NoKey(id.to_owned()))?;
    tx.commit()?;
    let was_revoked = count == 0;
    Ok(RevokedKey { key, was_revoked })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_a_name_that_no_other_looks_like_for_what_is_not_seen() {
        let longest = "a".repeat(NAME_CHARS_MAX);
        for name in [
            "ada",
            "ada lovelace",
            "\u{e5}da",
            "\u{963f}\u{8fbe}",
            &longest,
        ] {
            assert!(is_name(name), "{name:?}");
        }
        let longer = format!("{longest}a");
        for name in [
            "",
            " ",
            " ada",
            "ada ",
            "ada\n",
            "a  da",
            "a\tda",
            "a\u{a0}da",
            "a\u{2028}da",
            "a\u{1b}da",
            "a\u{7f}da",
            "a\u{200b}da",
            "\u{feff}ada",
            "a\u{202e}da",
            "a\u{ad}da",
            "a\u{2066}da",
            "a\u{e0041}da",
            "a\u{fe0f}da",
            "\u{3164}",
            &longer,
        ] {
            assert!(!is_name(name), "{name:?}");
        }
    }
}
