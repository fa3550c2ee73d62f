//! A name for a folder's weights that does not take reading them all: what was computed with other
//! weights must not be taken for these'.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::UNIX_EPOCH;

use sha2::{Digest as _, Sha256};

use super::error::ModelError;
use super::folder::{HEADER_BYTES_MAX, file_name, read_json, weight_files};

const LABEL: &[u8] = b"cereus.weights.v1";

/// Names the config and each file's name, size, header and time of change. A file that is written
/// anew with other numbers in it has another time; one that is only copied may too, and is then
/// another model's as far as this goes.
///
/// # Errors
/// A file is absent or cannot be read.
pub(crate) fn identity(folder: &Path) -> Result<[u8; 32], ModelError> {
    let mut items = Sha256::new();
    let mut item = |bytes: &[u8]| {
        items.update((bytes.len() as u64).to_be_bytes());
        items.update(bytes);
    };
    item(LABEL);
    item(&read_json(folder, "config.json")?);
    for path in weight_files(folder)? {
        let unreadable = |cause: std::io::Error| ModelError::Unreadable {
            file: file_name(&path),
            cause: cause.to_string(),
        };
        let mut file = File::open(&path).map_err(unreadable)?;
        let about = file.metadata().map_err(unreadable)?;
        let changed = about.modified().map_err(unreadable)?;
        let changed = changed.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(unreadable)?;
        let header_bytes = u64::from_le_bytes(length).min(HEADER_BYTES_MAX);
        let mut header = Vec::new();
        file.take(header_bytes)
            .read_to_end(&mut header)
            .map_err(unreadable)?;
        item(file_name(&path).as_bytes());
        item(&about.len().to_be_bytes());
        item(&changed.as_nanos().to_be_bytes());
        item(&header);
    }
    Ok(items.finalize().into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, SystemTime};

    use super::*;

    fn weights(header: &str, numbers: &[u8]) -> Vec<u8> {
        let length = (header.len() as u64).to_le_bytes();
        [&length, header.as_bytes(), numbers].concat()
    }

    #[test]
    fn any_change_of_config_or_weights_is_another_identity() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.json");
        let file = folder.path().join("model.safetensors");
        fs::write(&config, "{}").unwrap();
        fs::write(&file, weights("{\"a\":1}", &[1, 2])).unwrap();
        let name = || identity(folder.path()).unwrap();
        let mut seen = vec![name()];
        assert_eq!(name(), seen[0], "nothing changed");
        fs::write(&config, "{ }").unwrap();
        seen.push(name());
        let touched = SystemTime::now() + Duration::from_secs(5);
        File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_modified(touched)
            .unwrap();
        seen.push(name());
        for bytes in [
            weights("{\"b\":1}", &[1, 2]),
            weights("{\"b\":1}", &[1, 2, 3]),
        ] {
            fs::write(&file, bytes).unwrap();
            let opened = File::options().write(true).open(&file).unwrap();
            opened.set_modified(touched).unwrap();
            seen.push(name());
        }
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }
}
