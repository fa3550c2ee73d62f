//! The thread that reads and opens files, so that whoever decodes does not wait for a disk.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::{ReadDone, Reading};

/// One thing that was asked; never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// See the module.
pub struct Reader {
    /// Until it is dropped.
    readings: Option<Sender<(Ticket, Reading)>>,
    done: Receiver<(Ticket, ReadDone)>,
    tickets: u64,
    in_flight: usize,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// `on_done` is called on the reader's thread each time that [`Self::poll`] has something more.
    ///
    /// # Errors
    /// The thread cannot start.
    pub fn start(on_done: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (readings, inbox) = channel::<(Ticket, Reading)>();
        let (outbox, done) = channel();
        let thread = std::thread::Builder::new()
            .name("kv-disk-read".to_owned())
            .spawn(move || {
                while let Ok((ticket, reading)) = inbox.recv() {
                    if outbox.send((ticket, reading.read())).is_err() {
                        return;
                    }
                    on_done();
                }
            })?;
        Ok(Self {
            readings: Some(readings),
            done,
            tickets: 0,
            in_flight: 0,
            thread: Some(thread),
        })
    }

    /// Asked and not yet taken back by [`Self::poll`].
    #[must_use]
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The caller bounds how many are in flight. `None` when the thread is gone.
    pub fn ask(&mut self, reading: Reading) -> Option<Ticket> {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let readings = self.readings.as_ref().expect("until it is dropped");
        readings.send((ticket, reading)).ok()?;
        self.in_flight += 1;
        Some(ticket)
    }

    pub fn poll(&mut self) -> Option<(Ticket, ReadDone)> {
        let done = self.done.try_recv().ok()?;
        self.in_flight -= 1;
        Some(done)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.readings = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so, and nobody waits for what it read.
            drop(thread.join());
        }
    }
}
