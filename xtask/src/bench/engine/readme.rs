//! The tables of docs/figures.md, between marks.

use std::fs;
use std::process::Command;
use std::thread;

use super::sides;
use crate::failure::{Doing, Failure};
use crate::{project, python};

const FILE: &str = "docs/figures.md";

/// Puts a part's table where the page has its marks.
pub(super) fn replace(part: &str, table: &str, machine: &str) -> Result<(), Failure> {
    let path = project::root().join(FILE);
    let text =
        fs::read_to_string(&path).doing("read docs/figures.md", "run this in a whole checkout")?;
    let told = format!("{table}\n`cargo xtask bench engine --only {part}`: {machine}.\n");
    let Some(text) = between_marks(&text, part, &told) else {
        return Err(Failure::new(
            format!("docs/figures.md has no place for the table of {part}"),
            format!("put {} and {} into it", begin(part), end(part)),
        ));
    };
    fs::write(&path, text).doing("write docs/figures.md", "make it writable")
}

fn begin(part: &str) -> String {
    format!("<!-- bench engine {part} -->")
}

fn end(part: &str) -> String {
    format!("<!-- end of bench engine {part} -->")
}

fn between_marks(text: &str, part: &str, told: &str) -> Option<String> {
    let (before, rest) = text.split_once(&begin(part))?;
    let (_, after) = rest.split_once(&end(part))?;
    Some(format!(
        "{before}{}\n\n{told}\n{}{after}",
        begin(part),
        end(part)
    ))
}

/// What was measured on, and against which versions.
pub(super) fn machine() -> String {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let packages = python::MLX_LM.packages.join(" and ").replace("==", " ");
    let system = std::env::consts::OS;
    let processor = processor();
    format!(
        "{processor}, {cores} cores, {system}; {packages}{}",
        openblas()
    )
}

/// By the name of its file, which has the version.
fn openblas() -> String {
    let path = sides::openblas()
        .ok()
        .and_then(|path| path.canonicalize().ok());
    let name = path.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    name.map_or_else(String::new, |name| format!("; {name}"))
}

fn processor() -> String {
    if let Ok(info) = fs::read_to_string("/proc/cpuinfo") {
        let line = info.lines().find_map(|it| it.strip_prefix("model name"));
        if let Some((_, name)) = line.and_then(|rest| rest.split_once(':')) {
            return name.trim().to_owned();
        }
    }
    // A Mac's way of telling.
    let asked = Command::new("sysctl")
        .args(["-n", "machdep.cpu.brand_string"])
        .output();
    let name = asked
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok());
    let name = name.map(|name| name.trim().to_owned());
    name.filter(|name| !name.is_empty())
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_replaces_what_stood_between_its_marks_and_nothing_else() {
        let text = "a\n<!-- bench engine x -->\nold\n<!-- end of bench engine x -->\nb\n";
        let once = between_marks(text, "x", "new\n").expect("it has the marks");
        assert!(once.starts_with("a\n") && once.ends_with("\nb\n"));
        assert!(once.contains("new") && !once.contains("old"));
        assert_eq!(between_marks(&once, "x", "new\n"), Some(once));
        assert_eq!(between_marks(text, "y", "new\n"), None);
    }
}
