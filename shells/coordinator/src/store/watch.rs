//! How a running coordinator hears what another process changed, and answers what it is asked.
//!
//! The command line writes to the store and then knocks at a socket in the data folder; the
//! coordinator reads the list of changes, takes them over, and says so. So a key can be used when
//! the command that made it has returned, and nobody looks in vain. Only the folder's owner can
//! reach the socket.
//!
//! One line asks, one line answers: `changes` gets `done`; any other word gets what the coordinator
//! has to say of it, as JSON.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Changes, Store, StoreError};

const SOCKET_NAME: &str = "coordinator.sock";
const CHANGES: &str = "changes";
/// All that the coordinator has logged can be read in the database when this is answered.
pub(crate) const SETTLE: &str = "settle";
const DONE: &str = "done";
const FAILED: &str = "failed";
/// How long either side waits for the other's line.
const LINE_WAIT: Duration = Duration::from_secs(5);
/// Bytes of a question.
const QUESTION_SIZE_MAX: u64 = 256;
/// Bytes of an answer.
const ANSWER_SIZE_MAX: u64 = 256 << 20;
/// Where no socket can be made (a path longer than the system takes, about a hundred bytes), how
/// often the list of changes is looked at instead.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the thread does for the coordinator.
pub(crate) trait Listener: Send + 'static {
    /// Takes over what changed.
    fn changed(&mut self, changes: &Changes);

    /// Answers a question, if it is understood.
    fn asked(&mut self, question: &str) -> Option<String>;
}

/// The thread that listens.
#[derive(Debug)]
pub(crate) struct Watch {
    is_stopping: Arc<AtomicBool>,
    socket: Option<PathBuf>,
    thread: JoinHandle<()>,
}

/// Starts to listen for what comes after the change numbered `after`.
pub(crate) fn start(
    store: Box<dyn Store>,
    folder: &Path,
    after: u64,
    listener: impl Listener,
) -> io::Result<Watch> {
    let path = folder.join(SOCKET_NAME);
    // Left by a process that was killed: the folder's lock says that nobody listens there.
    let _ = std::fs::remove_file(&path);
    let socket = match UnixListener::bind(&path) {
        Ok(socket) => Some(socket),
        Err(error) => {
            tracing::warn!(
                %error, path = %path.display(),
                "no socket in the data folder: keys and credit are seen within a second"
            );
            None
        }
    };
    let is_stopping = Arc::new(AtomicBool::new(false));
    let mut watcher = Watcher {
        store,
        after,
        listener,
        is_stopping: Arc::clone(&is_stopping),
    };
    let path = socket.is_some().then_some(path);
    let thread = thread::Builder::new()
        .name("cereus-watch".to_owned())
        .spawn(move || match socket {
            Some(socket) => watcher.serve(&socket),
            None => watcher.look_again_and_again(),
        })?;
    Ok(Watch {
        is_stopping,
        socket: path,
        thread,
    })
}

impl Watch {
    /// Returns when the thread has ended.
    pub(crate) fn stop(self) {
        self.is_stopping.store(true, Ordering::Release);
        match &self.socket {
            // The thread waits in `accept`. A connection wakes it, and it sees that it is to stop. Where
            // the socket's name is gone nobody can wake it, and it ends with the process.
            Some(path) => {
                if let Err(error) = UnixStream::connect(path) {
                    tracing::debug!(%error, "the watch's socket is gone");
                    return;
                }
            }
            None => self.thread.thread().unpark(),
        }
        let _ = self.thread.join();
        if let Some(path) = &self.socket {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Tells the coordinator of a folder, if one runs there, that something changed; returns when it
/// knows.
pub(super) fn ask_quietly(folder: &Path) {
    if let Err(error) = ask_coordinator(folder, CHANGES) {
        tracing::warn!(%error, "the coordinator did not say that it has seen the change");
    }
}

/// Waits until the coordinator of a folder, if one runs there, has written what it knows.
pub(super) fn settle_quietly(folder: &Path) {
    if let Err(error) = ask_coordinator(folder, SETTLE) {
        tracing::debug!(%error, "the coordinator did not say that it has written everything");
    }
}

/// The answer of the coordinator that runs on `folder`; `None` when none does.
pub fn ask_coordinator(folder: &Path, question: &str) -> io::Result<Option<String>> {
    let mut stream = match UnixStream::connect(folder.join(SOCKET_NAME)) {
        Ok(stream) => stream,
        // These errors mean that no coordinator listens: there is no socket, nobody behind it, or
        // the path is too long for one to exist.
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::NotFound
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::InvalidInput => Ok(None),
                _ => Err(error),
            };
        }
    };
    stream.set_read_timeout(Some(LINE_WAIT))?;
    stream.set_write_timeout(Some(LINE_WAIT))?;
    writeln!(stream, "{question}")?;
    let mut answer = String::new();
    stream.take(ANSWER_SIZE_MAX).read_to_string(&mut answer)?;
    match answer.strip_suffix('\n') {
        None => Err(io::ErrorKind::UnexpectedEof.into()),
        Some(FAILED) => Err(io::Error::other(
            "it does not understand, or cannot read its store",
        )),
        Some(answer) => Ok(Some(answer.to_owned())),
    }
}

struct Watcher<L> {
    store: Box<dyn Store>,
    after: u64,
    listener: L,
    is_stopping: Arc<AtomicBool>,
}

impl<L: Listener> Watcher<L> {
    fn serve(&mut self, socket: &UnixListener) {
        loop {
            let accepted = socket.accept();
            if self.is_stopping.load(Ordering::Acquire) {
                return;
            }
            let answered = accepted.and_then(|(stream, _)| self.answer(stream));
            if let Err(error) = answered {
                tracing::debug!(%error, "somebody knocked and went");
            }
        }
    }

    fn look_again_and_again(&mut self) {
        while !self.is_stopping.load(Ordering::Acquire) {
            if let Err(error) = self.look() {
                tracing::error!(%error, "what changed in the store cannot be read");
            }
            thread::park_timeout(LOOK_EVERY);
        }
    }

    fn answer(&mut self, mut stream: UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(LINE_WAIT))?;
        stream.set_write_timeout(Some(LINE_WAIT))?;
        let mut question = String::new();
        BufReader::new((&stream).take(QUESTION_SIZE_MAX)).read_line(&mut question)?;
        let answer = match question.trim_end() {
            CHANGES => self.look().map(|()| DONE.to_owned()),
            other => Ok(self.listener.asked(other).unwrap_or(FAILED.to_owned())),
        };
        let answer = answer.unwrap_or_else(|error| {
            tracing::error!(%error, "what changed in the store cannot be read");
            FAILED.to_owned()
        });
        writeln!(stream, "{answer}")
    }

    fn look(&mut self) -> Result<(), StoreError> {
        loop {
            let changes = self.store.changes(self.after)?;
            if changes.up_to == self.after {
                return Ok(());
            }
            self.listener.changed(&changes);
            self.after = changes.up_to;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Heard(mpsc::Sender<Changes>);

    impl Listener for Heard {
        fn changed(&mut self, changes: &Changes) {
            self.0.send(changes.clone()).unwrap();
        }

        fn asked(&mut self, question: &str) -> Option<String> {
            (question == "ping").then(|| "\"pong\"".to_owned())
        }
    }

    #[test]
    fn a_change_is_known_when_the_call_that_made_it_returns() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = super::super::open(folder.path()).unwrap();
        let after = store.everything().unwrap().up_to;
        let (tell, heard) = mpsc::channel();
        let watch = start(store, folder.path(), after, Heard(tell)).unwrap();

        let mut other = super::super::open(folder.path()).unwrap();
        let key = other.create_key("ada").unwrap();
        let told: Vec<Changes> = heard.try_iter().collect();
        assert_eq!(told.iter().flat_map(|it| &it.accounts).count(), 1);
        assert_eq!(told[0].keys[0].id, key.id);
        other.revoke_key(&key.id).unwrap();
        assert!(heard.try_recv().unwrap().keys[0].is_revoked);
        other.revoke_key(&key.id).unwrap();
        assert!(heard.try_recv().is_err(), "nothing changed");

        assert_eq!(
            ask_coordinator(folder.path(), "ping").unwrap().as_deref(),
            Some("\"pong\"")
        );
        assert!(ask_coordinator(folder.path(), "nonsense").is_err());
        watch.stop();
        assert_eq!(ask_coordinator(folder.path(), "ping").unwrap(), None);
    }

    #[test]
    fn where_a_path_is_too_long_for_a_socket_changes_are_seen_all_the_same() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("long".repeat(40));
        let mut store = super::super::open(&folder).unwrap();
        let after = store.everything().unwrap().up_to;
        let (tell, heard) = mpsc::channel();
        let watch = start(store, &folder, after, Heard(tell)).unwrap();
        super::super::open(&folder)
            .unwrap()
            .ensure_account("ada")
            .unwrap();
        let told = heard.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!(told.accounts.len(), 1);
        watch.stop();
    }
}
