//! The key that seals what is kept, in a file of its own.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use orion::util::secure_rand_bytes;
use thiserror::Error;

const KEY_SIZE: usize = 32;

/// Seals and names. Whoever has it can read what is kept, so it is kept elsewhere.
#[derive(Clone)]
pub struct DiskKey(pub(super) [u8; KEY_SIZE]);

impl fmt::Debug for DiskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiskKey")
    }
}

/// Why there is no key.
#[derive(Debug, Error)]
pub enum KeyError {
    #[error("others than its owner can read it (mode {0:o}); run chmod 600 on it")]
    Exposed(u32),
    #[error(
        "it holds no key; move it away and a new one is made, which begins with an empty cache"
    )]
    Malformed,
    #[error("the system gives no randomness for a new key")]
    NoRandomness,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl DiskKey {
    #[must_use]
    pub const fn from_bytes(bytes: [u8; KEY_SIZE]) -> Self {
        Self(bytes)
    }

    /// The key in a file that only its owner may read, made if there is none.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn load_or_make(path: &Path) -> Result<Self, KeyError> {
        match File::open(path) {
            Ok(file) => read(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(path)?;
                // Read back: another process may have been first, and then its key is the key.
                read(File::open(path)?)
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn read(mut file: File) -> Result<DiskKey, KeyError> {
    let mode = file.metadata()?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed(mode));
    }
    let mut bytes = [0; KEY_SIZE];
    file.read_exact(&mut bytes)
        .map_err(|_| KeyError::Malformed)?;
    if file.read(&mut [0])? != 0 {
        return Err(KeyError::Malformed);
    }
    Ok(DiskKey(bytes))
}

/// Writes a fresh key beside its place and links it there: it is there whole or not at all, and never
/// over another.
fn make(path: &Path) -> Result<(), KeyError> {
    let mut bytes = [0; KEY_SIZE];
    secure_rand_bytes(&mut bytes).map_err(|_| KeyError::NoRandomness)?;
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        match fs::hard_link(&beside, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    };
    let written = write();
    let _is_gone = fs::remove_file(&beside);
    Ok(written?)
}
