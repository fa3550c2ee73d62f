//! Whether the data folder is still there and takes files.
//!
//! Open files outlive their names: a coordinator whose folder was deleted or swapped writes on into
//! files that no start will ever read.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use thiserror::Error;

use super::FILE_NAME;
use super::log::{Changed, Log};

/// Made and removed at every look.
const PROBE_NAME: &str = "is-writable";

/// The folder as a start found it.
#[derive(Debug)]
pub(crate) struct Presence {
    folder: PathBuf,
    found: [Place; 2],
    log: Option<Arc<Mutex<Log>>>,
}

/// Device and inode of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place(u64, u64);

/// What is wrong with a data folder under a coordinator that runs.
#[derive(Debug, Error)]
pub(crate) enum Trouble {
    /// For good: what is written from now on is lost.
    #[error("{} was deleted or replaced", .0.display())]
    Gone(PathBuf),
    /// For good: the log of transfers cannot be written any further.
    #[error(transparent)]
    Log(#[from] Changed),
    /// May pass.
    #[error("{} takes no new files ({})", folder.display(), source)]
    Unwritable { folder: PathBuf, source: io::Error },
}

impl Presence {
    /// Of a folder that holds a database.
    pub(crate) fn of(folder: &Path) -> io::Result<Self> {
        Ok(Self {
            folder: folder.to_owned(),
            found: places(folder)?,
            log: None,
        })
    }

    /// From now on it looks at the log as well.
    pub(crate) fn with_log(self, log: Arc<Mutex<Log>>) -> Self {
        Self {
            log: Some(log),
            ..self
        }
    }

    /// What somebody else did to the log, if that was seen or can be seen now.
    pub(crate) fn look_at_log(&self) -> Result<(), Changed> {
        let Some(log) = &self.log else {
            return Ok(());
        };
        log.lock().expect("no holder of this lock panics").look()
    }

    pub(crate) fn look(&self) -> Result<(), Trouble> {
        match places(&self.folder) {
            Ok(found) if found == self.found => {}
            Ok(_) => return Err(Trouble::Gone(self.folder.clone())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Trouble::Gone(self.folder.clone()));
            }
            Err(error) => return Err(self.unwritable(error)),
        }
        self.look_at_log()?;
        let probe = self.folder.join(PROBE_NAME);
        File::create(&probe)
            .and_then(|_| fs::remove_file(&probe))
            .map_err(|error| self.unwritable(error))
    }

    fn unwritable(&self, source: io::Error) -> Trouble {
        Trouble::Unwritable {
            folder: self.folder.clone(),
            source,
        }
    }
}

fn places(folder: &Path) -> io::Result<[Place; 2]> {
    let place = |path: &Path| fs::metadata(path).map(|about| Place(about.dev(), about.ino()));
    Ok([place(folder)?, place(&folder.join(FILE_NAME))?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(folder: &Path) -> Presence {
        File::create(folder.join(FILE_NAME)).unwrap();
        Presence::of(folder).unwrap()
    }

    #[test]
    fn a_folder_that_is_as_it_was_is_no_trouble_and_keeps_nothing_of_a_look() {
        let folder = tempfile::tempdir().unwrap();
        let presence = made(folder.path());
        presence.look().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_or_a_database_that_is_deleted_or_replaced_is_gone() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("data");
        fs::create_dir(&folder).unwrap();
        let presence = made(&folder);
        fs::rename(folder.join(FILE_NAME), outer.path().join("moved")).unwrap();
        assert!(matches!(presence.look(), Err(Trouble::Gone(_))));
        File::create(folder.join(FILE_NAME)).unwrap();
        assert!(matches!(presence.look(), Err(Trouble::Gone(_))));
        fs::rename(outer.path().join("moved"), folder.join(FILE_NAME)).unwrap();
        presence.look().unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert!(matches!(presence.look(), Err(Trouble::Gone(_))));
    }

    #[test]
    fn a_log_that_is_cut_under_its_writer_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(Mutex::new(Log::open(folder.path(), 0).unwrap()));
        let presence = made(folder.path()).with_log(log);
        presence.look().unwrap();
        fs::write(folder.path().join("transfers.1.log"), "x").unwrap();
        let trouble = presence.look().unwrap_err();
        assert!(matches!(trouble, Trouble::Log(_)), "{trouble}");
        assert!(trouble.to_string().contains("transfers.1.log"), "{trouble}");
    }

    #[test]
    fn a_folder_that_takes_no_file_is_not_gone() {
        let folder = tempfile::tempdir().unwrap();
        let presence = made(folder.path());
        // What root meets too, unlike permissions.
        let obstacle = folder.path().join(PROBE_NAME);
        fs::create_dir(&obstacle).unwrap();
        assert!(matches!(presence.look(), Err(Trouble::Unwritable { .. })));
        fs::remove_dir(&obstacle).unwrap();
        presence.look().unwrap();
    }
}
