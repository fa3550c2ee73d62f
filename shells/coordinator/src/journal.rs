//! The journal's file: bytes that the core's journal writer made, written out by a thread of its own.
//!
//! A process start makes one file, `journal/NNNNNN.journal`. A crash may tear off its tail, which a
//! reader tells from damage; the books do not depend on it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use cereus_core::config::Config;
use cereus_core::coordinator::Coordinator;
use cereus_core::effect::Effects;
use cereus_core::event::Event;
use cereus_core::journal::{CHECKPOINT_EVENTS, Writer};
use cereus_core::time::Tick;
use tokio::sync::mpsc;

const FOLDER: &str = "journal";
const SUFFIX: &str = "journal";
/// Batches on their way to the disk; a batch is at most a few hundred short records.
const BATCHES_MAX: usize = 1_024;

/// Records what the coordinator handles.
#[derive(Debug)]
pub(crate) struct Recorder {
    writer: Writer,
    buffer: Vec<u8>,
    batches: mpsc::Sender<Vec<u8>>,
    path: PathBuf,
    thread: JoinHandle<()>,
}

impl Recorder {
    /// Starts the next file of the data folder.
    pub(crate) fn start(data: &Path, config: &Config) -> io::Result<Self> {
        let (path, file) = next_file(&data.join(FOLDER))?;
        let every = NonZeroU32::new(CHECKPOINT_EVENTS).expect("a positive constant");
        let mut buffer = Vec::new();
        let writer = Writer::begin(config, every, &mut buffer).map_err(io::Error::other)?;
        let (batches, inbox) = mpsc::channel(BATCHES_MAX);
        let thread = thread::Builder::new()
            .name("cereus-journal".to_owned())
            .spawn({
                let path = path.clone();
                move || write_all(file, &path, inbox)
            })?;
        Ok(Self {
            writer,
            buffer,
            batches,
            path,
            thread,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Before the step, so that an event on which the core stops for good is in the journal too.
    pub(crate) fn event(&mut self, now: Tick, event: &Event<'_>) {
        if let Err(error) = self.writer.event(now, event, &mut self.buffer) {
            // The inventory of a provider is bounded far below a record's limit.
            tracing::error!(%error, "an event did not fit the journal");
        }
    }

    pub(crate) fn effects(&mut self, effects: &Effects, from: usize) {
        self.writer.effects(effects, from);
    }

    /// The end of a batch: a checkpoint if one is due, and all of it to the file.
    pub(crate) async fn flush(&mut self, core: &Coordinator) {
        if self.writer.is_checkpoint_due() {
            self.writer.checkpoint(core.digest(), &mut self.buffer);
        }
        if !self.buffer.is_empty() {
            // Only fails after a write error, which the thread has reported.
            let _ = self.batches.send(std::mem::take(&mut self.buffer)).await;
        }
    }

    /// Writes the last checkpoint; returns when the file is on disk.
    pub(crate) async fn close(mut self, core: &Coordinator) {
        self.writer.close(core.digest(), &mut self.buffer);
        let _ = self.batches.send(self.buffer).await;
        drop(self.batches);
        let thread = self.thread;
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }
}

fn next_file(folder: &Path) -> io::Result<(PathBuf, File)> {
    fs::create_dir_all(folder)?;
    let mut number = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        number = number.max(stem.and_then(|stem| stem.parse::<u32>().ok()).unwrap_or(0));
    }
    let path = folder.join(format!("{:06}.{SUFFIX}", number + 1));
    let file = File::create_new(&path)?;
    Ok((path, file))
}

fn write_all(mut file: File, path: &Path, mut inbox: mpsc::Receiver<Vec<u8>>) {
    while let Some(bytes) = inbox.blocking_recv() {
        if let Err(error) = file.write_all(&bytes) {
            // The books are elsewhere: serving goes on without a journal.
            tracing::error!(%error, path = %path.display(), "the journal ends here");
            return;
        }
    }
    if let Err(error) = file.sync_all() {
        tracing::error!(%error, path = %path.display(), "the journal's end may be missing");
    }
}
