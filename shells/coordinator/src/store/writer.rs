//! How entries become durable: transfers by the log at once, everything by the database a moment later.
//!
//! A disk that syncs faster than a thread wakes up is synced where the coordinator's loop stands. Any
//! other gets a thread: whatever has queued up while one batch was being synced becomes the next one, so
//! a slow disk makes batches longer instead of queues.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::applier::{self, Applier, WAITING_MAX};
use super::log::Log;
use super::{Entry, LoggedReceipt, Store, StoreError};

/// Entries in one batch.
const ENTRIES_MAX: usize = 4_096;
/// Batches that may wait for the disk before the coordinator's loop does.
const JOBS_MAX: usize = 1_024;
/// A sync that takes longer is not waited for by the coordinator's loop.
const IN_PLACE_MAX: Duration = Duration::from_micros(100);
/// Syncs in a row that were fast before the loop waits for them again.
const FAST_AGAIN: usize = 64;
/// How long the loop waits for a database that is far behind before it looks again.
const BEHIND_WAIT: Duration = Duration::from_millis(1);

enum Job {
    /// Make these durable; `up_to` is the number of the last transfer so far.
    Commit { entries: Vec<Entry>, up_to: u64 },
    /// End once everything before this is written.
    Stop,
}

/// How far the ledger is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Durable {
    UpTo(u64),
    /// The disk refused; nothing more will become durable.
    Failed(String),
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commit {
    /// It is durable.
    Done,
    /// [`Durable`] will tell.
    Later,
}

/// The end that the coordinator's loop writes to.
#[derive(Debug)]
pub(crate) struct Writer {
    log: Arc<Mutex<Log>>,
    applier: Applier,
    jobs: mpsc::Sender<Job>,
    pace: Arc<Pace>,
    is_aside: bool,
}

/// How the thread finds the disk.
#[derive(Debug, Default)]
struct Pace {
    /// Batches that it has not made durable.
    waiting: AtomicUsize,
    fast_in_a_row: AtomicUsize,
}

pub(crate) struct Started {
    pub(crate) writer: Writer,
    pub(crate) applier: Applier,
    pub(crate) stopper: Stopper,
    pub(crate) durable: watch::Receiver<Durable>,
    pub(crate) log: Arc<Mutex<Log>>,
}

/// Ends the threads.
#[derive(Debug)]
pub(crate) struct Stopper {
    jobs: mpsc::Sender<Job>,
    applier: Applier,
    threads: [JoinHandle<()>; 2],
}

/// Starts the threads. They end, all written, with [`Stopper::stop`].
pub(crate) fn start(store: Box<dyn Store>, folder: &Path) -> Result<Started, StoreError> {
    let applied = store.applied()?;
    let log = Log::open(folder, applied).map_err(|source| StoreError::Folder {
        path: folder.to_owned(),
        source,
    })?;
    let log = Arc::new(Mutex::new(log));
    let (applier, applying) = applier::start(store, applied).map_err(StoreError::Thread)?;
    let (jobs, inbox) = mpsc::channel(JOBS_MAX);
    let (told, durable) = watch::channel(Durable::UpTo(0));
    let pace = Arc::new(Pace::default());
    let thread = Aside {
        log: Arc::clone(&log),
        applier: applier.clone(),
        pace: Arc::clone(&pace),
        inbox,
    };
    let syncing = thread::Builder::new()
        .name("cereus-log".to_owned())
        .spawn(move || thread.run(&told))
        .map_err(StoreError::Thread)?;
    Ok(Started {
        log: Arc::clone(&log),
        writer: Writer {
            log,
            applier: applier.clone(),
            jobs: jobs.clone(),
            pace,
            is_aside: false,
        },
        stopper: Stopper {
            jobs,
            applier: applier.clone(),
            threads: [syncing, applying],
        },
        applier,
        durable,
    })
}

impl Writer {
    /// Makes entries durable, in order. Waits while the disk is [`JOBS_MAX`] batches behind.
    ///
    /// # Errors
    /// Why nothing can be written any more.
    pub(crate) async fn commit(
        &mut self,
        mut entries: Vec<Entry>,
        up_to: u64,
    ) -> Result<Commit, String> {
        if self.is_aside && self.is_fast_again() {
            self.is_aside = false;
        }
        if self.is_aside {
            self.pace.waiting.fetch_add(1, Ordering::AcqRel);
            // If the thread is dead it has reported its error already, so a failed send needs no
            // other.
            let _ = self.jobs.send(Job::Commit { entries, up_to }).await;
            return Ok(Commit::Later);
        }
        let (took, mut waiting) = write(&self.log, &self.applier, &mut entries)?;
        self.is_aside = took > IN_PLACE_MAX;
        while waiting > WAITING_MAX {
            tokio::time::sleep(BEHIND_WAIT).await;
            waiting = self.applier.hand_in(&mut entries, None)?;
        }
        Ok(Commit::Done)
    }

    fn is_fast_again(&self) -> bool {
        self.pace.waiting.load(Ordering::Acquire) == 0
            && self.pace.fast_in_a_row.load(Ordering::Relaxed) >= FAST_AGAIN
    }
}

impl Stopper {
    /// What was committed before is written; what comes later is not. Waits for the disk.
    pub(crate) fn stop(self) {
        let _ = self.jobs.blocking_send(Job::Stop);
        let [syncing, applying] = self.threads;
        let _ = syncing.join();
        self.applier.stop();
        let _ = applying.join();
    }
}

struct Aside {
    log: Arc<Mutex<Log>>,
    applier: Applier,
    pace: Arc<Pace>,
    inbox: mpsc::Receiver<Job>,
}

impl Aside {
    fn run(mut self, told: &watch::Sender<Durable>) {
        if let Err(reason) = self.serve(told) {
            tracing::error!(reason, "the log of transfers cannot be written any more");
            told.send_replace(Durable::Failed(reason));
        }
    }

    fn serve(&mut self, told: &watch::Sender<Durable>) -> Result<(), String> {
        let mut is_stopping = false;
        while !is_stopping {
            let Some(Job::Commit {
                mut entries,
                mut up_to,
            }) = self.inbox.blocking_recv()
            else {
                return Ok(());
            };
            let mut jobs = 1;
            while entries.len() < ENTRIES_MAX {
                match self.inbox.try_recv() {
                    Ok(Job::Commit {
                        entries: more,
                        up_to: later,
                    }) => {
                        entries.extend(more);
                        up_to = later;
                        jobs += 1;
                    }
                    Ok(Job::Stop) => {
                        is_stopping = true;
                        break;
                    }
                    Err(_) => break,
                }
            }
            let (took, mut waiting) = write(&self.log, &self.applier, &mut entries)?;
            while waiting > WAITING_MAX {
                thread::sleep(BEHIND_WAIT);
                waiting = self.applier.hand_in(&mut entries, None)?;
            }
            let fast = &self.pace.fast_in_a_row;
            let is_fast = took <= IN_PLACE_MAX;
            let count = if is_fast {
                fast.load(Ordering::Relaxed) + 1
            } else {
                0
            };
            fast.store(count, Ordering::Relaxed);
            // The loop takes over writing only when nothing is waiting here. So the count falls
            // after the news: the loop has then heard of all that came before.
            told.send_replace(Durable::UpTo(up_to));
            self.pace.waiting.fetch_sub(jobs, Ordering::AcqRel);
        }
        Ok(())
    }
}

/// The transfers to the log, everything to the database. How long the former took, and how many entries
/// wait for the latter.
fn write(
    log: &Mutex<Log>,
    applier: &Applier,
    entries: &mut Vec<Entry>,
) -> Result<(Duration, usize), String> {
    let transfers = entries.iter().filter_map(|entry| match entry {
        Entry::Transfer(transfer) => Some(transfer),
        Entry::Logged(_) | Entry::Receipt(_) | Entry::Refused { .. } => None,
    });
    let receipts = entries.iter().filter_map(|entry| match entry {
        Entry::Logged(receipt) => Some(receipt.clone()),
        Entry::Receipt(finished) => Some(LoggedReceipt::of(finished)),
        Entry::Refused { .. } | Entry::Transfer(_) => None,
    });
    let mut transfers = transfers.peekable();
    let began = Instant::now();
    let batch = if transfers.peek().is_some() {
        let mut log = log.lock().expect("no holder of this lock panics");
        let batch = log.append(transfers, receipts, applier.applied());
        Some(batch.map_err(|error| error.to_string())?)
    } else {
        None
    };
    let took = began.elapsed();
    Ok((took, applier.hand_in(entries, batch)?))
}

#[cfg(test)]
mod tests {
    use cereus_core::effect::{Cause, LedgerAccount, Postings, Transfer, TransferKind};
    use cereus_core::ids::{AccountId, RequestId};
    use cereus_core::money::MicroUsd;

    use super::super::{AuditExtent, open};
    use super::*;

    fn hold(account: AccountId, number: u64) -> Entry {
        Entry::Transfer(Transfer {
            seq: number,
            kind: TransferKind::Hold,
            cause: Cause::Request(RequestId(u128::from(number))),
            reference: None,
            postings: Postings::listed(&[
                (LedgerAccount::Consumer(account), MicroUsd(-3)),
                (LedgerAccount::Held(account), MicroUsd(3)),
            ]),
        })
    }

    /// Commits in place, then aside, then in place again, and says what the database has.
    #[tokio::test(flavor = "multi_thread")]
    async fn transfers_are_in_the_database_however_the_disk_was_found() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path()).unwrap();
        let account = store.ensure_account("ada").unwrap();
        let Started {
            mut writer,
            applier,
            stopper,
            mut durable,
            log: _,
        } = start(store, folder.path()).unwrap();
        for number in 1..=600 {
            if number == 200 {
                writer.is_aside = true;
            }
            let entries = vec![hold(account, number)];
            match writer.commit(entries, number).await.unwrap() {
                Commit::Done => {}
                Commit::Later => {
                    let is_done = |told: &Durable| *told == Durable::UpTo(number);
                    durable.wait_for(is_done).await.unwrap();
                }
            }
        }
        applier.settle();
        let mut other = super::super::sqlite::SqliteStore::open(folder.path()).unwrap();
        assert_eq!(other.open_holds().unwrap().len(), 600);
        tokio::task::spawn_blocking(|| stopper.stop())
            .await
            .unwrap();
        assert_eq!(
            other
                .audit(AuditExtent::Everything)
                .unwrap()
                .open_hold_count,
            600
        );
    }

    #[tokio::test]
    async fn what_only_the_log_has_is_in_the_database_of_whoever_opens_it_next() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path()).unwrap();
        let account = store.ensure_account("ada").unwrap();
        let applied = store.applied().unwrap();
        let mut log = Log::open(folder.path(), applied).unwrap();
        for number in 1..=2 {
            let Entry::Transfer(transfer) = hold(account, number) else {
                unreachable!()
            };
            log.append([transfer].iter(), std::iter::empty(), applied)
                .unwrap();
        }
        drop((store, log));
        for _ in 0..2 {
            let mut store = open(folder.path()).unwrap();
            assert_eq!(store.open_holds().unwrap().len(), 2);
            store.audit(AuditExtent::Everything).unwrap();
        }
    }

    #[tokio::test]
    async fn a_damaged_log_is_refused_by_whoever_opens_it_and_nothing_is_changed() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path()).unwrap();
        let account = store.ensure_account("ada").unwrap();
        let mut log = Log::open(folder.path(), store.applied().unwrap()).unwrap();
        for number in 1..=3 {
            let Entry::Transfer(transfer) = hold(account, number) else {
                unreachable!()
            };
            log.append([transfer].iter(), std::iter::empty(), 0)
                .unwrap();
        }
        drop((store, log));
        let path = folder.path().join("transfers.0.log");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        for _ in 0..2 {
            let error = open(folder.path()).unwrap_err();
            assert!(matches!(error, StoreError::Log { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains("transfers.0.log, byte 0: "), "{text}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
        let store = super::super::open_beside(folder.path()).unwrap();
        assert!(store.open_holds().unwrap().is_empty());
    }

    /// A store that waits for a lock for a moment only, and the connection that holds it.
    fn locked(folder: &Path) -> (AccountId, Started, rusqlite::Connection) {
        let account = open(folder).unwrap().ensure_account("ada").unwrap();
        let store = super::super::sqlite::SqliteStore::open(folder).unwrap();
        store.wait_while_busy(Duration::from_millis(10));
        let started = start(Box::new(store), folder).unwrap();
        let other = rusqlite::Connection::open(folder.join(super::super::FILE_NAME)).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        (account, started, other)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_database_that_another_process_holds_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (account, mut started, other) = locked(folder.path());
        for number in 1..=3 {
            let entries = vec![hold(account, number)];
            started.writer.commit(entries, number).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(started.applier.applied(), 0);
        }
        other.execute_batch("COMMIT").unwrap();
        assert!(started.applier.settle());
        let store = super::super::open_beside(folder.path()).unwrap();
        assert_eq!(store.open_holds().unwrap().len(), 3);
        let entries = vec![hold(account, 4)];
        started.writer.commit(entries, 4).await.unwrap();
        tokio::task::spawn_blocking(|| started.stopper.stop())
            .await
            .unwrap();
        assert_eq!(store.open_holds().unwrap().len(), 4);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_database_that_stays_locked_ends_a_stop_and_the_next_start_has_it_all() {
        let folder = tempfile::tempdir().unwrap();
        let (account, mut started, other) = locked(folder.path());
        let entries = vec![hold(account, 1)];
        started.writer.commit(entries, 1).await.unwrap();
        tokio::task::spawn_blocking(|| started.stopper.stop())
            .await
            .unwrap();
        drop(other);
        assert_eq!(open(folder.path()).unwrap().open_holds().unwrap().len(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn only_a_full_queue_gives_a_locked_database_up_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let (account, mut started, _other) = locked(folder.path());
        let mut number = 0;
        let reason = loop {
            let entries = (0..4_096)
                .map(|more| hold(account, number + more))
                .collect();
            number += 4_096;
            // Where the disk is.
            started.writer.is_aside = false;
            if let Err(reason) = started.writer.commit(entries, number).await {
                break reason;
            }
            assert!(number < 1 << 20, "it never ended");
        };
        assert!(number > WAITING_MAX as u64, "{number}");
        assert!(reason.contains("is locked: another process"), "{reason}");
    }
}
