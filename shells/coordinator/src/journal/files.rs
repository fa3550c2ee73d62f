//! The folder of segments: the thread that writes the newest, and the room for it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;

use super::{JournalSettings, Work};
use crate::store::private_file;

/// In the data folder.
const FOLDER: &str = "journal";
const SUFFIX: &str = "journal";
const FOLDER_MODE: u32 = 0o700;
/// Bytes written between two looks at the room that is left.
const LOOK_EVERY_BYTES: u64 = 16 << 20;

/// The folder of segments, and the one that is being written.
pub(super) struct Files {
    folder: PathBuf,
    settings: JournalSettings,
    current: Option<File>,
    /// Written since the last look at the room that is left.
    unlooked: u64,
}

/// A segment on the disk.
pub(super) struct Kept {
    pub(super) number: u32,
    pub(super) path: PathBuf,
    pub(super) size: u64,
}

impl Files {
    /// Of a data folder.
    pub(super) fn open(data: &Path, settings: JournalSettings) -> io::Result<Self> {
        let folder = data.join(FOLDER);
        DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(&folder)?;
        Ok(Self {
            folder,
            settings,
            current: None,
            unlooked: 0,
        })
    }

    pub(super) fn write_all(&mut self, mut inbox: mpsc::Receiver<Work>, is_broken: &AtomicBool) {
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

    pub(super) fn next_path(&self) -> io::Result<PathBuf> {
        let last = self.kept()?.last().map_or(0, |last| last.number);
        let number = last.checked_add(1).ok_or_else(|| {
            io::Error::other("the newest segment has the last number there is: move it away")
        })?;
        Ok(self.folder.join(format!("{number:06}.{SUFFIX}")))
    }

    /// The next file, with its first bytes.
    pub(super) fn begin(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.current = None;
        let file = private_file(&self.next_path()?)?;
        self.make_room()?;
        self.current = Some(file);
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
    pub(super) fn kept(&self) -> io::Result<Vec<Kept>> {
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
    use super::*;

    #[test]
    fn the_ledgers_part_of_the_disk_is_never_taken() {
        let data = tempfile::tempdir().unwrap();
        let greedy = JournalSettings {
            disk_reserve: u64::MAX,
            ..JournalSettings::reference()
        };
        let mut files = Files::open(data.path(), greedy).unwrap();
        for number in 1..=3 {
            let old = files.folder.join(format!("{number:06}.{SUFFIX}"));
            fs::write(old, b"old").unwrap();
        }
        let error = files.begin(b"new").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let kept: Vec<u32> = files.kept().unwrap().iter().map(|it| it.number).collect();
        assert_eq!(kept, [4], "the old ones made room first");
    }
}
