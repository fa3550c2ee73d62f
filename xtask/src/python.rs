//! Virtual environments with exact versions from PyPI, each made on first use.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::failure::{Doing, Failure};
use crate::{project, run};

/// Some packages by themselves, so that neither's dependencies move the other's.
pub(crate) struct Environment {
    /// Below the cache.
    folder: &'static str,
    /// Exact, so that a run today and one next year meet the same code.
    pub(crate) packages: &'static [&'static str],
}

/// The client that the tests of the API use.
pub(crate) const SDK: Environment = Environment {
    folder: "venv",
    packages: &["openai==3.52.0"],
};
/// What chat templates are written for.
pub(crate) const JINJA: Environment = Environment {
    folder: "venv-jinja",
    packages: &["jinja2==3.1.6"],
};
/// What the engine is measured against. The extra brings MLX's own library on Linux.
pub(crate) const MLX_LM: Environment = Environment {
    folder: "venv-mlx-lm",
    packages: &["mlx-lm==0.32.2", "mlx[cpu]==0.32.2"],
};
/// What the coordinator is measured against.
pub(crate) const ROUTERS: Environment = Environment {
    folder: "venv-routers",
    packages: &["sglang-router==0.3.2"],
};

/// Lists what was installed; compared before asking pip.
const STAMP: &str = "installed";

impl Environment {
    pub(crate) fn interpreter(&self) -> Result<PathBuf, Failure> {
        let folder = project::cache().join(self.folder);
        let python = folder.join("bin/python");
        let stamp = folder.join(STAMP);
        let wanted = self.packages.join("\n");
        if python.is_file() && fs::read_to_string(&stamp).is_ok_and(|text| text == wanted) {
            return Ok(python);
        }
        run::quietly(
            "venv",
            &format!("Python makes {}", project::shown(&folder)),
            "run `cargo xtask setup`, which installs Python's venv",
            Command::new("python3")
                .args(["-m", "venv", "--clear"])
                .arg(&folder),
        )?;
        run::quietly(
            "pip",
            &format!("pip installs {}", self.packages.join(" ")),
            "check that PyPI can be reached",
            Command::new(&python)
                .args(["-m", "pip", "install", "--quiet"])
                .arg("--disable-pip-version-check")
                .args(self.packages),
        )?;
        fs::write(&stamp, wanted).doing("note what is installed", "make .cache writable")?;
        Ok(python)
    }
}
