//! Hashes that were computed before, in a file of the provider's data folder: many gigabytes are
//! not read again at each start.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::files::FilesError;
use super::hash::{Fingerprint, fingerprint, weight_hash};

const FILE_NAME: &str = "weight-hashes.json";
/// More is no file of ours.
const FILE_SIZE_MAX: u64 = 1 << 20;
/// Folders that are remembered; the file is begun anew beyond.
const FOLDERS_MAX: usize = 1_024;

/// See the module.
#[derive(Clone, Debug)]
pub struct KnownHashes {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    fingerprint: Fingerprint,
    hash: String,
}

impl KnownHashes {
    /// What is not there or cannot be read is not known.
    #[must_use]
    pub fn open(data: &Path) -> Self {
        let path = data.join(FILE_NAME);
        let is_ours = fs::metadata(&path).is_ok_and(|file| file.len() <= FILE_SIZE_MAX);
        let text = is_ours.then(|| fs::read(&path).ok()).flatten();
        Self {
            entries: text.and_then(|text| read(&text)).unwrap_or_default(),
            path,
        }
    }

    /// The hash of a folder that nobody has touched since it was computed.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn find(&self, folder: &Path) -> Result<Option<String>, FilesError> {
        let Some(entry) = self.entries.get(&key(folder)) else {
            return Ok(None);
        };
        let is_untouched = fingerprint(folder)? == entry.fingerprint;
        Ok(is_untouched.then(|| entry.hash.clone()))
    }

    /// The hash of a folder, computed only if its files were touched since the last time.
    ///
    /// # Errors
    /// A file of it cannot be read, or was changed while it was.
    pub fn hash(&mut self, folder: &Path) -> Result<String, FilesError> {
        if let Some(hash) = self.find(folder)? {
            return Ok(hash);
        }
        let before = fingerprint(folder)?;
        let hash = weight_hash(folder)?;
        if self.entries.len() >= FOLDERS_MAX {
            self.entries.clear();
        }
        let entry = Entry {
            fingerprint: before,
            hash: hash.clone(),
        };
        self.entries.insert(key(folder), entry);
        if let Err(error) = self.save() {
            tracing::warn!(
                %error,
                "cannot write {}; weights are hashed again at the next start",
                self.path.display()
            );
        }
        Ok(hash)
    }

    /// Written beside its place and moved there: it is there whole or as it was.
    fn save(&self) -> std::io::Result<()> {
        let entries: serde_json::Map<String, Value> = self
            .entries
            .iter()
            .map(|(folder, entry)| {
                let value = json!({"fingerprint": entry.fingerprint.0, "hash": entry.hash});
                (folder.clone(), value)
            })
            .collect();
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let beside = self
            .path
            .with_extension(format!("new-{}", std::process::id()));
        fs::write(&beside, Value::Object(entries).to_string())?;
        fs::rename(&beside, &self.path)
    }
}

fn read(text: &[u8]) -> Option<BTreeMap<String, Entry>> {
    let Value::Object(object) = serde_json::from_slice(text).ok()? else {
        return None;
    };
    let entry = |(folder, value): (String, Value)| {
        let text = |name: &str| Some(value.get(name)?.as_str()?.to_owned());
        let fingerprint = Fingerprint(text("fingerprint")?);
        let hash = text("hash")?;
        Some((folder, Entry { fingerprint, hash }))
    };
    object.into_iter().take(FOLDERS_MAX).map(entry).collect()
}

fn key(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    folder.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_hash_is_computed_again_only_when_a_file_was_touched() {
        let (data, model) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = model.path().join("model.safetensors");
        fs::write(&path, b"weights").unwrap();
        let mut known = KnownHashes::open(data.path());
        assert_eq!(known.find(model.path()).unwrap(), None);
        let hash = known.hash(model.path()).unwrap();
        assert_eq!(hash, weight_hash(model.path()).unwrap());

        // Same name, size and time: the file is believed to be the same, and is not read.
        let touched_at = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, b"WEIGHTS").unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(touched_at).unwrap();
        let mut again = KnownHashes::open(data.path());
        assert_eq!(again.find(model.path()).unwrap(), Some(hash.clone()));
        assert_eq!(again.hash(model.path()).unwrap(), hash);

        file.set_modified(SystemTime::now() + Duration::from_secs(9))
            .unwrap();
        assert_eq!(again.find(model.path()).unwrap(), None);
        assert_ne!(again.hash(model.path()).unwrap(), hash);
        assert_eq!(fs::read_dir(data.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_file_is_begun_anew() {
        let (data, model) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(model.path().join("model.safetensors"), b"weights").unwrap();
        for damage in ["", "[]", "{\"a\":1}", "{\"a\":{\"hash\":\"b\"}}"] {
            fs::write(data.path().join(FILE_NAME), damage).unwrap();
            let mut known = KnownHashes::open(data.path());
            assert_eq!(known.find(model.path()).unwrap(), None);
            known.hash(model.path()).unwrap();
            assert!(
                KnownHashes::open(data.path())
                    .find(model.path())
                    .unwrap()
                    .is_some()
            );
        }
    }
}
