//! The machine's identity: a P-256 key in a file of its own, made at the first start.
//!
//! On a Mac with a Secure Enclave the key would live there and the trust be `hardware`; a key file
//! proves that it is the same machine again, trust `self_signed`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use cereus_core::wire::proof::MachineKey;
use thiserror::Error;
use zeroize::Zeroizing;

const FILE_NAME: &str = "machine.key";
const KEY_BYTES: usize = 32;
/// Only its owner may read the key.
const MODE: u32 = 0o600;
/// A draw outside the curve's order has odds of 2^-32; several in a row mean a broken source.
const DRAWS_MAX: u32 = 8;

/// Why there is no identity.
#[derive(Debug, Error)]
pub enum IdentityError {
    #[error("others can read the machine's key {path} (mode {mode:o}); run `chmod 600 {path}`")]
    Exposed { path: PathBuf, mode: u32 },
    #[error(
        "{0} holds no machine key; move it away and a new one is made (a new machine to the \
         coordinator)"
    )]
    Malformed(PathBuf),
    #[error("the system gives no randomness")]
    NoRandomness,
    #[error(
        "cannot use the machine's key {path} ({source}); choose another folder with --data, or \
         change its owner"
    )]
    Unusable { path: PathBuf, source: io::Error },
}

/// The key of this machine, made if there is none.
pub fn load(folder: &Path) -> Result<MachineKey, IdentityError> {
    let path = folder.join(FILE_NAME);
    let unusable = |source| IdentityError::Unusable {
        path: path.clone(),
        source,
    };
    fs::create_dir_all(folder).map_err(unusable)?;
    match File::open(&path) {
        Ok(file) => read(file, &path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(&path)?;
            // Read back: another process may have been first, and then its key is the machine's.
            read(File::open(&path).map_err(unusable)?, &path)
        }
        Err(error) => Err(unusable(error)),
    }
}

/// The key of the machine whose folder this is, if it has one.
pub fn find(folder: &Path) -> Result<Option<MachineKey>, IdentityError> {
    let path = folder.join(FILE_NAME);
    match File::open(&path) {
        Ok(file) => read(file, &path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::Unusable { path, source }),
    }
}

fn read(mut file: File, path: &Path) -> Result<MachineKey, IdentityError> {
    let unusable = |source| IdentityError::Unusable {
        path: path.to_owned(),
        source,
    };
    let mode = file.metadata().map_err(unusable)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    let malformed = || IdentityError::Malformed(path.to_owned());
    file.read_exact(bytes.as_mut()).map_err(|_| malformed())?;
    if file.read(&mut [0]).map_err(unusable)? != 0 {
        return Err(malformed());
    }
    MachineKey::from_bytes(*bytes).ok_or_else(malformed)
}

/// Writes a fresh key beside its place and links it there: it is there whole or not at all, and
/// never over another.
fn make(path: &Path) -> Result<(), IdentityError> {
    let unusable = |source| IdentityError::Unusable {
        path: path.to_owned(),
        source,
    };
    let bytes = fresh_key()?;
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(MODE)
            .open(&beside)?;
        file.write_all(bytes.as_ref())?;
        file.sync_all()?;
        match fs::hard_link(&beside, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    };
    let written = write();
    let _ = fs::remove_file(&beside);
    written.map_err(unusable)
}

fn fresh_key() -> Result<Zeroizing<[u8; KEY_BYTES]>, IdentityError> {
    for _ in 0..DRAWS_MAX {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(bytes.as_mut()).map_err(|_| IdentityError::NoRandomness)?;
        if MachineKey::from_bytes(*bytes).is_some() {
            return Ok(bytes);
        }
    }
    Err(IdentityError::NoRandomness)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_is_the_same_again() {
        let folder = tempfile::tempdir().unwrap();
        let first = load(folder.path()).unwrap().attested().text();
        assert_eq!(load(folder.path()).unwrap().attested().text(), first);
        let mode = fs::metadata(folder.path().join(FILE_NAME))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_cure() {
        let folder = tempfile::tempdir().unwrap();
        load(folder.path()).unwrap();
        let path = folder.path().join(FILE_NAME);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let message = load(folder.path()).unwrap_err().to_string();
        assert!(message.contains("chmod 600"), "{message}");
    }

    #[test]
    fn a_file_that_is_no_key_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        for content in [&b""[..], &[0; 32], &[1; 33]] {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(
                load(folder.path()),
                Err(IdentityError::Malformed(_))
            ));
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"").unwrap();
        assert!(
            load(&file.join("below"))
                .unwrap_err()
                .to_string()
                .contains("--data")
        );
    }
}
