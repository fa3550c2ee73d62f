//! Every numbered invariant has a check, and every check an entry.
//!
//! A register is a table of an `INVARIANTS.md`: number, statement, and the functions that check it,
//! each written as `path::function` in backquotes. A function counts as a check when its own text or
//! the comment above it names the number.

use std::collections::BTreeMap;

use super::{File, Finding};

const CHECK: &str = "invariants";
/// Each with what its numbers begin with.
pub(super) const REGISTERS: [Register; 2] = [
    Register {
        path: "sim/INVARIANTS.md",
        prefix: "INV-",
    },
    Register {
        path: "engine/INVARIANTS.md",
        prefix: "ENG-",
    },
];
const DIGITS: usize = 2;
/// Stands in the third column of an invariant that is stated and not yet checked.
const NOT_YET: &str = "not yet";
/// Where an invariant may be claimed.
const CLAIMANTS: [&str; 5] = ["core/", "engine/", "sim/", "shells/", "fuzz/"];

pub(super) struct Register {
    pub(super) path: &'static str,
    prefix: &'static str,
}

pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let mut findings = vec![];
    for register in &REGISTERS {
        findings.extend(check_register(register, files));
    }
    findings
}

fn check_register(&Register { path, prefix }: &Register, files: &[File]) -> Vec<Finding> {
    let claims = claims(prefix, files);
    let Some(register) = files.iter().find(|file| file.path == path) else {
        if claims.is_empty() {
            return vec![];
        }
        let what = "is missing, and the code names invariants";
        return vec![Finding::error(CHECK, path, what)];
    };
    let mut findings = vec![];
    let mut rows: BTreeMap<String, usize> = BTreeMap::new();
    for (line_ix, line) in register.text.lines().enumerate() {
        let Some((number, places)) = row(prefix, line) else {
            continue;
        };
        let at = register.at(line_ix);
        if rows.insert(number.clone(), line_ix).is_some() {
            findings.push(Finding::error(CHECK, &at, format!("{number} has two rows")));
        }
        if places != NOT_YET {
            check_row(&number, places, &at, files, &mut findings);
        } else if claims.contains_key(&number) {
            let what = format!("{number} is claimed by the code and checked by nothing");
            findings.push(Finding::error(CHECK, &at, what));
        } else {
            let what = format!("{number} is not checked yet");
            findings.push(Finding::warning(CHECK, &at, what));
        }
    }
    for (number, at) in claims {
        if !rows.contains_key(&number) {
            let what = format!("names {number}, which {path} does not list");
            findings.push(Finding::error(CHECK, at, what));
        }
    }
    findings
}

fn check_row(number: &str, places: &str, at: &str, files: &[File], findings: &mut Vec<Finding>) {
    let mut named = places.split('`').skip(1).step_by(2).peekable();
    if named.peek().is_none() {
        let what = format!("{number} names no check: write `path::function`");
        findings.push(Finding::error(CHECK, at, what));
    }
    for place in named {
        if let Err(why) = find_check(number, place, files) {
            findings.push(Finding::error(
                CHECK,
                at,
                format!("{number}: {place} {why}"),
            ));
        }
    }
}

fn find_check(number: &str, place: &str, files: &[File]) -> Result<(), String> {
    let Some((path, function)) = place.split_once("::") else {
        return Err("is not of the form path::function".to_owned());
    };
    let Some(file) = files.iter().find(|file| file.path == path) else {
        return Err("names a file that does not exist".to_owned());
    };
    let lines: Vec<&str> = file.text.lines().collect();
    let mut is_there = false;
    for line_ix in (0..lines.len()).filter(|&line_ix| defines(lines[line_ix], function)) {
        is_there = true;
        if text_of(&lines, line_ix)
            .iter()
            .any(|line| line.contains(number))
        {
            return Ok(());
        }
    }
    Err(if is_there {
        format!("does not name {number}")
    } else {
        "does not exist".to_owned()
    })
}

/// Whether `line` is where `function` is defined.
pub(super) fn defines(line: &str, function: &str) -> bool {
    let Some((before, after)) = line.split_once("fn ") else {
        return false;
    };
    let rest = after.strip_prefix(function);
    !before.trim_start().starts_with("//") && rest.is_some_and(|it| it.starts_with(['(', '<']))
}

/// The function whose first line is at `line_ix`, with the comments and attributes above it.
fn text_of<'a>(lines: &'a [&'a str], line_ix: usize) -> &'a [&'a str] {
    let is_above = |line: &&&str| {
        let line = line.trim_start();
        line.starts_with("//") || line.starts_with("#[")
    };
    let above = lines[..line_ix].iter().rev().take_while(is_above).count();
    // Formatted code closes a function where it began.
    let indent = lines[line_ix].len() - lines[line_ix].trim_start().len();
    let close = format!("{:indent$}}}", "");
    let below = lines[line_ix..]
        .iter()
        .position(|line| *line == close)
        .unwrap_or_default();
    &lines[line_ix - above..=line_ix + below]
}

/// The number and the third column of a row of the register.
fn row<'a>(prefix: &str, line: &'a str) -> Option<(String, &'a str)> {
    let mut cells = line.trim().strip_prefix('|')?.split('|').map(str::trim);
    let number = cells.next()?;
    let _statement = cells.next()?;
    let places = cells.next()?;
    let is_number = numbers(prefix, number)
        .first()
        .is_some_and(|it| it == number);
    is_number.then(|| (number.to_owned(), places))
}

/// Every number that the code names, with the first place that does.
fn claims(prefix: &str, files: &[File]) -> BTreeMap<String, String> {
    let mut claims = BTreeMap::new();
    let claimants = files
        .iter()
        .filter(|file| file.is_rust() && CLAIMANTS.iter().any(|it| file.path.starts_with(it)));
    for file in claimants {
        for (line_ix, line) in file.text.lines().enumerate() {
            for number in numbers(prefix, line) {
                claims.entry(number).or_insert_with(|| file.at(line_ix));
            }
        }
    }
    claims
}

/// Every number in `line` that begins with `prefix`.
fn numbers(prefix: &str, line: &str) -> Vec<String> {
    line.match_indices(prefix)
        .filter_map(|(at, _)| line.get(at..at + prefix.len() + DIGITS))
        .filter(|text| {
            text[prefix.len()..]
                .bytes()
                .all(|byte| byte.is_ascii_digit())
        })
        .map(str::to_owned)
        .collect()
}
