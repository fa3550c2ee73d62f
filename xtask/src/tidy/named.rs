//! Every test that a table of laws names exists: each `path::function` in backquotes, of a file of Rust.

use super::invariants::defines;
use super::{File, Finding};

const CHECK: &str = "named tests";
const TABLES: [&str; 1] = ["docs/pitfalls.md"];

pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let mut findings = vec![];
    let tables = files
        .iter()
        .filter(|file| TABLES.contains(&file.path.as_str()));
    for table in tables {
        for (line_ix, line) in table.text.lines().enumerate() {
            for named in line.split('`').skip(1).step_by(2) {
                let Some((path, function)) = named.split_once(".rs::") else {
                    continue;
                };
                let path = format!("{path}.rs");
                let found = files.iter().find(|file| file.path == path);
                let is_there = found.is_some_and(|file| {
                    file.text.lines().any(|line| defines(line.trim(), function))
                });
                if !is_there {
                    let what = format!("names {named}, which does not exist");
                    findings.push(Finding::error(CHECK, table.at(line_ix), what));
                }
            }
        }
    }
    findings
}
