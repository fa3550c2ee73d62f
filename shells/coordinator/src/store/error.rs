//! What can be wrong with a store, in sentences that say what to do.

use std::path::PathBuf;

use rusqlite::ErrorCode;
use thiserror::Error;

use super::rows::DepositId;
use super::sqlite::FILE_NAME;

/// Why the store cannot be opened, read or written.
#[derive(Debug, Error)]
pub enum StoreError {
    #[error(
        "balances and ledger disagree: {0}; restore the newest backup of {FILE_NAME}, and keep this \
         file for an inquiry"
    )]
    Audit(Disagreement),
    #[error(
        "{} is not a sound SQLite database ({detail}); restore a backup, or move the file away to \
         start with empty books", path.display()
    )]
    Corrupt { path: PathBuf, detail: String },
    #[error(
        "cannot write to the data folder {} ({source}); choose another with --data, or change its \
         owner", path.display()
    )]
    Folder {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "another coordinator runs on {}; stop it, or choose another folder with --data",
        path.display()
    )]
    InUse { path: PathBuf },
    #[error(
        "the log of transfers in {} cannot be read ({source}); nothing was changed: keep the folder for \
         an inquiry, and restore a backup of the whole folder", path.display()
    )]
    Log {
        path: PathBuf,
        source: std::io::Error,
    },
    /// What was asked for is not there, or cannot be: a sentence for the person who asked.
    #[error("{0}")]
    Request(String),
    #[error("there is no credit {}", .0.0)]
    NoCredit(DepositId),
    #[error("there is no key {0}")]
    NoKey(String),
    #[error("SQLite: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the system gives no thread: {0}")]
    Thread(std::io::Error),
    #[error(
        "the database is of version {found}, this build knows up to {known}; run the newer build \
         that wrote it"
    )]
    TooNew { found: usize, known: usize },
}

impl StoreError {
    /// Another process holds the database; what was tried can be tried again.
    pub(super) fn is_locked(&self) -> bool {
        let Self::Sqlite(error) = self else {
            return false;
        };
        matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
        )
    }
}

/// The first contradiction that an audit found.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Disagreement {
    #[error("the balance of {side} {account} is not the sum of its postings")]
    Balance { side: String, account: i64 },
    #[error("what is held for account {account} is not the sum of its open holds")]
    Held { account: i64 },
    #[error("transfer {transfer} ends a hold never made")]
    NoHold { transfer: i64 },
    #[error("the postings of transfer {transfer} do not sum to zero")]
    Unbalanced { transfer: i64 },
}
