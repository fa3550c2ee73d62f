//! The data folder: readable by its owner alone, used by one coordinator at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use super::{FILE_NAME, StoreError};

const LOCK_NAME: &str = "lock";
/// The owner reads, writes and enters; nobody else does anything.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const OTHERS: u32 = 0o077;
/// Set on folders that belong to everybody, such as `/tmp`.
const STICKY: u32 = 0o1000;

/// Held by a running coordinator: at most one for a data folder.
#[derive(Debug)]
pub struct FolderLock {
    file: File,
}

/// Outright, because a child that is being started holds the file as well until it runs.
impl Drop for FolderLock {
    fn drop(&mut self) {
        // Closing the file would release the lock as well, but only once a child that is being
        // started has closed its copy.
        let _ = self.file.unlock();
    }
}

/// Whether somebody holds the lock of a folder: a coordinator, or for a moment a command.
#[must_use]
pub fn is_served(folder: &Path) -> bool {
    matches!(FolderLock::take(folder), Err(StoreError::InUse { .. }))
}

impl FolderLock {
    pub fn take(folder: &Path) -> Result<Self, StoreError> {
        make_folder(folder)?;
        let path = folder.join(LOCK_NAME);
        let file = private_file(&path).map_err(|source| unwritable(folder, source))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse {
                path: folder.to_owned(),
            }),
            Err(TryLockError::Error(source)) => Err(unwritable(folder, source)),
        }
    }
}

/// Makes the folder, for its owner alone. One that was made before is closed to others if it is
/// ours: it holds our database, and nobody shares it.
pub(crate) fn make_folder(folder: &Path) -> Result<(), StoreError> {
    if !folder.exists() {
        return DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(folder)
            .map_err(|source| unwritable(folder, source));
    }
    let about = fs::metadata(folder).map_err(|source| unwritable(folder, source))?;
    if !about.is_dir() {
        return Err(unwritable(folder, io::Error::other("not a folder")));
    }
    let mode = about.permissions().mode();
    let is_ours = folder.join(FILE_NAME).exists() && mode & STICKY == 0;
    if mode & OTHERS != 0
        && is_ours
        && let Err(error) = fs::set_permissions(folder, Permissions::from_mode(FOLDER_MODE))
    {
        tracing::warn!(%error, folder = %folder.display(), "others may read the data folder");
    }
    Ok(())
}

/// Opens a file for its owner alone, made if it is not there; closes an older one to others.
pub(crate) fn private_file(path: &Path) -> io::Result<File> {
    private(path, OpenOptions::new().write(true).truncate(false))
}

/// The same of a file that only grows: what is written goes to its end, wherever that is by then.
pub(super) fn private_growing_file(path: &Path) -> io::Result<File> {
    private(path, OpenOptions::new().append(true))
}

fn private(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let file = options.read(true).create(true).mode(FILE_MODE).open(path)?;
    if file.metadata()?.permissions().mode() & OTHERS != 0 {
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    }
    Ok(file)
}

pub(super) fn unwritable(folder: &Path, source: io::Error) -> StoreError {
    StoreError::Folder {
        path: folder.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_folder_serves_one_coordinator() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::take(folder.path()).unwrap();
        assert!(matches!(
            FolderLock::take(folder.path()),
            Err(StoreError::InUse { .. })
        ));
        assert!(is_served(folder.path()));
        drop(first);
        assert!(!is_served(folder.path()));
        FolderLock::take(folder.path()).unwrap();
    }

    #[test]
    fn what_holds_money_and_keys_is_open_to_its_owner_alone() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("data");
        let _lock = FolderLock::take(&folder).unwrap();
        let mut store = super::super::open(&folder).unwrap();
        store.create_key("ada").unwrap();
        assert_eq!(mode(&folder), 0o700);
        let names: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(names.len() >= 4, "database, its log, its index, the lock");
        for name in names {
            assert_eq!(mode(&name), 0o600, "{}", name.display());
        }
    }

    #[test]
    fn what_an_older_build_left_open_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        drop(super::super::open(folder.path()).unwrap());
        let file = folder.path().join(FILE_NAME);
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        drop(super::super::open(folder.path()).unwrap());
        assert_eq!((mode(folder.path()), mode(&file)), (0o700, 0o600));
    }

    #[test]
    fn a_folder_that_everybody_shares_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        drop(super::super::open(folder.path()).unwrap());
        fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
        drop(super::super::open(folder.path()).unwrap());
        assert_eq!(mode(folder.path()), 0o777);
    }
}
