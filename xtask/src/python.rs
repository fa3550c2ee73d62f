//! The virtual environment of the tests, with exact versions from PyPI.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::failure::{Doing, Failure};
use crate::{project, run};

/// What the tests import. Exact, so that a run today and one next year test the same client.
const PACKAGES: &[&str] = &["openai==3.52.0"];
/// Lists what was installed; compared before asking pip.
const STAMP: &str = "installed";

/// The interpreter of the environment, made on first use.
pub(crate) fn interpreter() -> Result<PathBuf, Failure> {
    let folder = project::cache().join("venv");
    let python = folder.join("bin/python");
    let stamp = folder.join(STAMP);
    let wanted = PACKAGES.join("\n");
    if python.is_file() && fs::read_to_string(&stamp).is_ok_and(|text| text == wanted) {
        return Ok(python);
    }
    run::quietly(
        "venv",
        "Python makes .cache/venv",
        "run `cargo xtask setup`, which installs Python's venv",
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&folder),
    )?;
    run::quietly(
        "pip",
        &format!("pip installs {}", PACKAGES.join(" ")),
        "check that PyPI can be reached",
        Command::new(&python)
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ])
            .args(PACKAGES),
    )?;
    fs::write(&stamp, wanted).doing("note what is installed", "make .cache writable")?;
    Ok(python)
}
