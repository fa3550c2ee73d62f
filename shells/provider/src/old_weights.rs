//! The fingerprint and the size of a model's weights.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};

const BUFFER_SIZE: usize = 1 << 20;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weights {
    /// SHA-256 over all weight files in the order of their names, hexadecimal; empty where there are
    /// none.
    pub(crate) hash: String,
    pub(crate) size: u64,
}

/// Reads every `*.safetensors` of a folder.
pub(crate) fn weigh(folder: &Path) -> io::Result<Weights> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "safetensors") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut hash = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; BUFFER_SIZE];
    for path in &paths {
        let mut file = File::open(path)?;
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
            size += count as u64;
        }
    }
    if paths.is_empty() {
        return Ok(Weights::default());
    }
    Ok(Weights {
        hash: hex(&hash.finalize()),
        size,
    })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_follows_the_files_in_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(weigh(folder.path()).unwrap(), Weights::default());
        fs::write(folder.path().join("b.safetensors"), b"c").unwrap();
        fs::write(folder.path().join("a.safetensors"), b"ab").unwrap();
        fs::write(folder.path().join("config.json"), b"{}").unwrap();
        let weights = weigh(folder.path()).unwrap();
        // SHA-256 of "abc", FIPS 180.
        assert!(weights.hash.starts_with("ba7816bf8f01cfea414140de5dae2223"));
        assert_eq!(weights.size, 3);
    }
}
