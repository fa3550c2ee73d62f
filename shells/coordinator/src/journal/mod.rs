//! The journal's files: what the core's journal writer made, written out by a thread of its own.
//!
//! A process writes segment after segment, `journal/NNNNNN.journal`; the oldest go when all together
//! are larger than the rules allow. A crash may tear off the tail of the newest, which a reader tells
//! from damage.
//!
//! The books do not depend on any of it. A disk that is full, slow or broken makes the recorder
//! rest: it counts what it does not record, and begins a new segment with a snapshot when the disk
//! may have recovered. The coordinator never waits for it.

mod files;
#[cfg(test)]
mod tests;

use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use cereus_core::config::Config;
use cereus_core::coordinator::Coordinator;
use cereus_core::effect::Effects;
use cereus_core::event::Event;
use cereus_core::ids::RequestId;
use cereus_core::journal::{CHECKPOINT_EVENTS, SegmentRules, Writer};
use cereus_core::relay::Trail;
use cereus_core::time::{Span, Tick};
use tokio::sync::mpsc;

use self::files::Files;

/// Batches on their way to the disk; a batch is at most a few hundred short records.
const BATCHES_MAX: usize = 1_024;
/// A batch goes to the thread when it has so many bytes, or after so long: waking a thread for each
/// event would cost more than recording it.
const BATCH_BYTES: usize = 32 << 10;
const BATCH_WAIT: Span = Span::millis(20);
/// How long the recorder rests after trouble with its disk.
const REST: Span = Span::secs(30);

/// How much of the disk the journal may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalSettings {
    pub rules: SegmentRules,
    /// Bytes of the disk that are left to the ledger, whatever the rules allow.
    pub disk_reserve: u64,
}

impl JournalSettings {
    #[must_use]
    pub const fn reference() -> Self {
        Self {
            rules: SegmentRules::reference(),
            disk_reserve: 256 << 20,
        }
    }
}

/// Records what the coordinator handles.
#[derive(Debug)]
pub(crate) struct Recorder {
    state: State,
    rules: SegmentRules,
    buffer: Vec<u8>,
    /// When the first byte of the buffer was written.
    buffered_at: Option<Tick>,
    work: mpsc::Sender<Work>,
    /// Raised by the thread when it could not write.
    is_broken: Arc<AtomicBool>,
    path: PathBuf,
    thread: JoinHandle<()>,
    lost_count: u64,
}

#[derive(Debug)]
enum State {
    Recording(Writer),
    Resting {
        until: Tick,
        /// The segment that comes next, and the events of the process before it.
        segment: u32,
        events: u64,
    },
}

/// What the recorder asks of the thread that writes.
enum Work {
    /// More bytes of the segment that is being written.
    Append(Vec<u8>),
    /// A new segment, which begins with these bytes.
    Begin(Vec<u8>),
}

impl Recorder {
    /// Starts the next file of the data folder.
    pub(crate) fn start(
        data: &Path,
        config: &Config,
        settings: JournalSettings,
    ) -> io::Result<Self> {
        let mut buffer = Vec::new();
        let writer =
            Writer::begin(config, checkpoint_every(), &mut buffer).map_err(io::Error::other)?;
        let mut files = Files::open(data, settings)?;
        let path = files.next_path()?;
        let is_broken = match files.begin(&[]) {
            Ok(()) => false,
            // A full disk makes the journal rest until there is room. Any other error, such as a
            // folder that cannot be written, is a mistake of the operator's and stops the start.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                tracing::error!(%error, "the journal rests; the books are not concerned");
                true
            }
            Err(error) => return Err(error),
        };
        let is_broken = Arc::new(AtomicBool::new(is_broken));
        let (work, inbox) = mpsc::channel(BATCHES_MAX);
        let thread = thread::Builder::new()
            .name("cereus-journal".to_owned())
            .spawn({
                let is_broken = Arc::clone(&is_broken);
                move || files.write_all(inbox, &is_broken)
            })?;
        Ok(Self {
            state: State::Recording(writer),
            rules: settings.rules,
            buffered_at: (!buffer.is_empty()).then_some(Tick::ZERO),
            buffer,
            work,
            is_broken,
            path,
            thread,
            lost_count: 0,
        })
    }

    /// The first file of this process.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Events that were not recorded.
    pub(crate) const fn lost_count(&self) -> u64 {
        self.lost_count
    }

    /// Before the step, so that an event on which the core stops for good is in the journal too.
    pub(crate) fn event(&mut self, now: Tick, event: &Event<'_>) {
        match &mut self.state {
            State::Recording(writer) => {
                self.buffered_at.get_or_insert(now);
                if let Err(error) = writer.event(now, event, &mut self.buffer) {
                    // The inventory of a provider is bounded far below a record's limit.
                    tracing::error!(%error, "an event did not fit the journal");
                }
            }
            State::Resting { events, .. } => {
                *events += 1;
                self.lost_count += 1;
            }
        }
    }

    /// What the relay of a request that has ended was told.
    pub(crate) fn trail(&mut self, now: Tick, request: RequestId, trail: &Trail) {
        if let State::Recording(writer) = &mut self.state {
            self.buffered_at.get_or_insert(now);
            if let Err(error) = writer.trail(request, trail, &mut self.buffer) {
                // A trail is bounded far below a record's limit.
                tracing::error!(%error, "a trail did not fit the journal");
            }
        }
    }

    pub(crate) fn effects(&mut self, effects: &Effects, from: usize) {
        if let State::Recording(writer) = &mut self.state {
            writer.effects(effects, from);
        }
    }

    /// When what is buffered goes to the thread at the latest.
    pub(crate) fn next_wake(&self) -> Option<Tick> {
        self.buffered_at.map(|at| at + BATCH_WAIT)
    }

    /// Nothing more will be recorded: what is buffered goes to the thread.
    pub(crate) fn give_up(&mut self, now: Tick) {
        self.append(now);
    }

    /// The end of a turn: a checkpoint if one is due, what has gathered to the thread, and the next
    /// segment when this one is full.
    pub(crate) fn flush(&mut self, now: Tick, core: &Coordinator) {
        if self.is_broken.swap(false, Ordering::AcqRel) {
            self.rest(now);
        }
        match &mut self.state {
            State::Recording(writer) => {
                if writer.is_checkpoint_due() {
                    let is_due = writer.is_state_due(core.weight());
                    writer.checkpoint(is_due.then(|| core.digest()), &mut self.buffer);
                }
                if self.rules.is_full(writer.offset(), core.weight()) {
                    let (number, events) = (writer.segment() + 1, writer.events_so_far());
                    writer.clone().close(None, &mut self.buffer);
                    let is_sent = self.append(now);
                    if is_sent {
                        self.resume(now, core, number, events);
                    }
                } else if self.buffer.len() >= BATCH_BYTES
                    || self.buffered_at.is_some_and(|at| now >= at + BATCH_WAIT)
                {
                    self.append(now);
                }
            }
            State::Resting {
                until,
                segment,
                events,
            } => {
                if now >= *until {
                    let (segment, events) = (*segment, *events);
                    self.resume(now, core, segment, events);
                }
            }
        }
    }

    /// Writes the last checkpoint; returns when the file is on disk.
    pub(crate) async fn close(mut self, core: &Coordinator) {
        if let State::Recording(writer) = self.state {
            writer.close(Some(core.digest()), &mut self.buffer);
            let _ = self.work.send(Work::Append(self.buffer)).await;
        }
        drop(self.work);
        let thread = self.thread;
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }

    fn append(&mut self, now: Tick) -> bool {
        self.buffered_at = None;
        let work = Work::Append(std::mem::take(&mut self.buffer));
        self.send(now, work)
    }

    /// Begins a segment with the coordinator as it stands.
    fn resume(&mut self, now: Tick, core: &Coordinator, number: u32, events: u64) {
        self.buffer.clear();
        let every = checkpoint_every();
        match Writer::resume(core, number, events, every, &mut self.buffer) {
            Ok(writer) => {
                self.buffered_at = None;
                let work = Work::Begin(std::mem::take(&mut self.buffer));
                self.state = State::Recording(writer);
                self.send(now, work);
            }
            // The header of the first segment fitted, and it has not grown since.
            Err(error) => tracing::error!(%error, "the next segment of the journal cannot begin"),
        }
    }

    /// Hands over, or rests: a thread that is so far behind has a disk that is too slow.
    fn send(&mut self, now: Tick, work: Work) -> bool {
        let is_sent = self.work.try_send(work).is_ok();
        if !is_sent {
            tracing::error!("the journal's disk is too slow; the books are not concerned");
            self.rest(now);
        }
        is_sent
    }

    fn rest(&mut self, now: Tick) {
        self.buffer.clear();
        self.buffered_at = None;
        let until = now + REST;
        self.state = match &self.state {
            State::Recording(writer) => State::Resting {
                until,
                segment: writer.segment() + 1,
                events: writer.events_so_far(),
            },
            State::Resting {
                segment, events, ..
            } => State::Resting {
                until,
                segment: *segment,
                events: *events,
            },
        };
    }
}

const fn checkpoint_every() -> NonZeroU32 {
    NonZeroU32::new(CHECKPOINT_EVENTS).expect("a positive constant")
}
