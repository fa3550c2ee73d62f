//! Accounts, keys and the ledger in one SQLite file.
//!
//! The store decides nothing: the core numbers and balances every transfer, the store makes batches
//! of them durable and refuses what would break a constraint. Callers: the writer thread
//! (`writer`) and the command line.

mod audit;
mod keys;
mod ledger;
mod schema;
pub(crate) mod writer;

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode};

pub use audit::{Audit, Disagreement};
pub use keys::{ApiKey, KeyHash, KeyRow};
pub use ledger::{OpenHold, WaitingDeposit};

/// The database inside the data folder.
pub const FILE_NAME: &str = "cereus.sqlite";
const LOCK_NAME: &str = "lock";
/// How long a statement waits for another process (the command line) to finish its own.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// Why the store cannot be opened or written.
#[derive(Debug)]
pub enum StoreError {
    /// The ledger contradicts itself.
    Audit(Disagreement),
    Corrupt {
        path: PathBuf,
        detail: String,
    },
    /// The data folder cannot be made or written.
    Folder {
        path: PathBuf,
        source: std::io::Error,
    },
    /// Another coordinator runs on this folder.
    InUse {
        path: PathBuf,
    },
    /// A key or account is asked for that is not there, or one is added that is.
    Name(String),
    Sqlite(rusqlite::Error),
    TooNew {
        found: i64,
        known: i64,
    },
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Audit(disagreement) => write!(
                f,
                "balances and ledger disagree: {disagreement}; restore the newest backup of \
                 {FILE_NAME}, and keep this file for an inquiry"
            ),
            Self::Corrupt { path, detail } => write!(
                f,
                "{} is not a sound SQLite database ({detail}); restore a backup, or move the file \
                 away to start with empty books",
                path.display()
            ),
            Self::Folder { path, source } => write!(
                f,
                "cannot write to the data folder {} ({source}); choose another with --data, or \
                 change its owner",
                path.display()
            ),
            Self::InUse { path } => write!(
                f,
                "another coordinator runs on {}; stop it, or choose another folder with --data",
                path.display()
            ),
            Self::Name(text) => f.write_str(text),
            Self::Sqlite(error) => write!(f, "SQLite: {error}"),
            Self::TooNew { found, known } => write!(
                f,
                "the database is of version {found}, this build knows up to {known}; run the newer \
                 build that wrote it"
            ),
        }
    }
}

impl std::error::Error for StoreError {}

/// An open store.
#[derive(Debug)]
pub struct Store {
    pub(super) db: Connection,
}

/// Held by a running coordinator: at most one for a data folder.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    pub fn take(folder: &Path) -> Result<Self, StoreError> {
        make_folder(folder)?;
        let path = folder.join(LOCK_NAME);
        let file = File::create(&path).map_err(|source| unwritable(folder, source))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse {
                path: folder.to_owned(),
            }),
            Err(TryLockError::Error(source)) => Err(unwritable(folder, source)),
        }
    }
}

impl Store {
    /// Opens (or makes) the database of a data folder and brings its tables up to date.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        make_folder(folder)?;
        let path = folder.join(FILE_NAME);
        if !path.exists() {
            // SQLite's own message for an unwritable folder says neither which nor why.
            File::create(&path).map_err(|source| unwritable(folder, source))?;
        }
        Self::open_file(&path).map_err(|error| match error {
            StoreError::Sqlite(error) if is_corruption(&error) => StoreError::Corrupt {
                path: path.clone(),
                detail: error.to_string(),
            },
            other => other,
        })
    }

    fn open_file(path: &Path) -> Result<Self, StoreError> {
        let mut db = Connection::open(path)?;
        db.busy_timeout(BUSY_WAIT)?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "foreign_keys", "ON")?;
        let verdict: String = db.pragma_query_value(None, "quick_check", |row| row.get(0))?;
        if verdict != "ok" {
            return Err(StoreError::Corrupt {
                path: path.to_owned(),
                detail: verdict,
            });
        }
        schema::migrate(&mut db)?;
        Ok(Self { db })
    }
}

fn make_folder(folder: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(folder).map_err(|source| unwritable(folder, source))
}

fn unwritable(folder: &Path, source: std::io::Error) -> StoreError {
    StoreError::Folder {
        path: folder.to_owned(),
        source,
    }
}

fn is_corruption(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// Seconds since 1970 by the system's clock: for the columns that people read, never for decisions.
pub(crate) fn unix_now_s() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
