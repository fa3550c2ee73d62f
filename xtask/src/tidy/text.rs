//! What the text of a file must not hold, and how long it may be.

use super::{File, Finding};

/// A file that is longer holds more than one purpose.
const RUST_LINES_MAX: usize = 800;
/// From here on it is worth asking.
const RUST_LINES_WARN: usize = 600;

/// Written in two halves, here and below, so that this file does not find itself.
const LEFTOVERS: [&str; 3] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];
/// What follows `#[`, or a comma inside `#[cfg_attr(`.
const SILENCERS: [&str; 2] = [concat!("ig", "nore"), concat!("should_", "panic")];
/// Folders that exist on somebody's machine and nowhere else.
const PLACES: [&str; 5] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/fa", "rm/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
];
/// The traces and the licence are quoted, not written here.
const QUOTED: [&str; 2] = ["traces/", "LICENSE"];
const WRITTEN: [&str; 5] = [".rs", ".toml", ".md", ".py", ".sh"];

pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let mut findings = vec![];
    for file in files {
        if file.is_rust() {
            check_length(file, &mut findings);
        }
        if QUOTED.iter().any(|quoted| file.path.starts_with(quoted)) {
            continue;
        }
        let is_written = WRITTEN.iter().any(|end| file.path.ends_with(end));
        for (line_ix, line) in file.text.lines().enumerate() {
            if let Some(place) = PLACES.iter().find(|place| has_place(line, place)) {
                let what = format!("names {place}, a folder of one machine");
                findings.push(Finding::error("paths", file.at(line_ix), what));
            }
            if let Some(word) = LEFTOVERS
                .iter()
                .find(|word| is_written && has_word(line, word))
            {
                let what = format!("says {word}: do it, or write down elsewhere what is missing");
                findings.push(Finding::error("leftovers", file.at(line_ix), what));
            }
            if let Some(word) = SILENCERS
                .iter()
                .find(|it| file.is_rust() && silences(line, it))
            {
                let what = format!("says {word}: a test runs, and asserts what it expects");
                findings.push(Finding::error("silenced", file.at(line_ix), what));
            }
        }
    }
    findings
}

fn check_length(file: &File, findings: &mut Vec<Finding>) {
    let lines = file.text.lines().count();
    if lines > RUST_LINES_MAX {
        let what =
            format!("has {lines} lines, {RUST_LINES_MAX} at most: split where the noun changes");
        findings.push(Finding::error("length", &file.path, what));
    } else if lines > RUST_LINES_WARN {
        let what = format!("has {lines} lines; {RUST_LINES_MAX} is the most");
        findings.push(Finding::warning("length", &file.path, what));
    }
}

/// The attribute itself, with or without an argument, or the same inside a `cfg_attr`.
fn silences(line: &str, word: &str) -> bool {
    let Some(attribute) = line.trim_start().strip_prefix("#[") else {
        return false;
    };
    attribute.starts_with(word)
        || (attribute.starts_with("cfg_attr")
            && attribute
                .split(',')
                .skip(1)
                .any(|it| it.trim_start().starts_with(word)))
}

/// `place` at the start of a path, not in the middle of one or of an address.
fn has_place(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|it| !(it.is_alphanumeric() || "._-~})>/*".contains(it)))
    })
}

fn has_word(line: &str, word: &str) -> bool {
    let is_part = |it: Option<char>| it.is_some_and(|it| it.is_alphanumeric() || it == '_');
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !is_part(before) && !is_part(after)
    })
}
