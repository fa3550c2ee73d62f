//! The one thread that writes to the store: group commit.
//!
//! Whatever has queued up while one transaction was being synced becomes the next one, so a slow
//! disk makes batches longer instead of queues.

use std::thread::{self, JoinHandle};

use cereus_core::ids::AccountId;
use cereus_core::money::MicroUsd;
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use super::ledger::Entry;
use super::{KeyRow, Store, StoreError, WaitingDeposit};

/// Transfers in one transaction.
const ENTRIES_MAX: usize = 4_096;
/// Batches that may wait for the disk before the coordinator's loop does.
const JOBS_MAX: usize = 1_024;

pub(crate) enum Job {
    /// Make these durable; `up_to` is the number of the last.
    Commit { entries: Vec<Entry>, up_to: u64 },
    /// What did other processes add? `None` means: nothing since the last time.
    News(oneshot::Sender<Option<News>>),
    /// End once everything before this is written.
    Stop,
}

/// What the command line added since the last look: accounts and deposits are told once.
pub(crate) struct News {
    pub(crate) accounts: Vec<(AccountId, MicroUsd)>,
    pub(crate) deposits: Vec<WaitingDeposit>,
    pub(crate) keys: Vec<KeyRow>,
}

/// How far the ledger is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Durable {
    UpTo(u64),
    /// The disk refused; nothing more will become durable.
    Failed(String),
}

#[derive(Clone, Debug)]
pub(crate) struct Writer {
    jobs: mpsc::Sender<Job>,
}

pub(crate) struct Started {
    pub(crate) writer: Writer,
    pub(crate) durable: watch::Receiver<Durable>,
    pub(crate) thread: JoinHandle<()>,
}

/// Starts the thread. It ends, all written, at [`Writer::stop`].
pub(crate) fn start(store: Store) -> std::io::Result<Started> {
    let (jobs, inbox) = mpsc::channel(JOBS_MAX);
    let (told, durable) = watch::channel(Durable::UpTo(0));
    let thread = thread::Builder::new()
        .name("cereus-store".to_owned())
        .spawn(move || {
            let mut desk = Desk {
                store,
                seen: Seen::default(),
            };
            if let Err(error) = desk.serve(inbox, &told) {
                tracing::error!(%error, "the store cannot write any more");
                told.send_replace(Durable::Failed(error.to_string()));
            }
        })?;
    Ok(Started {
        writer: Writer { jobs },
        durable,
        thread,
    })
}

impl Writer {
    /// Waits while the disk is [`JOBS_MAX`] batches behind. A dead thread has told so already.
    pub(crate) async fn commit(&self, entries: Vec<Entry>, up_to: u64) {
        let _ = self.jobs.send(Job::Commit { entries, up_to }).await;
    }

    /// What was committed before is written; what comes later is not.
    pub(crate) async fn stop(&self) {
        let _ = self.jobs.send(Job::Stop).await;
    }

    pub(crate) async fn news(&self) -> Option<News> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::News(reply)).await.ok()?;
        answer.await.ok().flatten()
    }
}

struct Desk {
    store: Store,
    seen: Seen,
}

#[derive(Default)]
struct Seen {
    /// SQLite's count of other connections' commits; `None` before the first look.
    version: Option<i64>,
    account: AccountId,
    deposit: i64,
}

impl Desk {
    fn serve(
        &mut self,
        mut inbox: mpsc::Receiver<Job>,
        told: &watch::Sender<Durable>,
    ) -> Result<(), StoreError> {
        let mut carried = None;
        while let Some(job) = carried.take().or_else(|| inbox.blocking_recv()) {
            match job {
                Job::Stop => return Ok(()),
                Job::News(reply) => {
                    let _ = reply.send(self.news()?);
                }
                Job::Commit {
                    mut entries,
                    mut up_to,
                } => {
                    while entries.len() < ENTRIES_MAX {
                        match inbox.try_recv() {
                            Ok(Job::Commit {
                                entries: more,
                                up_to: later,
                            }) => {
                                entries.extend(more);
                                up_to = later;
                            }
                            Ok(other) => {
                                carried = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.store.commit(&entries)?;
                    told.send_replace(Durable::UpTo(up_to));
                }
            }
        }
        Ok(())
    }

    fn news(&mut self) -> Result<Option<News>, StoreError> {
        let version = self.store.data_version()?;
        if self.seen.version == Some(version) {
            return Ok(None);
        }
        let news = News {
            accounts: self.store.consumer_balances(self.seen.account)?,
            deposits: self.store.waiting_deposits(self.seen.deposit)?,
            keys: self.store.keys()?,
        };
        self.seen.version = Some(version);
        self.seen.account = news
            .accounts
            .last()
            .map_or(self.seen.account, |(id, _)| *id);
        self.seen.deposit = news.deposits.last().map_or(self.seen.deposit, |it| it.id);
        Ok(Some(news))
    }
}
