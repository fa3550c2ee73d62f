//! The journal's files: what the core's journal writer made, written out by a thread of its own.
//!
//! A process writes segment after segment, `journal/NNNNNN.journal`; the oldest go when all together
//! are larger than the rules allow. A crash may tear off the tail of the newest, which a reader tells
//! from damage.
//!
//! The books do not depend on any of it. A disk that is full, slow or broken makes the recorder
//! rest: it counts what it does not record, and begins a new segment with a snapshot when the disk
//! may have recovered. The coordinator never waits for it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::num::NonZeroU32;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use cereus_core::config::Config;
use cereus_core::coordinator::Coordinator;
use cereus_core::effect::Effects;
use cereus_core::event::Event;
use cereus_core::journal::{CHECKPOINT_EVENTS, SegmentRules, Writer};
use cereus_core::time::{Span, Tick};
use tokio::sync::mpsc;

use crate::store::private_file;

const FOLDER: &str = "journal";
const SUFFIX: &str = "journal";
const FOLDER_MODE: u32 = 0o700;
/// Batches on their way to the disk; a batch is at most a few hundred short records.
const BATCHES_MAX: usize = 1_024;
/// A batch goes to the thread when it has so many bytes, or after so long: waking a thread for each
/// event would cost more than recording it.
const BATCH_BYTES: usize = 32 << 10;
const BATCH_WAIT: Span = Span::millis(20);
/// How long the recorder rests after trouble with its disk.
const REST: Span = Span::secs(30);
/// Bytes written between two looks at the room that is left.
const LOOK_EVERY_BYTES: u64 = 16 << 20;

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
        let mut files = Files::open(&data.join(FOLDER), settings)?;
        let path = files.next_path()?;
        let is_broken = match files.begin(&[]) {
            Ok(()) => false,
            // A full disk makes the journal rest until there is room. Any other error, such as a
            // folder that cannot be written, is a mistake of the operator's and stops the start.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                tracing::error!(%error, "the journal rests; the books are not concerned");
                files.current = None;
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

/// The folder of segments, and the one that is being written.
struct Files {
    folder: PathBuf,
    settings: JournalSettings,
    current: Option<File>,
    /// Written since the last look at the room that is left.
    unlooked: u64,
}

/// A segment on the disk.
struct Kept {
    number: u32,
    path: PathBuf,
    size: u64,
}

impl Files {
    fn open(folder: &Path, settings: JournalSettings) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            settings,
            current: None,
            unlooked: 0,
        })
    }

    fn write_all(&mut self, mut inbox: mpsc::Receiver<Work>, is_broken: &AtomicBool) {
        while let Some(work) = inbox.blocking_recv() {
            let done = match work {
                Work::Append(bytes) => self.append(&bytes),
                Work::Begin(bytes) => self.begin(&bytes),
            };
            if let Err(error) = done {
                tracing::error!(
                    %error, folder = %self.folder.display(),
                    "the journal rests; the books are not concerned"
                );
                // Records that are still queued belong to the segment that broke off, so they are
                // dropped with it; the next segment begins with a snapshot.
                self.current = None;
                is_broken.store(true, Ordering::Release);
            }
        }
        if let Some(Err(error)) = self.current.take().map(|file| file.sync_all()) {
            tracing::error!(%error, "the journal's end may be missing");
        }
    }

    fn next_path(&self) -> io::Result<PathBuf> {
        let last = self.kept()?.last().map_or(0, |last| last.number);
        let number = last.checked_add(1).ok_or_else(|| {
            io::Error::other("the newest segment has the last number there is: move it away")
        })?;
        Ok(self.folder.join(format!("{number:06}.{SUFFIX}")))
    }

    /// The next file, with its first bytes.
    fn begin(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.current = None;
        self.current = Some(private_file(&self.next_path()?)?);
        self.make_room()?;
        self.append(bytes)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.current else {
            return Ok(());
        };
        file.write_all(bytes)?;
        self.unlooked += bytes.len() as u64;
        if self.unlooked >= LOOK_EVERY_BYTES {
            self.make_room()?;
        }
        Ok(())
    }

    /// Lets the oldest segments go until the rest is within the rules and the disk has its reserve.
    fn make_room(&mut self) -> io::Result<()> {
        self.unlooked = 0;
        let mut kept = self.kept()?;
        let sizes: Vec<u64> = kept.iter().map(|it| it.size).collect();
        for old in kept.drain(..self.settings.rules.surplus(&sizes)) {
            fs::remove_file(&old.path)?;
        }
        let newest = kept.pop();
        for old in kept {
            if self.has_reserve()? {
                return Ok(());
            }
            fs::remove_file(&old.path)?;
        }
        if newest.is_none() || self.has_reserve()? {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::StorageFull,
            format!(
                "less than {} bytes are left on the disk, which the ledger may need",
                self.settings.disk_reserve
            ),
        ))
    }

    fn has_reserve(&self) -> io::Result<bool> {
        let disk = rustix::fs::statvfs(&self.folder)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize) >= self.settings.disk_reserve)
    }

    /// The segments, oldest first.
    fn kept(&self) -> io::Result<Vec<Kept>> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let path = entry.path();
            let is_segment = path.extension().is_some_and(|it| it == SUFFIX);
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let number = stem.and_then(|stem| stem.parse::<u32>().ok());
            if let Some(number) = number.filter(|_| is_segment) {
                let size = entry.metadata()?.len();
                kept.push(Kept { number, path, size });
            }
        }
        kept.sort_unstable_by_key(|it| it.number);
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use cereus_core::config::{Catalog, Limits, ModelSpec};
    use cereus_core::draw::Seed;
    use cereus_core::event::Trust;
    use cereus_core::journal::{Ending, Reader, Start, replay};
    use cereus_core::money::Price;

    use super::*;

    fn config() -> Config {
        let spec = ModelSpec {
            id: "tiny".to_owned(),
            price: Price::DEFAULT,
            context_tokens: 8_192,
            output_tokens_default: 256,
            weights_bytes: 0,
        };
        Config {
            epoch: cereus_core::ids::Epoch(0),
            seed: Seed::from_number(1),
            catalog: Catalog::new(vec![spec]).unwrap(),
            limits: Limits::reference(),
            fee_percent: 10,
            trust_min: Trust::SelfSigned,
        }
    }

    const SMALL: JournalSettings = JournalSettings {
        rules: SegmentRules {
            size_min: 10_000,
            kept_max: 45_000,
        },
        disk_reserve: 0,
    };

    /// A recorder beside the coordinator that it records.
    struct Recorded {
        core: Coordinator,
        recorder: Recorder,
        now: Tick,
        out: Effects,
    }

    impl Recorded {
        fn new(data: &Path, settings: JournalSettings) -> Self {
            Self {
                core: Coordinator::new(config()),
                recorder: Recorder::start(data, &config(), settings).unwrap(),
                now: Tick::ZERO,
                out: Effects::default(),
            }
        }

        fn turn(&mut self) {
            self.now = self.now + Span::millis(1);
            self.recorder.event(self.now, &Event::Woke);
            self.out.clear();
            self.core
                .step(self.now, &Event::Woke, &mut self.out)
                .unwrap();
            self.recorder.effects(&self.out, 0);
            self.recorder.flush(self.now, &self.core);
        }
    }

    fn segments(data: &Path) -> Vec<Kept> {
        Files::open(&data.join(FOLDER), SMALL)
            .unwrap()
            .kept()
            .unwrap()
    }

    #[tokio::test]
    async fn a_long_journal_is_cut_and_its_oldest_parts_go() {
        let data = tempfile::tempdir().unwrap();
        let mut recorded = Recorded::new(data.path(), SMALL);
        let mut turns = 0_u64;
        while !matches!(&recorded.recorder.state, State::Recording(writer) if writer.segment() > 8)
        {
            recorded.turn();
            turns += 1;
            // Nobody waits for the thread; a test that is faster than its disk gives way.
            while recorded.recorder.work.capacity() < BATCHES_MAX / 2 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(recorded.recorder.lost_count(), 0);
        recorded.recorder.close(&recorded.core).await;
        let kept = segments(data.path());
        let total: u64 = kept.iter().map(|it| it.size).sum();
        assert!(kept.len() >= 3 && kept[0].number > 1, "{}", kept.len());
        assert!(total <= SMALL.rules.kept_max, "{total}");
        let mut events = 0;
        for (ix, segment) in kept.iter().enumerate() {
            let bytes = fs::read(&segment.path).unwrap();
            let mut reader = Reader::open(&bytes).unwrap();
            assert!(matches!(reader.segment().start, Start::Snapshot(_)));
            if ix > 0 {
                assert_eq!(reader.segment().events_before, events);
            }
            let mut core = reader.coordinator().unwrap();
            let report = replay(&mut reader, &mut core);
            assert!(report.is_faithful(), "{report:?}");
            assert_eq!(report.ending, Ending::Closed);
            events = reader.segment().events_before + report.events;
        }
        assert_eq!(events, turns, "no event is missing between segments");
    }

    #[tokio::test]
    async fn a_disk_without_room_makes_it_rest_and_it_begins_anew_with_what_it_missed_counted() {
        let data = tempfile::tempdir().unwrap();
        let mut recorded = Recorded::new(data.path(), SMALL);
        recorded.turn();
        // The thread reports trouble, as it does when a write fails.
        recorded.recorder.is_broken.store(true, Ordering::Release);
        recorded.turn();
        assert!(matches!(recorded.recorder.state, State::Resting { .. }));
        for _ in 0..5 {
            recorded.turn();
        }
        assert_eq!(recorded.recorder.lost_count(), 5);
        recorded.now = recorded.now + REST;
        recorded.turn();
        recorded.turn();
        recorded.recorder.close(&recorded.core).await;
        let kept = segments(data.path());
        assert_eq!(kept.len(), 2);
        let bytes = fs::read(&kept[1].path).unwrap();
        let mut reader = Reader::open(&bytes).unwrap();
        assert_eq!(reader.segment().number, 2);
        let mut core = reader.coordinator().unwrap();
        let report = replay(&mut reader, &mut core);
        assert!(report.is_faithful() && report.events == 1, "{report:?}");
    }

    #[test]
    fn the_ledgers_part_of_the_disk_is_never_taken() {
        let data = tempfile::tempdir().unwrap();
        let greedy = JournalSettings {
            disk_reserve: u64::MAX,
            ..SMALL
        };
        let mut files = Files::open(data.path(), greedy).unwrap();
        for number in 1..=3 {
            fs::write(data.path().join(format!("{number:06}.{SUFFIX}")), b"old").unwrap();
        }
        let error = files.begin(b"new").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let kept: Vec<u32> = files.kept().unwrap().iter().map(|it| it.number).collect();
        assert_eq!(kept, [4], "the old ones made room first");
    }

    #[test]
    fn events_gather_for_a_moment_before_a_thread_is_woken_for_them() {
        let data = tempfile::tempdir().unwrap();
        let mut recorded = Recorded::new(data.path(), SMALL);
        let (work, mut inbox) = mpsc::channel(8);
        recorded.recorder.work = work;
        // The head of the segment went out with the first turn.
        recorded.now = recorded.now + BATCH_WAIT;
        recorded.turn();
        assert!(inbox.try_recv().is_ok());
        recorded.turn();
        let due = recorded.recorder.next_wake().unwrap();
        assert_eq!(due, recorded.now + BATCH_WAIT);
        recorded.turn();
        assert!(inbox.try_recv().is_err(), "two events are not worth a wake");
        recorded.recorder.flush(due, &recorded.core);
        assert!(inbox.try_recv().is_ok(), "and none waits for a third");
        assert_eq!(recorded.recorder.next_wake(), None);
        recorded.turn();
        recorded.recorder.give_up(recorded.now);
        assert!(inbox.try_recv().is_ok(), "the end takes what there is");
    }

    #[test]
    fn a_disk_that_stands_still_is_not_waited_for() {
        let data = tempfile::tempdir().unwrap();
        let mut recorded = Recorded::new(data.path(), SMALL);
        // A thread that takes nothing: its inbox is full, and nobody reads it.
        let (work, _inbox) = mpsc::channel(1);
        recorded.recorder.work = work;
        for _ in 0..10 {
            recorded.now = recorded.now + BATCH_WAIT;
            recorded.turn();
        }
        assert!(matches!(recorded.recorder.state, State::Resting { .. }));
        assert!(recorded.recorder.lost_count() > 0);
    }
}
