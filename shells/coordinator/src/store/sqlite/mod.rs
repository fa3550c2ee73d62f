//! The store in one SQLite file: its write-ahead log lets others read while one writes.

mod accounts;
mod audit;
mod changes;
mod claims;
mod deposits;
mod ledger;
mod receipts;
mod schema;

use std::path::Path;
use std::time::Duration;

use cereus_core::ids::{AccountId, Epoch, MachineId, RequestId};
use cereus_core::money::MicroUsd;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use super::folder::unwritable;
use super::log::BatchNo;
use super::rows::{
    AccountRow, ApiKey, Audit, AuditExtent, Changes, DepositId, DepositRow, Entry, KeyRow,
    LoggedReceipt, OpenHold, RequestRow, RevokedKey, StoredReceipt,
};
use super::{Store, StoreError, make_folder, private_file, unix_now_s, watch};

/// The database inside the data folder.
pub const FILE_NAME: &str = "cereus.sqlite";
/// How long a statement waits for another process (the command line) to finish its own.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// More than there are: none is compiled twice.
const STATEMENTS_KEPT: usize = 64;

#[derive(Debug)]
pub(crate) struct SqliteStore {
    db: Connection,
    /// Where a coordinator is told that something changed.
    folder: std::path::PathBuf,
}

impl SqliteStore {
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreError> {
        make_folder(folder)?;
        let path = folder.join(FILE_NAME);
        // SQLite's own message for an unwritable folder says neither which nor why; and its log and
        // index take the permissions that the file has.
        private_file(&path).map_err(|source| unwritable(folder, source))?;
        // Where the folder was there before the file, it is ours from now on.
        make_folder(folder)?;
        let db = Self::connect(&path).map_err(|error| match error {
            StoreError::Sqlite(error) if is_corruption(&error) => StoreError::Corrupt {
                path: path.clone(),
                detail: error.to_string(),
            },
            other => other,
        })?;
        Ok(Self {
            db,
            folder: folder.to_owned(),
        })
    }

    fn connect(path: &Path) -> Result<Connection, StoreError> {
        let mut db = Connection::open(path)?;
        db.busy_timeout(BUSY_WAIT)?;
        db.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        // Two processes that write at once wait for each other at the begin, not in the middle.
        db.set_transaction_behavior(TransactionBehavior::Immediate);
        db.pragma_update(None, "foreign_keys", "OFF")?;
        schema::migrate(&mut db)?;
        db.pragma_update(None, "foreign_keys", "ON")?;
        Ok(db)
    }

    #[cfg(test)]
    pub(crate) fn wait_while_busy(&self, wait: Duration) {
        self.db.busy_timeout(wait).unwrap();
    }

    /// After a commit of something that a running coordinator should take over now.
    fn tell_coordinator(&self) {
        watch::ask_quietly(&self.folder);
    }
}

impl Store for SqliteStore {
    fn ensure_account(&mut self, name: &str) -> Result<AccountId, StoreError> {
        let id = accounts::ensure(&self.db, name)?;
        self.tell_coordinator();
        Ok(id)
    }

    fn account(&self, name: &str) -> Result<Option<AccountId>, StoreError> {
        accounts::find(&self.db, name)
    }

    fn accounts(&self) -> Result<Vec<AccountRow>, StoreError> {
        accounts::list(&self.db)
    }

    fn create_key(&mut self, account: &str) -> Result<ApiKey, StoreError> {
        let key = accounts::create_key(&mut self.db, account)?;
        self.tell_coordinator();
        Ok(key)
    }

    fn keys(&self) -> Result<Vec<KeyRow>, StoreError> {
        accounts::keys(&self.db)
    }

    fn revoke_key(&mut self, id: &str) -> Result<RevokedKey, StoreError> {
        let key = accounts::revoke_key(&mut self.db, id)?;
        self.tell_coordinator();
        Ok(key)
    }

    fn deposit(&mut self, account: AccountId, amount: MicroUsd) -> Result<DepositId, StoreError> {
        let id = deposits::record(&self.db, account, amount)?;
        self.tell_coordinator();
        Ok(id)
    }

    fn reverse_deposit(&mut self, id: DepositId) -> Result<DepositRow, StoreError> {
        let made = deposits::reverse(&mut self.db, id)?;
        self.tell_coordinator();
        deposits::find(&self.db, made)
    }

    fn find_deposit(&self, id: DepositId) -> Result<DepositRow, StoreError> {
        deposits::find(&self.db, id)
    }

    fn claim_earned(
        &mut self,
        machine: MachineId,
        from: AccountId,
        to: AccountId,
    ) -> Result<MicroUsd, StoreError> {
        claims::move_earned(&mut self.db, machine, from, to)
    }

    fn deposits(
        &self,
        account: Option<AccountId>,
        count_max: u32,
    ) -> Result<Vec<DepositRow>, StoreError> {
        deposits::list(&self.db, account, count_max)
    }

    fn write(&mut self, entries: &[Entry], applied: Option<BatchNo>) -> Result<(), StoreError> {
        let tx = self.db.transaction()?;
        let mut has_receipts = false;
        let mut changed = ledger::Changed::default();
        for entry in entries {
            match entry {
                Entry::Receipt(finished) => {
                    receipts::keep(&tx, &LoggedReceipt::of(finished))?;
                    has_receipts = true;
                }
                Entry::Logged(receipt) => {
                    receipts::keep(&tx, receipt)?;
                    has_receipts = true;
                }
                Entry::Refused { deposit, reason } => deposits::refuse(&tx, *deposit, reason)?,
                Entry::Transfer(transfer) => ledger::write(&tx, transfer, &mut changed)?,
            }
        }
        changed.write(&tx)?;
        if has_receipts {
            receipts::forget_oldest(&tx)?;
        }
        if let Some(batch) = applied {
            ledger::applied_to(&tx, batch)?;
        }
        tx.commit()?;
        Ok(())
    }

    fn applied(&self) -> Result<BatchNo, StoreError> {
        ledger::applied(&self.db)
    }

    fn begin_epoch(&mut self) -> Result<Epoch, StoreError> {
        self.db.execute(
            "INSERT INTO epochs (began_unix_s) VALUES (?)",
            [unix_now_s()],
        )?;
        let number = u32::try_from(self.db.last_insert_rowid()).ok();
        let epoch = number.map(Epoch).filter(|epoch| *epoch <= Epoch::MAX);
        epoch.ok_or_else(|| {
            StoreError::Request("this store has seen too many starts to number another".to_owned())
        })
    }

    fn open_holds(&self) -> Result<Vec<OpenHold>, StoreError> {
        ledger::open_holds(&self.db)
    }

    fn audit(&mut self, extent: AuditExtent) -> Result<Audit, StoreError> {
        audit::run(&mut self.db, extent, &self.folder.join(FILE_NAME))
    }

    fn everything(&mut self) -> Result<Changes, StoreError> {
        changes::everything(&mut self.db)
    }

    fn changes(&mut self, after: u64) -> Result<Changes, StoreError> {
        changes::since(&mut self.db, after)
    }

    fn receipt(&self, request: RequestId) -> Result<Option<StoredReceipt>, StoreError> {
        receipts::find(&self.db, request)
    }

    fn requests(
        &self,
        account: Option<AccountId>,
        count_max: u32,
    ) -> Result<Vec<RequestRow>, StoreError> {
        receipts::requests(&self.db, account, count_max)
    }
}

fn is_corruption(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// SQLite's integers are signed; ids come from its own counter.
fn row_id(account: AccountId) -> i64 {
    i64::try_from(account.0).expect("account ids come from SQLite's row counter")
}

fn account_id(row: i64) -> AccountId {
    AccountId(u64::try_from(row).expect("SQLite's row counter starts at 1"))
}

fn request_id(bytes: [u8; 16]) -> RequestId {
    RequestId(u128::from_be_bytes(bytes))
}

#[cfg(test)]
pub(crate) mod tests;
