//! `cargo xtask tidy`: what the compiler cannot see.
//!
//! Each check is a function from the tree to findings and knows nothing of the others. A check is
//! silent about what is not there yet and strict about what is.

mod allow;
mod arrows;
mod invariants;
mod layout;
mod named;
mod text;

#[cfg(test)]
mod tests;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::cli::TidyArgs;
use crate::failure::{Doing, Failure};
use crate::{project, say};

/// Larger files are data, not text that a person reads.
const TEXT_SIZE_MAX: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Error,
    Warning,
}

#[derive(Debug, PartialEq, Eq)]
struct Finding {
    check: &'static str,
    level: Level,
    /// A path from the top of the tree, with a line where one is meant.
    at: String,
    what: String,
}

impl Finding {
    fn error(check: &'static str, at: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            check,
            level: Level::Error,
            at: at.into(),
            what: what.into(),
        }
    }

    fn warning(check: &'static str, at: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            level: Level::Warning,
            ..Self::error(check, at, what)
        }
    }
}

/// One tracked file; `text` is empty where it is not text.
struct File {
    /// From the top of the tree, with forward slashes.
    path: String,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        Path::new(&self.path)
            .extension()
            .is_some_and(|end| end == "rs")
    }

    fn at(&self, line_ix: usize) -> String {
        format!("{}:{}", self.path, line_ix + 1)
    }
}

pub(crate) fn command(args: &TidyArgs) -> Result<(), Failure> {
    let findings = findings()?;
    if args.json {
        let rows: Vec<_> = findings
            .iter()
            .map(|finding| {
                let level = match finding.level {
                    Level::Error => "error",
                    Level::Warning => "warning",
                };
                json!({
                    "check": finding.check, "level": level, "at": finding.at, "what": finding.what,
                })
            })
            .collect();
        println!("{}", Value::from(rows));
    }
    verdict(&findings)
}

/// The stage of `ci`.
pub(crate) fn stage() -> Result<(), Failure> {
    verdict(&findings()?)
}

fn verdict(findings: &[Finding]) -> Result<(), Failure> {
    for finding in findings {
        let text = format!("{}: {} [{}]", finding.at, finding.what, finding.check);
        match finding.level {
            Level::Error => say::error(&text),
            Level::Warning => say::warning(&text),
        }
    }
    let errors = findings
        .iter()
        .filter(|finding| finding.level == Level::Error)
        .count();
    if errors == 0 {
        say::good("the tree is tidy");
        return Ok(());
    }
    Err(Failure::new(
        format!("the tree is not tidy: {errors} to mend"),
        "mend what is named above; what is allowed stands in xtask/src/tidy/allow.rs",
    ))
}

fn findings() -> Result<Vec<Finding>, Failure> {
    let files = read_tree()?;
    let mut packages = packages("Cargo.toml")?;
    if project::root().join("fuzz/Cargo.toml").is_file() {
        packages.extend(self::packages("fuzz/Cargo.toml")?);
    }
    let mut findings = arrows::check(&packages);
    findings.extend(invariants::check(&files));
    findings.extend(layout::check(&files));
    findings.extend(named::check(&files));
    findings.extend(text::check(&files));
    Ok(findings)
}

fn packages(manifest: &str) -> Result<Vec<Value>, Failure> {
    let mut metadata = project::metadata(&project::root().join(manifest))?;
    match metadata["packages"].take() {
        Value::Array(packages) => Ok(packages),
        _ => Err(Failure::new(
            format!("cargo's metadata of {manifest} names no packages"),
            "run `cargo metadata` and see what it prints",
        )),
    }
}

fn read_tree() -> Result<Vec<File>, Failure> {
    let root = project::root();
    let mut files = vec![];
    for path in project::files(&root)? {
        let full = root.join(&path);
        let shown = path.to_string_lossy().replace('\\', "/");
        let next = "make the tree readable";
        let size = fs::metadata(&full)
            .doing(format!("look at {shown}"), next)?
            .len();
        let bytes = if size <= TEXT_SIZE_MAX {
            fs::read(&full).doing(format!("read {shown}"), next)?
        } else {
            vec![]
        };
        files.push(File {
            path: shown,
            text: String::from_utf8(bytes).unwrap_or_default(),
        });
    }
    Ok(files)
}
