//! Commands that a message names to try next, as they can be pasted into a shell.

use std::path::Path;

/// A command on the books in this folder.
#[must_use]
pub fn command_on(data: &Path, words: &str) -> String {
    let data = word(&data.display().to_string());
    format!("`cereus {words} --data {data}`")
}

/// As a shell reads it back.
#[must_use]
pub fn word(text: &str) -> String {
    let is_plain = |it: char| it.is_alphanumeric() || "/._-+,:@%".contains(it);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    let quoted = text.replace('\'', r"'\''");
    format!("'{quoted}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_can_be_pasted_into_a_shell() {
        let hint = |data: &str| command_on(Path::new(data), "key list");
        assert_eq!(hint("data"), "`cereus key list --data data`");
        assert_eq!(hint("my data"), "`cereus key list --data 'my data'`");
        assert_eq!(word("it's"), r"'it'\''s'");
        assert_eq!(word(""), "''");
    }
}
