//! The thread that seals and writes. Its queue is short and bounded in bytes: what does not fit is not
//! written at all, and nobody waits for the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use super::format::{self, Keys};
use crate::kv::disk::{BlockTag, FileId, WriteFault};

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

/// What came of a job.
pub(super) struct Done {
    pub(super) file: FileId,
    pub(super) result: Result<(), WriteFault>,
    size: u64,
}

pub(super) struct Writer {
    /// Until it is dropped.
    jobs: Option<SyncSender<Job>>,
    done: Receiver<Done>,
    queued: usize,
    queued_max: usize,
    queued_size: u64,
    queued_size_max: u64,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(keys: Arc<Keys>, jobs_max: usize, size_max: u64) -> io::Result<Self> {
        let (jobs, inbox) = sync_channel(jobs_max);
        let (outbox, done) = channel();
        let thread = std::thread::Builder::new()
            .name("kv-disk".to_owned())
            .spawn(move || work(&keys, &inbox, &outbox))?;
        Ok(Self {
            jobs: Some(jobs),
            done,
            queued: 0,
            queued_max: jobs_max,
            queued_size: 0,
            queued_size_max: size_max,
            thread: Some(thread),
        })
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
        let jobs = self.jobs.as_ref().expect("until it is dropped");
        let is_taken = jobs.try_send(job).is_ok();
        if is_taken {
            self.queued += 1;
            self.queued_size += size;
        }
        is_taken
    }

    /// A job that has ended, if one has.
    pub(super) fn poll(&mut self) -> Option<Done> {
        let done = self.done.try_recv().ok();
        self.count_out(done)
    }

    /// The next job to end; `None` when all have.
    pub(super) fn wait(&mut self) -> Option<Done> {
        let done = if self.queued > 0 {
            self.done.recv().ok()
        } else {
            None
        };
        self.count_out(done)
    }

    fn count_out(&mut self, done: Option<Done>) -> Option<Done> {
        if let Some(done) = &done {
            self.queued -= 1;
            self.queued_size -= done.size;
        }
        done
    }
}

impl Drop for Writer {
    /// What is queued is written first.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so, and left nothing that is found.
            drop(thread.join());
        }
    }
}

fn work(keys: &Keys, inbox: &Receiver<Job>, outbox: &Sender<Done>) {
    while let Ok(job) = inbox.recv() {
        let size = job.size();
        let result = match format::encode(keys, job.model, &job.tags, &job.blocks) {
            Some(bytes) => write(&job.path, &bytes).map_err(|error| fault(&error)),
            None => Err(WriteFault::Other),
        };
        let file = job.file;
        if outbox.send(Done { file, result, size }).is_err() {
            return;
        }
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
