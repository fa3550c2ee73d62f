//! The hash that names a model's files to the coordinator; and a fingerprint of paths, sizes and
//! times, which shows without reading the weights that nobody has changed them since, so that the hash
//! still holds.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::files::{FilesError, model_files};

const READ_SIZE: usize = 64 << 10;

/// Paths, sizes and times of change of a model's files, as one hexadecimal text. Equal texts: nobody
/// has touched them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub String);

/// Lower-case hexadecimal SHA-256 over the raw SHA-256 of each file that counts, in the order of
/// their relative paths. Names do not enter it, only their order.
///
/// # Errors
/// Any file of the folder that counts cannot be read: there is no hash of a part of a model.
pub fn weight_hash(folder: &Path) -> Result<String, FilesError> {
    let mut whole = Sha256::new();
    let mut buffer = vec![0; READ_SIZE];
    for file in model_files(folder)? {
        let digest = file_digest(&file.path, &mut buffer);
        whole.update(digest.map_err(|source| FilesError::Unreadable {
            path: file.path,
            source,
        })?);
    }
    Ok(hex::encode(whole.finalize()))
}

/// # Errors
/// The folder cannot be listed.
pub fn fingerprint(folder: &Path) -> Result<Fingerprint, FilesError> {
    let mut hash = Sha256::new();
    for file in model_files(folder)? {
        let path = file.relative.as_os_str().as_bytes();
        hash.update((path.len() as u64).to_le_bytes());
        hash.update(path);
        hash.update(file.size_bytes.to_le_bytes());
        hash.update(file.changed_ns.to_le_bytes());
    }
    Ok(Fingerprint(hex::encode(hash.finalize())))
}

fn file_digest(path: &Path, buffer: &mut [u8]) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    loop {
        let count = file.read(buffer)?;
        if count == 0 {
            return Ok(hash.finalize().into());
        }
        hash.update(&buffer[..count]);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, SystemTime};

    use super::*;

    /// What this lays down, the few lines above [`VECTOR`] hash as well.
    fn model() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let big: Vec<u8> = (0..200_000_u32).map(|ix| (ix % 251) as u8).collect();
        let files: [(&str, &[u8]); 11] = [
            ("config.json", b"{}"),
            ("model-00001.safetensors", &big),
            ("model-00002.safetensors", b"tail"),
            ("text/vocab.json", b"nested"),
            ("text-b.npz", b"before text/ by its bytes"),
            ("text/weights.bin", b"deep"),
            ("Config.json", b"another case"),
            ("README.md", b"not counted"),
            (".hidden/config.json", b"not counted"),
            (".config.json", b"not counted"),
            ("weights.SAFETENSORS", b"not counted"),
        ];
        for (name, bytes) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        folder
    }

    /// ```python
    /// from hashlib import sha256
    /// big = bytes(i % 251 for i in range(200_000))
    /// files = {b"config.json": b"{}", b"model-00001.safetensors": big,
    ///          b"model-00002.safetensors": b"tail", b"text/vocab.json": b"nested",
    ///          b"text-b.npz": b"before text/ by its bytes", b"text/weights.bin": b"deep"}
    /// print(sha256(b"".join(sha256(files[n]).digest() for n in sorted(files))).hexdigest())
    /// ```
    const VECTOR: &str = "f4e6038cd871c30d837c899850e4cb8902288ea2f7025d78e4401700627032bd";

    #[test]
    fn the_hash_is_the_digest_of_the_digests_in_the_order_of_the_paths() {
        assert_eq!(weight_hash(model().path()).unwrap(), VECTOR);
    }

    #[test]
    fn a_folder_of_links_hashes_as_what_they_lead_to() {
        let (real, linked) = (model(), tempfile::tempdir().unwrap());
        for entry in fs::read_dir(real.path()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                let link = linked.path().join(entry.file_name());
                std::os::unix::fs::symlink(entry.path(), link).unwrap();
            }
        }
        fs::create_dir(linked.path().join("text")).unwrap();
        for name in ["text/vocab.json", "text/weights.bin"] {
            fs::copy(real.path().join(name), linked.path().join(name)).unwrap();
        }
        assert_eq!(weight_hash(linked.path()).unwrap(), VECTOR);
    }

    #[test]
    fn a_file_that_cannot_be_read_leaves_no_hash() {
        let folder = model();
        let missing = folder.path().join("nowhere");
        let link = folder.path().join("lost.safetensors");
        std::os::unix::fs::symlink(missing, link).unwrap();
        let error = weight_hash(folder.path()).unwrap_err().to_string();
        assert!(error.contains("lost.safetensors"), "{error}");
    }

    #[test]
    fn the_fingerprint_follows_paths_sizes_and_times_and_nothing_else() {
        let folder = model();
        let print = || fingerprint(folder.path()).unwrap();
        let first = print();
        assert_eq!(print(), first);
        fs::write(folder.path().join("README.md"), b"changed").unwrap();
        assert_eq!(print(), first);

        let path = folder.path().join("config.json");
        let file = File::options().write(true).open(&path).unwrap();
        let changed_at = file.metadata().unwrap().modified().unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(9))
            .unwrap();
        assert_ne!(print(), first);
        file.set_modified(changed_at).unwrap();
        assert_eq!(print(), first);

        fs::rename(&path, folder.path().join("generation_config.json")).unwrap();
        assert_ne!(print(), first);
    }
}
