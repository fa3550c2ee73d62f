//! Blocks of keys and values on disk, sealed: what leaves memory may be read again, after a restart as
//! well.
//!
//! The books are pure ([`DiskIndex`]); here are the files. Writing happens on a thread of its own, which
//! nobody waits for. A file that is damaged, cut short or sealed with another key is a miss and is
//! removed. Blocks are opaque bytes, and none of them, nor any key, is ever printed.

mod format;
mod key;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::{self, DirBuilder, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use cereus_core::time::{Span, Tick};
use thiserror::Error;

use crate::kv::BlockHash;
use crate::kv::disk::{BlockTag, DiskIndex, DiskLimits, DiskRoom, FileId, NotKept};
use format::{Keys, ReadError};
pub use key::{DiskKey, KeyError};
pub use reader::{Reader, Ticket};
use writer::{Job, PART, Writer};

/// Suffix of a file that was written to its end.
const SUFFIX: &str = "kv";
const LOCK: &str = "lock";

/// Stands for all that a block's bytes mean something under: weights, prompt contract, layout, sizes
/// and types. Another one finds nothing of this one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

/// See the module.
#[derive(Clone, Debug)]
pub struct DiskConfig {
    /// Made if it is not there; used by one process at a time.
    pub folder: PathBuf,
    pub key: DiskKey,
    pub limits: DiskLimits,
    /// Runs on their way to the disk, and their bytes. More are not written.
    pub queue_jobs_max: usize,
    pub queue_size_max: u64,
}

impl DiskConfig {
    /// The published engine's queue: two runs, 512 MiB. What finds it full is not written, because a
    /// cache must never make a request wait.
    #[must_use]
    pub const fn reference(folder: PathBuf, key: DiskKey, limits: DiskLimits) -> Self {
        Self {
            folder,
            key,
            limits,
            queue_jobs_max: 2,
            queue_size_max: 512 << 20,
        }
    }
}

/// Why the folder cannot be used.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("the cache folder is in use by another process; give this one a folder of its own")]
    InUse,
    #[error("the cache folder cannot be used: {0}")]
    Io(#[from] io::Error),
}

/// What has happened since the folder was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounts {
    /// Blocks.
    pub read: u64,
    /// Files.
    pub written: u64,
    pub failed: u64,
    /// Runs that were not written: too many were on their way, or the disk has no room for them now.
    pub dropped: u64,
    /// Files of no use: damaged, cut short, of another key or format.
    pub damaged: u64,
    /// Files that went for others, or of old age.
    pub forgotten: u64,
}

/// What became of a run that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// The writing thread has taken it.
    Taken,
    Refused(NotKept),
    /// It is not written: the queue to the disk is full.
    Dropped,
}

/// See the module.
pub struct DiskCache {
    folder: PathBuf,
    keys: Arc<Keys>,
    index: DiskIndex,
    writer: Writer,
    counts: DiskCounts,
    /// Names of files to remove.
    gone: Vec<BlockTag>,
    /// Held for as long as the folder is used; the last field, so that it goes last.
    _lock: FolderLock,
}

/// Lets go of the folder outright: a child that is being started, a compiler of MLX's for instance,
/// holds the file as well until it runs.
struct FolderLock(File);

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Closing the file would release the lock as well, but only once a child that is being
        // started has closed its copy.
        let _ = self.0.unlock();
    }
}

/// A file to read, anywhere and at leisure: the thread that decodes does not wait for a disk.
pub struct Reading {
    file: FileId,
    path: PathBuf,
    keys: Arc<Keys>,
    model: BlockTag,
    /// The blocks wanted, as they stand in the file.
    wanted: Vec<BlockTag>,
    first: usize,
    limits: DiskLimits,
}

/// What came of a [`Reading`].
pub struct ReadDone {
    file: FileId,
    result: Result<Vec<Vec<u8>>, ReadError>,
}

impl DiskCache {
    /// Takes up what an earlier process left in the folder, as far as it is whole.
    pub fn open(now: Tick, config: &DiskConfig) -> Result<Self, OpenError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&config.folder)?;
        let lock = File::create(config.folder.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(OpenError::InUse),
            Err(fs::TryLockError::Error(error)) => return Err(error.into()),
        }
        let keys = Arc::new(Keys::derive(&config.key));
        let jobs_max = config.queue_jobs_max;
        let writer = Writer::start(
            Arc::clone(&keys),
            &config.folder,
            jobs_max,
            config.queue_size_max,
        )?;
        let mut cache = Self {
            folder: config.folder.clone(),
            keys,
            index: DiskIndex::new(config.limits),
            writer,
            counts: DiskCounts::default(),
            gone: Vec::new(),
            _lock: FolderLock(lock),
        };
        cache.take_up(now)?;
        // Before the first request, so that the bounds hold on the disk itself.
        cache.flush(now);
        Ok(cache)
    }

    #[must_use]
    pub const fn counts(&self) -> DiskCounts {
        self.counts
    }

    #[must_use]
    pub const fn index(&self) -> &DiskIndex {
        &self.index
    }

    /// How many of the blocks, from the first, can be read.
    pub fn leading(&mut self, now: Tick, model: &Fingerprint, hashes: &[BlockHash]) -> u32 {
        self.settle(now);
        self.index.leading(now, &self.tags(model, hashes))
    }

    /// The file that has the first of the blocks and perhaps more of them. [`Reading::read`] reads it,
    /// on whatever thread, and [`Self::finish`] takes what came of it.
    pub fn locate(
        &mut self,
        now: Tick,
        model: &Fingerprint,
        hashes: &[BlockHash],
    ) -> Option<Reading> {
        self.settle(now);
        let mut wanted = self.tags(model, hashes);
        let located = self.index.locate(now, &wanted)?;
        wanted.truncate(located.blocks as usize);
        Some(Reading {
            file: located.file,
            path: self.path(located.name),
            keys: Arc::clone(&self.keys),
            model: self.keys.model(model),
            wanted,
            first: located.first as usize,
            limits: *self.index.limits(),
        })
    }

    /// The blocks that were read; none when the file turned out to be of no use, or went meanwhile.
    pub fn finish(&mut self, done: ReadDone) -> Vec<Vec<u8>> {
        match done.result {
            Ok(blocks) => {
                self.counts.read += blocks.len() as u64;
                blocks
            }
            Err(error) => {
                if let Some(name) = self.index.forget(done.file) {
                    self.counts.damaged += u64::from(error == ReadError::Damaged);
                    self.gone.push(name);
                    self.remove_gone();
                }
                Vec::new()
            }
        }
    }

    /// [`Self::locate`], read and [`Self::finish`] for as many of the blocks, from the first, as there
    /// are.
    pub fn read(&mut self, now: Tick, model: &Fingerprint, hashes: &[BlockHash]) -> Vec<Vec<u8>> {
        let mut blocks = Vec::new();
        while let Some(reading) = self.locate(now, model, &hashes[blocks.len()..]) {
            let more = self.finish(reading.read());
            if more.is_empty() {
                break;
            }
            blocks.extend(more);
        }
        blocks
    }

    /// A run was not even offered, because too many were to be.
    pub const fn note_dropped(&mut self) {
        self.counts.dropped += 1;
    }

    /// Whether a run may come to be written.
    #[must_use]
    pub const fn has_room(&self) -> bool {
        self.writer.room() > 0
    }

    /// Which of a run of blocks, of so many bytes each, are worth fetching for [`Self::write`]: those
    /// that are not on disk, as many as one file of `size_max` and the queue hold. None when nothing
    /// would be written now.
    pub fn wanted(
        &mut self,
        now: Tick,
        model: &Fingerprint,
        hashes: &[BlockHash],
        block_size: u64,
        size_max: u64,
    ) -> Range<usize> {
        self.settle(now);
        if !self.has_room() {
            return 0..0;
        }
        let unknown = self.index.unknown(&self.tags(model, hashes));
        let limits = self.index.limits();
        let most = [
            size_max,
            self.writer.room(),
            limits.file_size_max,
            limits.size_max,
        ];
        let room = most.into_iter().fold(u64::MAX, u64::min);
        let blocks = format::blocks_in(room, block_size).min(u64::from(limits.file_blocks_max));
        let blocks = usize::try_from(blocks).map_or(unknown.len(), |most| most.min(unknown.len()));
        let size = format::file_size(blocks as u64, block_size.saturating_mul(blocks as u64));
        if self.index.refusal(now, size).is_some() {
            self.counts.dropped += 1;
            return 0..0;
        }
        unknown.start..unknown.start + blocks
    }

    /// Has a run of blocks written, all of a row and one behind the other, as far as they are not on
    /// disk yet.
    pub fn write(
        &mut self,
        now: Tick,
        model: &Fingerprint,
        hashes: &[BlockHash],
        mut blocks: Vec<Vec<u8>>,
    ) -> Offered {
        assert_eq!(hashes.len(), blocks.len(), "each block has its name");
        self.settle(now);
        let mut tags = self.tags(model, hashes);
        let unknown = self.index.unknown(&tags);
        tags.truncate(unknown.end);
        blocks.truncate(unknown.end);
        tags.drain(..unknown.start);
        blocks.drain(..unknown.start);
        let bytes: u64 = blocks.iter().map(|block| block.len() as u64).sum();
        if !self.writer.has_room(bytes) {
            self.counts.dropped += 1;
            return Offered::Dropped;
        }
        let size = format::file_size(tags.len() as u64, bytes);
        let admitted = self.index.admit(now, &tags, size, &mut self.gone);
        self.counts.forgotten += self.gone.len() as u64;
        self.remove_gone();
        let file = match admitted {
            Ok(file) => file,
            Err(NotKept::Empty) if !hashes.is_empty() => return Offered::Refused(NotKept::Known),
            Err(why) => return Offered::Refused(why),
        };
        let name = *tags.last().expect("a run of none is not admitted");
        let job = Job {
            file,
            path: self.path(name),
            model: self.keys.model(model),
            tags,
            blocks,
        };
        if self.writer.take(job) {
            return Offered::Taken;
        }
        self.index.forget(file);
        self.counts.dropped += 1;
        Offered::Dropped
    }

    /// Removes what nobody has read for too long, and looks at how much is free. The caller comes by
    /// once a minute or so.
    pub fn sweep(&mut self, now: Tick) {
        self.writer.measure();
        self.settle(now);
        self.index.expire(now, &mut self.gone);
        self.counts.forgotten += self.gone.len() as u64;
        self.remove_gone();
    }

    /// Waits until all that was taken is on disk, and all that went is gone.
    pub fn flush(&mut self, now: Tick) {
        while let Some(done) = self.writer.wait() {
            self.note(now, done);
        }
    }

    /// Removes everything.
    pub fn clear(&mut self, now: Tick) {
        self.flush(now);
        self.index.clear(&mut self.gone);
        self.remove_gone();
        self.flush(now);
    }

    fn settle(&mut self, now: Tick) {
        while let Some(done) = self.writer.poll() {
            self.note(now, done);
        }
        self.index.free_told(self.writer.free());
    }

    fn note(&mut self, now: Tick, done: writer::Done) {
        match done.result {
            Ok(()) => {
                self.counts.written += 1;
                self.index.written(now, done.file);
            }
            Err(fault) => {
                self.counts.failed += 1;
                self.index.failed(now, done.file, fault);
            }
        }
    }

    fn tags(&self, model: &Fingerprint, hashes: &[BlockHash]) -> Vec<BlockTag> {
        let tag = |hash| self.keys.block(model, hash);
        hashes.iter().map(tag).collect()
    }

    fn path(&self, name: BlockTag) -> PathBuf {
        path_of(&self.folder, name)
    }

    fn remove_gone(&mut self) {
        if !self.gone.is_empty() {
            let names = std::mem::take(&mut self.gone);
            let paths = names.into_iter().map(|name| self.path(name)).collect();
            self.writer.remove(paths);
        }
    }

    fn take_up(&mut self, now: Tick) -> io::Result<()> {
        let clock = SystemTime::now();
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let path = entry.path();
            let suffix = path.extension().and_then(|suffix| suffix.to_str());
            let is_ours = match suffix {
                Some(SUFFIX) => true,
                Some(PART) => false,
                Some(_) | None => continue,
            };
            // A file with the suffix of a part was never finished: its writer was stopped in the
            // middle.
            if let Some(Ok(seen)) = is_ours.then(|| look_at(&self.keys, &path, self.index.limits()))
            {
                found.push(seen);
            } else {
                self.counts.damaged += u64::from(is_ours);
                let _is_gone = fs::remove_file(&path);
            }
        }
        found.sort_by(|one, other| {
            let key = |seen: &Seen| (seen.used, seen.tags.last().copied());
            key(one).cmp(&key(other))
        });
        for seen in found {
            let idle = clock.duration_since(seen.used).unwrap_or_default();
            let idle = Span(u64::try_from(idle.as_micros()).unwrap_or(u64::MAX));
            if self
                .index
                .restore(now, &seen.tags, seen.size, idle)
                .is_none()
            {
                self.gone.extend(seen.tags.last());
            }
        }
        self.index.trim(&mut self.gone);
        self.counts.forgotten += self.gone.len() as u64;
        self.remove_gone();
        Ok(())
    }
}

impl Reading {
    /// How many blocks are wanted.
    #[must_use]
    pub fn blocks_wanted(&self) -> usize {
        self.wanted.len()
    }

    /// Reads the file. It counts as used from now on, in later lives of the process as well.
    #[must_use]
    pub fn read(self) -> ReadDone {
        let result = self.blocks();
        ReadDone {
            file: self.file,
            result,
        }
    }

    fn blocks(&self) -> Result<Vec<Vec<u8>>, ReadError> {
        let (mut file, header) = open_file(&self.keys, &self.path, &self.limits)?;
        let range = self.first..self.first + self.wanted.len();
        if header.tags.get(range.clone()) != Some(&self.wanted) {
            return Err(ReadError::Damaged);
        }
        let mut blocks = format::read_blocks(&self.keys, &mut file, &header, self.model)?;
        // The time says when the file was last read, for the order of removal alone: a failure to
        // set it harms nothing.
        let _is_touched = file.set_modified(SystemTime::now());
        blocks.truncate(range.end);
        blocks.drain(..range.start);
        Ok(blocks)
    }
}

/// A whole file of an earlier process.
struct Seen {
    tags: Vec<BlockTag>,
    size: u64,
    used: SystemTime,
}

fn look_at(keys: &Keys, path: &Path, limits: &DiskLimits) -> Result<Seen, ReadError> {
    let (file, header) = open_file(keys, path, limits)?;
    let name = *header.tags.last().expect("a header names a block");
    let folder = path.parent().unwrap_or(Path::new(""));
    if path != path_of(folder, name) {
        return Err(ReadError::Damaged);
    }
    let about = file.metadata()?;
    Ok(Seen {
        tags: header.tags,
        size: about.len(),
        used: about.modified()?,
    })
}

fn open_file(
    keys: &Keys,
    path: &Path,
    limits: &DiskLimits,
) -> Result<(File, format::Header), ReadError> {
    // A link or a pipe is nothing that was written here, and opening one may take for ever.
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(ReadError::Damaged);
    }
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    if size > limits.file_size_max {
        return Err(ReadError::Damaged);
    }
    let header = format::read_header(keys, &mut file, size, limits.file_blocks_max)?;
    Ok((file, header))
}

/// What the disk of a folder has, as far as the system tells.
#[must_use]
pub fn room_of(folder: &Path) -> Option<DiskRoom> {
    let about = rustix::fs::statvfs(folder).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(about.f_frsize);
    Some(DiskRoom {
        size: bytes(about.f_blocks),
        free: bytes(about.f_bavail),
    })
}

fn path_of(folder: &Path, name: BlockTag) -> PathBuf {
    let name = name.0.map(|byte| format!("{byte:02x}")).concat();
    folder.join(name).with_extension(SUFFIX)
}
