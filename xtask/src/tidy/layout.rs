//! What stands where: the top of the tree, the heads of the pure crates, the lock file's sources.

use super::allow::{PURE_ATTRIBUTES, PURE_HEADS, TOP_FILES, TOP_FOLDERS};
use super::{File, Finding};

const CHECK: &str = "layout";
const CRATES_IO: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";

pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let mut findings = vec![];
    let mut strangers: Vec<&str> = files
        .iter()
        .filter_map(|file| stranger(&file.path))
        .collect();
    strangers.dedup();
    for name in strangers {
        findings.push(Finding::error(
            CHECK,
            name,
            "does not belong at the top of the tree: it has a place in one of the crates",
        ));
    }
    for file in files {
        if PURE_HEADS.contains(&file.path.as_str()) {
            check_head(file, &mut findings);
        }
        if file.path.ends_with("Cargo.lock") {
            check_lock(file, &mut findings);
        }
    }
    findings
}

/// The part of `path` at the top of the tree, if it has no business there.
fn stranger(path: &str) -> Option<&str> {
    match path.split_once('/') {
        Some((folder, _)) => (!TOP_FOLDERS.contains(&folder)).then_some(folder),
        None => (!TOP_FILES.contains(&path)).then_some(path),
    }
}

fn check_head(file: &File, findings: &mut Vec<Finding>) {
    // A crate of nothing but its description has nothing to guard yet.
    if !file
        .text
        .lines()
        .any(|line| !line.trim().is_empty() && !line.starts_with("//"))
    {
        return;
    }
    let head: String = file
        .text
        .lines()
        .filter(|line| line.starts_with("#!["))
        .collect();
    for attribute in PURE_ATTRIBUTES {
        if !head.contains(attribute) {
            let what = format!("is the head of a pure crate and does not say {attribute}");
            findings.push(Finding::error(CHECK, &file.path, what));
        }
    }
}

/// Anyone must be able to build what the lock file names.
fn check_lock(file: &File, findings: &mut Vec<Finding>) {
    for (line_ix, line) in file.text.lines().enumerate() {
        if line.starts_with("source = ") && line != CRATES_IO {
            findings.push(Finding::error(
                CHECK,
                file.at(line_ix),
                "is not from crates.io",
            ));
        }
    }
}
