//! The data folder belongs to one process at a time. It holds the machine's key, and a coordinator
//! lets only the newest connection of a machine live: two providers on one folder would take turns
//! at throwing each other out, and cut each other's answers.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

use crate::ProviderError;

const LOCK_NAME: &str = "provider.lock";

/// Held for as long as the process serves; the system lets go of it when the process dies.
#[derive(Debug)]
pub(crate) struct FolderLock {
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

impl FolderLock {
    /// Makes the folder if it is not there.
    pub(crate) fn take(folder: &Path) -> Result<Self, ProviderError> {
        let unusable = |source: io::Error| ProviderError::Folder {
            folder: folder.to_owned(),
            source,
        };
        if folder.exists() && !folder.is_dir() {
            return Err(unusable(io::Error::other("not a folder")));
        }
        fs::create_dir_all(folder).map_err(unusable)?;
        let file = File::create(folder.join(LOCK_NAME)).map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file }),
            Err(TryLockError::WouldBlock) => Err(ProviderError::FolderInUse(folder.to_owned())),
            Err(TryLockError::Error(source)) => Err(unusable(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_provider_on_one_folder_is_refused_until_the_first_has_gone() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::take(folder.path()).unwrap();
        let refused = FolderLock::take(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("another provider"), "{refused}");
        assert!(refused.contains("--data"), "{refused}");
        drop(first);
        FolderLock::take(folder.path()).unwrap();
    }

    #[test]
    fn a_file_is_said_to_be_no_folder() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = FolderLock::take(file.path()).unwrap_err().to_string();
        assert!(refused.contains("(not a folder)"), "{refused}");
    }
}
