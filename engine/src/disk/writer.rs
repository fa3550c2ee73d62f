//! The thread that seals, writes and removes, in the order in which it is asked. What waits to be
//! written is little and bounded in bytes: what does not fit is not written at all, and nobody waits
//! for the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::format::{self, Keys};
use super::room_of;
use crate::kv::disk::{BlockTag, DiskRoom, FileId, WriteFault};

/// While it is written, a file has this in place of its suffix.
pub(super) const PART: &str = "part";

pub(super) struct Job {
    pub(super) file: FileId,
    pub(super) path: PathBuf,
    pub(super) model: BlockTag,
    pub(super) tags: Vec<BlockTag>,
    pub(super) blocks: Vec<Vec<u8>>,
}

impl Job {
    fn size(&self) -> u64 {
        self.blocks.iter().map(|block| block.len() as u64).sum()
    }
}

enum Task {
    Write(Job),
    Remove(Vec<PathBuf>),
    /// Says what is free.
    Measure,
}

/// What came of a job.
pub(super) struct Done {
    pub(super) file: FileId,
    pub(super) result: Result<(), WriteFault>,
    size: u64,
}

enum Report {
    Written(Done),
    Removed,
    Measured(Option<DiskRoom>),
}

pub(super) struct Writer {
    /// Until it is dropped. Writes in it are bounded by their count, removals by the files there are.
    tasks: Option<Sender<Task>>,
    reports: Receiver<Report>,
    /// Tasks that have not been reported.
    open: usize,
    measured: Option<DiskRoom>,
    queued: usize,
    queued_max: usize,
    queued_size: u64,
    queued_size_max: u64,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(
        keys: Arc<Keys>,
        folder: &Path,
        jobs_max: usize,
        size_max: u64,
    ) -> io::Result<Self> {
        let (tasks, inbox) = channel();
        let (outbox, reports) = channel();
        let measured = room_of(folder);
        let folder = folder.to_owned();
        let thread = std::thread::Builder::new()
            .name("kv-disk".to_owned())
            .spawn(move || work(&keys, &folder, &inbox, &outbox))?;
        Ok(Self {
            tasks: Some(tasks),
            reports,
            open: 0,
            measured,
            queued: 0,
            queued_max: jobs_max,
            queued_size: 0,
            queued_size_max: size_max,
            thread: Some(thread),
        })
    }

    /// What was free on the disk when it was last looked at, if anybody could tell.
    pub(super) fn free(&self) -> Option<u64> {
        self.measured.map(|room| room.free)
    }

    /// Bytes that a job may have now.
    pub(super) const fn room(&self) -> u64 {
        if self.queued < self.queued_max {
            self.queued_size_max.saturating_sub(self.queued_size)
        } else {
            0
        }
    }

    /// Whether a job of `size` bytes may come.
    pub(super) const fn has_room(&self, size: u64) -> bool {
        self.queued < self.queued_max
            && self.queued_size.saturating_add(size) <= self.queued_size_max
    }

    /// Takes a job that there is room for. `false` when the thread is gone.
    pub(super) fn take(&mut self, job: Job) -> bool {
        let size = job.size();
        assert!(self.has_room(size), "the caller asked");
        let is_taken = self.send(Task::Write(job));
        if is_taken {
            self.queued += 1;
            self.queued_size += size;
        }
        is_taken
    }

    pub(super) fn remove(&mut self, paths: Vec<PathBuf>) {
        // If the thread is gone the files stay, and the next start finds them again.
        let _is_sent = self.send(Task::Remove(paths));
    }

    pub(super) fn measure(&mut self) {
        let _is_sent = self.send(Task::Measure);
    }

    /// A job that has ended, if one has.
    pub(super) fn poll(&mut self) -> Option<Done> {
        while let Ok(report) = self.reports.try_recv() {
            let done = self.note(report);
            if done.is_some() {
                return done;
            }
        }
        None
    }

    /// The next job to end; `None` when all that was asked is done.
    pub(super) fn wait(&mut self) -> Option<Done> {
        while self.open > 0 {
            // A thread that is gone reports nothing more.
            let report = self.reports.recv().ok()?;
            let done = self.note(report);
            if done.is_some() {
                return done;
            }
        }
        None
    }

    fn send(&mut self, task: Task) -> bool {
        let tasks = self.tasks.as_ref().expect("until it is dropped");
        let is_sent = tasks.send(task).is_ok();
        self.open += usize::from(is_sent);
        is_sent
    }

    fn note(&mut self, report: Report) -> Option<Done> {
        self.open -= 1;
        match report {
            Report::Written(done) => {
                self.queued -= 1;
                self.queued_size -= done.size;
                Some(done)
            }
            Report::Removed => None,
            Report::Measured(room) => {
                self.measured = room;
                None
            }
        }
    }
}

impl Drop for Writer {
    /// What is queued is written first.
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so, and left nothing that is found.
            drop(thread.join());
        }
    }
}

fn work(keys: &Keys, folder: &Path, inbox: &Receiver<Task>, outbox: &Sender<Report>) {
    while let Ok(task) = inbox.recv() {
        let report = match task {
            Task::Write(job) => Report::Written(seal_and_write(keys, job)),
            Task::Remove(paths) => {
                for path in paths {
                    // Gone already is as good; what cannot be removed is taken up by the next start.
                    let _is_gone = fs::remove_file(path);
                }
                Report::Removed
            }
            Task::Measure => Report::Measured(room_of(folder)),
        };
        if outbox.send(report).is_err() {
            return;
        }
    }
}

fn seal_and_write(keys: &Keys, job: Job) -> Done {
    let size = job.size();
    let result = match format::encode(keys, job.model, &job.tags, &job.blocks) {
        Some(bytes) => write(&job.path, &bytes).map_err(|error| fault(&error)),
        None => Err(WriteFault::Other),
    };
    Done {
        file: job.file,
        result,
        size,
    }
}

/// The file is whole or not there: it gets its name last. Without a sync, because what a power cut
/// tears is told from what is whole when it is read.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let part = path.with_extension(PART);
    let written = create(&part).and_then(|mut file| file.write_all(bytes));
    let written = written.and_then(|()| fs::rename(&part, path));
    if written.is_err() {
        // If it stays, the next start removes it.
        let _is_gone = fs::remove_file(&part);
    }
    written
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)
}

fn fault(error: &io::Error) -> WriteFault {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => WriteFault::DiskFull,
        _ => WriteFault::Other,
    }
}
