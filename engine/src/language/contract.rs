//! A name for all that turns a request into tokens: a hash over the tokenizer's, template's and config's
//! files and over the methods that read them. It enters the names of blocks, so nothing that was computed
//! before a change is found after it.

use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::{TEMPLATE_FILE, TOKENIZER_CONFIG};
use crate::model::{ModelError, read_json_if_any};

const LABEL: &str = "darkbloom.prompt-contract.v1";
/// By role, then by name; those that a folder lacks are left out.
const FILES: [(&str, &str); 4] = [
    ("config", "config.json"),
    ("template", TEMPLATE_FILE),
    ("tokenizer", "tokenizer.json"),
    ("tokenizer", TOKENIZER_CONFIG),
];
/// What reads the files, and what names blocks.
const METHODS: [(&str, &str); 3] = [
    ("block-hash", "darkbloom.prefix-block-chain.v1"),
    ("renderer", "cereus.jinja.v1"),
    ("tokenizer", "huggingface-tokenizer-json-v1"),
];

pub(super) fn contract(folder: &Path) -> Result<[u8; 32], ModelError> {
    let mut files = vec![];
    for (role, name) in FILES {
        if let Some(bytes) = read_json_if_any(folder, name)? {
            files.push((role, name, Sha256::digest(bytes)));
        }
    }
    let mut items = Sha256::new();
    let mut item = |bytes: &[u8]| {
        items.update((bytes.len() as u64).to_be_bytes());
        items.update(bytes);
    };
    item(LABEL.as_bytes());
    item(&(files.len() as u64).to_be_bytes());
    for (role, name, digest) in files {
        item(role.as_bytes());
        item(name.as_bytes());
        item(&digest);
    }
    for (name, value) in METHODS {
        item(name.as_bytes());
        item(value.as_bytes());
    }
    Ok(items.finalize().into())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn any_change_of_a_file_is_another_contract() {
        let folder = tempfile::tempdir().unwrap();
        let mut seen = vec![contract(folder.path()).unwrap()];
        for (_, name) in FILES {
            for text in ["{}", "{} "] {
                fs::write(folder.path().join(name), text).unwrap();
                seen.push(contract(folder.path()).unwrap());
            }
        }
        assert_eq!(seen.last(), Some(&contract(folder.path()).unwrap()));
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }
}
