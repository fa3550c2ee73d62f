//! Accounts and their API keys. A key is shown once and kept as a hash only.

use std::fmt;

use cereus_core::ids::AccountId;
use cereus_core::link::Owners;
use orion::util::{secure_cmp, secure_rand_bytes};
use rusqlite::{OptionalExtension, params};
use secrecy::{ExposeSecret, SecretString};

use super::{Store, StoreError, unix_now_s};

const KEY_PREFIX: &str = "sk-cereus-";
const KEY_BYTES: usize = 32;
const ID_BYTES: usize = 12;
/// Characters of the secret part that a label shows at each end.
const LABEL_CHARS: usize = 4;

/// SHA-256 of a whole key, which holds 256 random bits of its own: nothing slower is needed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    #[must_use]
    pub fn of(key: &str) -> Self {
        Self(Owners::digest(key))
    }

    pub(crate) const fn bytes(&self) -> [u8; 32] {
        self.0
    }

    /// In constant time.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        secure_cmp(&self.0, &other.0).is_ok()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(..)")
    }
}

/// A key just made: the only time that its secret exists here.
#[derive(Debug)]
pub struct ApiKey {
    pub id: String,
    pub label: String,
    pub secret: SecretString,
}

/// A key as listed.
#[derive(Clone, Debug)]
pub struct KeyRow {
    pub id: String,
    pub label: String,
    pub account: AccountId,
    pub account_name: String,
    pub is_disabled: bool,
    pub(crate) hash: KeyHash,
}

impl Store {
    /// Makes a key for the account called `account`, and the account if it is new.
    pub fn create_key(&mut self, account: &str) -> Result<ApiKey, StoreError> {
        let account = self.ensure_account(account)?;
        let secret = format!("{KEY_PREFIX}{}", random_hex(KEY_BYTES));
        let key = ApiKey {
            id: format!("key_{}", random_hex(ID_BYTES)),
            label: label_of(&secret),
            secret: SecretString::from(secret),
        };
        self.db.execute(
            "INSERT INTO api_keys (id, account, hash, label, created_at) VALUES (?, ?, ?, ?, ?)",
            params![
                key.id,
                row_id(account),
                KeyHash::of(key.secret.expose_secret()).0,
                key.label,
                unix_now_s()
            ],
        )?;
        Ok(key)
    }

    pub fn keys(&self) -> Result<Vec<KeyRow>, StoreError> {
        let mut statement = self.db.prepare_cached(
            "SELECT k.id, k.label, k.account, a.name, k.disabled, k.hash
             FROM api_keys k JOIN accounts a ON a.id = k.account ORDER BY k.created_at, k.id",
        )?;
        let rows = statement.query_map([], |row| {
            let hash: Vec<u8> = row.get(5)?;
            Ok(KeyRow {
                id: row.get(0)?,
                label: row.get(1)?,
                account: account_id(row.get(2)?),
                account_name: row.get(3)?,
                is_disabled: row.get(4)?,
                hash: KeyHash::read(&hash).expect("the table checks the length"),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The account of that name, made if there is none.
    pub fn ensure_account(&mut self, name: &str) -> Result<AccountId, StoreError> {
        if name.is_empty() || name.len() > 128 {
            return Err(StoreError::Name(
                "an account's name has 1 to 128 characters".to_owned(),
            ));
        }
        self.db.execute(
            "INSERT INTO accounts (name, created_at) VALUES (?, ?) ON CONFLICT (name) DO NOTHING",
            params![name, unix_now_s()],
        )?;
        let id = self.account(name)?;
        id.ok_or_else(|| StoreError::Name(format!("the account {name} vanished")))
    }

    pub fn account(&self, name: &str) -> Result<Option<AccountId>, StoreError> {
        let id = self
            .db
            .query_row("SELECT id FROM accounts WHERE name = ?", [name], |row| {
                row.get(0)
            })
            .optional()?;
        Ok(id.map(account_id))
    }
}

/// `key_...`'s readable form: the prefix, the first and the last characters.
fn label_of(secret: &str) -> String {
    let first = &secret[..KEY_PREFIX.len() + LABEL_CHARS];
    let last = &secret[secret.len() - LABEL_CHARS..];
    format!("{first}...{last}")
}

fn random_hex(bytes: usize) -> String {
    use std::fmt::Write as _;

    let mut random = vec![0; bytes];
    secure_rand_bytes(&mut random).expect("the system gives randomness");
    random.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// SQLite's integers are signed; ids come from its own counter.
pub(super) fn row_id(account: AccountId) -> i64 {
    i64::try_from(account.0).expect("account ids come from SQLite's row counter")
}

pub(super) fn account_id(row: i64) -> AccountId {
    AccountId(u64::try_from(row).expect("SQLite's row counter starts at 1"))
}
