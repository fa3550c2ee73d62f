//! The one thread that writes to the store: group commit.
//!
//! Whatever has queued up while one transaction was being synced becomes the next one, so a slow
//! disk makes batches longer instead of queues. It does nothing else: whoever reads has a
//! connection of its own.

use std::thread::{self, JoinHandle};

use tokio::sync::{mpsc, watch};

use super::{Entry, Store, StoreError};

/// Entries in one transaction.
const ENTRIES_MAX: usize = 4_096;
/// Batches that may wait for the disk before the coordinator's loop does.
const JOBS_MAX: usize = 1_024;

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
pub(crate) fn start(mut store: Box<dyn Store>) -> std::io::Result<Started> {
    let (jobs, inbox) = mpsc::channel(JOBS_MAX);
    let (told, durable) = watch::channel(Durable::UpTo(0));
    let thread = thread::Builder::new()
        .name("cereus-store".to_owned())
        .spawn(move || {
            if let Err(error) = serve(&mut *store, inbox, &told) {
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
}

/// A line for each request that was paid for, without a word of what was said. Here, and not where
/// it ended: writing it out must not hold up the coordinator.
fn log_finished(entries: &[Entry]) {
    for entry in entries {
        let Entry::Receipt(finished) = entry else {
            continue;
        };
        let receipt = &finished.receipt;
        tracing::info!(
            request = %receipt.request,
            account = receipt.account.0,
            model = finished.model,
            machine = format_args!("{:032x}", receipt.machine.0),
            attempts = receipt.attempts,
            prompt_tokens = receipt.usage.prompt_tokens,
            completion_tokens = receipt.usage.completion_tokens,
            charged_micro_usd = receipt.charged.0,
            first_content_ms = receipt.started_at.since(receipt.arrived_at).as_millis_floor(),
            total_ms = receipt.completed_at.since(receipt.arrived_at).as_millis_floor(),
            "request finished"
        );
    }
}

fn serve(
    store: &mut dyn Store,
    mut inbox: mpsc::Receiver<Job>,
    told: &watch::Sender<Durable>,
) -> Result<(), StoreError> {
    let mut is_stopping = false;
    while !is_stopping {
        let Some(Job::Commit {
            mut entries,
            mut up_to,
        }) = inbox.blocking_recv()
        else {
            return Ok(());
        };
        while entries.len() < ENTRIES_MAX {
            match inbox.try_recv() {
                Ok(Job::Commit {
                    entries: more,
                    up_to: later,
                }) => {
                    entries.extend(more);
                    up_to = later;
                }
                Ok(Job::Stop) => {
                    is_stopping = true;
                    break;
                }
                Err(_) => break,
            }
        }
        store.commit(&entries)?;
        log_finished(&entries);
        // A batch without a transfer is no news to the coordinator.
        told.send_if_modified(|durable| {
            let is_news = *durable != Durable::UpTo(up_to);
            *durable = Durable::UpTo(up_to);
            is_news
        });
    }
    Ok(())
}
