//! Accounts, keys, the ledger and receipts, behind the one trait [`Store`].
//!
//! A store decides nothing: the core numbers and balances every transfer, the store makes batches of
//! them durable and refuses what would break a constraint. Callers: the threads that write (`writer`,
//! `applier`), the watch over what other processes change (`watch`) and the command line.
//!
//! A transfer is durable when it is in the `log`, and in the database a few milliseconds later.
//!
//! `sqlite` is the one backend so far. Another is another file that implements the trait.

pub(crate) mod applier;
mod error;
mod folder;
mod log;
pub(crate) mod presence;
mod rows;
pub(crate) mod sqlite;
pub(crate) mod watch;
pub(crate) mod writer;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use cereus_core::ids::{AccountId, Epoch, MachineId, RequestId};
use cereus_core::money::MicroUsd;

pub use error::{Disagreement, StoreError};
pub use folder::{FolderLock, is_served};
pub(crate) use folder::{make_folder, private_file};
use log::{BatchNo, Log};
pub use rows::{
    AccountRow, ApiKey, Audit, AuditExtent, Changes, DepositId, DepositRow, DepositState, Entry,
    FinishedRequest, KeyHash, KeyRow, LoggedReceipt, OpenHold, RequestRow, RequestState,
    RevokedKey, StoredReceipt, WaitingDeposit,
};
pub use sqlite::FILE_NAME;
pub use watch::ask_coordinator;

/// Days for which a receipt is kept.
pub const RECEIPT_DAYS_KEPT: i64 = 90;
/// Receipts kept, about a kilobyte each: the oldest go first.
pub const RECEIPTS_KEPT_MAX: i64 = 1_000_000;

/// What a backend can do. Object safe, so that callers name no backend.
pub trait Store: std::fmt::Debug + Send {
    /// The account of that name, made if there is none.
    fn ensure_account(&mut self, name: &str) -> Result<AccountId, StoreError>;

    fn account(&self, name: &str) -> Result<Option<AccountId>, StoreError>;

    /// Every account with its money, by name.
    fn accounts(&self) -> Result<Vec<AccountRow>, StoreError>;

    /// Makes a key for the account called `account`, and the account if it is new.
    fn create_key(&mut self, account: &str) -> Result<ApiKey, StoreError>;

    /// Every key, oldest first, revoked ones included.
    fn keys(&self) -> Result<Vec<KeyRow>, StoreError>;

    /// Ends a key for good. Once more is no error.
    fn revoke_key(&mut self, id: &str) -> Result<RevokedKey, StoreError>;

    /// Records money that came in. A coordinator applies it, now or at its next start.
    fn deposit(&mut self, account: AccountId, amount: MicroUsd) -> Result<DepositId, StoreError>;

    /// Records the counter-entry of a deposit, once.
    fn reverse_deposit(&mut self, id: DepositId) -> Result<DepositRow, StoreError>;

    fn find_deposit(&self, id: DepositId) -> Result<DepositRow, StoreError>;

    /// Moves what a machine earned for `from`, and was not moved before, to `to`. The caller has seen
    /// the proof of its owner.
    fn claim_earned(
        &mut self,
        machine: MachineId,
        from: AccountId,
        to: AccountId,
    ) -> Result<MicroUsd, StoreError>;

    /// The newest deposits first, of one account or of all.
    fn deposits(
        &self,
        account: Option<AccountId>,
        count_max: u32,
    ) -> Result<Vec<DepositRow>, StoreError>;

    /// Makes all of `entries` durable, or none. With them the log is written here as far as `applied`, if
    /// that is given.
    fn write(&mut self, entries: &[Entry], applied: Option<BatchNo>) -> Result<(), StoreError>;

    /// The same for entries that no log has.
    fn commit(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        self.write(entries, None)
    }

    /// The newest batch of the log that is written here.
    fn applied(&self) -> Result<BatchNo, StoreError>;

    /// The number of the run that begins now. No other has it, on whatever machine.
    fn begin_epoch(&mut self) -> Result<Epoch, StoreError>;

    /// Holds that were neither settled nor voided.
    fn open_holds(&self) -> Result<Vec<OpenHold>, StoreError>;

    /// Do balances and ledger agree? Looks at what was written since the last audit that found them
    /// in agreement, or at everything.
    fn audit(&mut self, extent: AuditExtent) -> Result<Audit, StoreError>;

    /// Everything that a coordinator must know before it serves, and from where [`Self::changes`]
    /// goes on.
    fn everything(&mut self) -> Result<Changes, StoreError>;

    /// What was added or changed after the change numbered `after`, by whomever.
    fn changes(&mut self, after: u64) -> Result<Changes, StoreError>;

    /// The receipt of a request, while it is kept: for [`RECEIPT_DAYS_KEPT`], and among the newest
    /// [`RECEIPTS_KEPT_MAX`].
    fn receipt(&self, request: RequestId) -> Result<Option<StoredReceipt>, StoreError>;

    /// The newest requests that money was held for, of one account or of all.
    fn requests(
        &self,
        account: Option<AccountId>,
        count_max: u32,
    ) -> Result<Vec<RequestRow>, StoreError>;
}

/// Opens (or makes) the store of a data folder, with all that is durable in it: what the last
/// coordinator had no time to write, or what the one that runs is about to.
pub fn open(folder: &Path) -> Result<Box<dyn Store>, StoreError> {
    match FolderLock::take(folder) {
        Ok(lock) => open_locked(folder, &lock),
        Err(StoreError::InUse { .. }) => {
            watch::settle_quietly(folder);
            open_beside(folder)
        }
        Err(error) => Err(error),
    }
}

/// The same for who holds the folder's lock.
pub(crate) fn open_locked(folder: &Path, _lock: &FolderLock) -> Result<Box<dyn Store>, StoreError> {
    let unreadable = |source| StoreError::Log {
        path: folder.to_owned(),
        source,
    };
    // First: beside a log that is damaged even the tables are left as they are.
    let logged = Log::read(folder).map_err(unreadable)?;
    let mut store = sqlite::SqliteStore::open(folder)?;
    let left = logged.after(store.applied()?).map_err(unreadable)?;
    if !left.transfers.is_empty() {
        let count = left.transfers.len();
        let transfers = left.transfers.into_iter().map(Entry::Transfer);
        let receipts = left.receipts.into_iter().map(Entry::Logged);
        let entries: Vec<Entry> = transfers.chain(receipts).collect();
        store.write(&entries, Some(left.up_to))?;
        tracing::info!(
            count,
            "transfers that the last coordinator logged are written"
        );
    }
    Ok(Box::new(store))
}

/// The database as it is: another connection beside one that is up to date.
pub(crate) fn open_beside(folder: &Path) -> Result<Box<dyn Store>, StoreError> {
    Ok(Box::new(sqlite::SqliteStore::open(folder)?))
}

/// Seconds since 1970 by the system's clock: for what people read, never for decisions.
pub(crate) fn unix_now_s() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
