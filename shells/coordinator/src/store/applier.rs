//! The one thread that writes to the database: what has gathered for a moment becomes one transaction.
//!
//! Nobody waits for it but who wants to read what it has not written (`Applier::settle`): the transfers
//! that it writes are durable already, in the log. So it can wait as well, for another process that holds
//! the database's lock. It does nothing else: whoever reads has a connection of its own.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::log::BatchNo;
use super::{Entry, FILE_NAME, Store};

/// For how long entries gather: so late is what others read in the database, at most.
const GATHERS_FOR: Duration = Duration::from_millis(20);
/// With so many entries nothing gathers any more.
const ENTRIES_MAX: usize = 4_096;
/// Entries that may wait before the coordinator's loop does.
pub(super) const WAITING_MAX: usize = 65_536;
/// Between two tries at a database that is locked, beside what SQLite itself waits.
const LOCKED_PAUSE: Duration = Duration::from_millis(10);
/// For how long [`Applier::settle`] waits: who asks has not more patience either.
const SETTLES_FOR: Duration = Duration::from_secs(5);

/// A handle on the thread that writes the log into the database.
#[derive(Clone, Debug)]
pub(crate) struct Applier {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// For the thread: there is something to do.
    work: Condvar,
    /// Wakes whoever waits for the thread: it has done something.
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    entries: Vec<Entry>,
    /// The newest batch among them, or of those before.
    given: BatchNo,
    /// Entries handed in, and those written, since the start.
    handed_in: u64,
    written: u64,
    applied: BatchNo,
    /// Somebody waits for it: nothing gathers any more.
    is_hurried: bool,
    is_stopping: bool,
    failed: Option<String>,
}

/// Starts the thread. It ends, all written, at [`Applier::stop`].
pub(super) fn start(
    mut store: Box<dyn Store>,
    applied: BatchNo,
) -> std::io::Result<(Applier, JoinHandle<()>)> {
    let applier = Applier {
        shared: Arc::new(Shared {
            state: Mutex::new(State {
                given: applied,
                applied,
                ..State::default()
            }),
            ..Shared::default()
        }),
    };
    let shared = Arc::clone(&applier.shared);
    let thread = thread::Builder::new()
        .name("cereus-store".to_owned())
        .spawn(move || {
            if let Err(reason) = shared.serve(&mut *store) {
                tracing::error!(reason, "the store cannot write any more");
                shared.state().failed = Some(reason);
                shared.done.notify_all();
            }
        })?;
    Ok((applier, thread))
}

impl Applier {
    /// Entries that may be written from now on; those among them that are transfers are in the log, the
    /// newest of them in that batch. Says how many wait, or why nothing is written any more.
    pub(super) fn hand_in(
        &self,
        entries: &mut Vec<Entry>,
        batch: Option<BatchNo>,
    ) -> Result<usize, String> {
        let mut state = self.shared.state();
        if let Some(reason) = &state.failed {
            return Err(reason.clone());
        }
        let was_idle = state.entries.is_empty();
        state.handed_in += entries.len() as u64;
        state.given = batch.unwrap_or(state.given);
        state.entries.append(entries);
        let waiting = state.entries.len();
        drop(state);
        if was_idle || waiting >= ENTRIES_MAX {
            self.shared.work.notify_one();
        }
        Ok(waiting)
    }

    /// How far the database has taken in the log.
    pub(super) fn applied(&self) -> BatchNo {
        self.shared.state().applied
    }

    /// Entries that were handed in and are not written.
    pub(crate) fn unwritten(&self) -> u64 {
        let state = self.shared.state();
        state.handed_in - state.written
    }

    /// Waits until all that was handed in so far can be read; false if that takes too long, or nothing
    /// is written any more.
    pub(crate) fn settle(&self) -> bool {
        let mut state = self.shared.state();
        let (began, until) = (Instant::now(), state.handed_in);
        while state.written < until && state.failed.is_none() {
            let Some(rest) = SETTLES_FOR.checked_sub(began.elapsed()) else {
                return false;
            };
            state.is_hurried = true;
            self.shared.work.notify_one();
            (state, _) = self.shared.done.wait_timeout(state, rest).expect(NO_PANIC);
        }
        state.written >= until
    }

    /// What was handed in before is written; what comes later is not. A database that stays locked is
    /// not waited for: the next start takes the transfers from the log.
    pub(super) fn stop(&self) {
        self.shared.state().is_stopping = true;
        self.shared.work.notify_one();
    }
}

const NO_PANIC: &str = "no holder of this lock panics";

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(NO_PANIC)
    }

    fn serve(&self, store: &mut dyn Store) -> Result<(), String> {
        let mut entries = Vec::new();
        loop {
            let batch = {
                let mut state = self.gathered();
                if state.entries.is_empty() {
                    return Ok(());
                }
                std::mem::swap(&mut entries, &mut state.entries);
                state.given
            };
            self.write(store, &entries, batch)?;
            log_finished(&entries);
            let mut state = self.state();
            state.written += entries.len() as u64;
            state.applied = batch;
            drop(state);
            self.done.notify_all();
            entries.clear();
        }
    }

    /// One transaction: after a crash no batch is there in part. While another process holds the
    /// database it is tried again, for as long as there is room for what gathers meanwhile.
    fn write(
        &self,
        store: &mut dyn Store,
        entries: &[Entry],
        batch: BatchNo,
    ) -> Result<(), String> {
        let began = Instant::now();
        let mut was_locked = false;
        loop {
            let is_stopping = self.state().is_stopping;
            match store.write(entries, Some(batch)) {
                Ok(()) => break,
                Err(error) if error.is_locked() => {}
                Err(error) => return Err(error.to_string()),
            }
            let waiting = self.state().entries.len();
            if is_stopping || waiting > WAITING_MAX {
                let (locked_s, waiting) = (began.elapsed().as_secs(), waiting + entries.len());
                return Err(format!(
                    "the database {FILE_NAME} is locked: another process has held its lock for \
                     {locked_s} s, and {waiting} entries wait; end that process"
                ));
            }
            if !was_locked {
                was_locked = true;
                tracing::warn!(
                    "another process holds the lock of the database {FILE_NAME}; what is logged \
                     waits until it lets go"
                );
            }
            thread::sleep(LOCKED_PAUSE);
        }
        if was_locked {
            let locked_s = began.elapsed().as_secs();
            tracing::warn!(
                locked_s,
                "the other process let go of the lock of the database {FILE_NAME}; it is written again"
            );
        }
        Ok(())
    }

    /// Waits for entries, and then for a moment for more. None: the thread is to end.
    fn gathered(&self) -> MutexGuard<'_, State> {
        let is_idle = |state: &mut State| state.entries.is_empty() && !state.is_stopping;
        let state = self.work.wait_while(self.state(), is_idle).expect(NO_PANIC);
        let gathers = |state: &mut State| {
            state.entries.len() < ENTRIES_MAX && !state.is_hurried && !state.is_stopping
        };
        let gathered = self.work.wait_timeout_while(state, GATHERS_FOR, gathers);
        let (mut state, _) = gathered.expect(NO_PANIC);
        state.is_hurried = false;
        state
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
            // A request that is paid for had a reply.
            status = 200,
            outcome = finished.outcome.name(),
            first_content_ms = receipt.started_at.since(receipt.arrived_at).as_millis_floor(),
            total_ms = receipt.completed_at.since(receipt.arrived_at).as_millis_floor(),
            "request finished"
        );
    }
}
