//! Who is compared: the engine, and mlx-lm in the ways that it may be run on this machine.

use std::path::PathBuf;
use std::process::Command;

use crate::failure::Failure;
use crate::python;

/// The library that stands in front of the one that MLX's wheel brings.
const OPENBLAS: &str = "libopenblas.so.0";

pub(super) struct Sides {
    pub(super) ours: Ours,
    /// Never empty.
    pub(super) theirs: Vec<MlxLm>,
}

/// The release build.
pub(super) struct Ours {
    binaries: PathBuf,
}

/// mlx-lm, run in one way.
pub(super) struct MlxLm {
    pub(super) name: &'static str,
    python: PathBuf,
    preload: Option<PathBuf>,
}

impl Sides {
    pub(super) fn find(binaries: PathBuf) -> Result<Self, Failure> {
        let python = python::MLX_LM.interpreter()?;
        let mut theirs = vec![MlxLm {
            name: "mlx-lm as installed",
            python: python.clone(),
            preload: None,
        }];
        // On a Mac, MLX computes with the system's own library and on the GPU.
        if cfg!(target_os = "linux") {
            theirs.push(MlxLm {
                name: "mlx-lm with OpenBLAS",
                python,
                preload: Some(openblas()?),
            });
        }
        Ok(Self {
            ours: Ours { binaries },
            theirs,
        })
    }
}

impl Ours {
    pub(super) fn program(&self, name: &str) -> Command {
        Command::new(self.binaries.join(name))
    }
}

impl MlxLm {
    pub(super) fn python(&self) -> Command {
        let mut command = Command::new(&self.python);
        // All that is needed lies here; it should not look for more.
        command.env("HF_HUB_OFFLINE", "1");
        if let Some(library) = &self.preload {
            command.env("LD_PRELOAD", library);
        }
        command
    }
}

/// Where the dynamic linker finds it.
pub(super) fn openblas() -> Result<PathBuf, Failure> {
    let listed = ["ldconfig", "/sbin/ldconfig"]
        .iter()
        .find_map(|program| Command::new(program).arg("-p").output().ok())
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    listed
        .lines()
        .filter(|line| line.trim_start().starts_with(OPENBLAS))
        .find_map(|line| Some(PathBuf::from(line.split_once("=> ")?.1.trim())))
        .filter(|path| path.is_file())
        .ok_or_else(|| {
            Failure::new(
                format!("{OPENBLAS} is not installed, and mlx-lm is slow without it"),
                "install it (Debian: libopenblas0), or run `cargo xtask setup`",
            )
        })
}
