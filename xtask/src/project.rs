//! Where things are: the tree, the cache, MLX; and what cargo knows of the workspace.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::failure::{Doing, Failure};

/// The top of the tree that xtask was started from.
pub(crate) fn root() -> PathBuf {
    // Cargo sets the variable at run time; the compiled-in one serves a binary started by hand.
    let manifest =
        env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&manifest)
        .parent()
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// What setup fetches and builds; never tracked, and safe to delete.
pub(crate) fn cache() -> PathBuf {
    root().join(".cache")
}

/// Where MLX is, or will be put.
pub(crate) fn mlx() -> PathBuf {
    env::var_os("CEREUS_MLX_DIR").map_or_else(|| cache().join("mlx"), PathBuf::from)
}

/// Where cargo puts what it builds for this workspace, whatever its configuration says.
pub(crate) fn target() -> Result<PathBuf, Failure> {
    let metadata = metadata(&root().join("Cargo.toml"))?;
    Ok(metadata["target_directory"]
        .as_str()
        .map_or_else(|| root().join("target"), PathBuf::from))
}

/// `path` as a reader would write it from the top of the tree.
pub(crate) fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

/// The cargo that started us, without the variables it set about xtask itself.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let about_us = [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_BIN_",
            "CARGO_CRATE_",
        ]
        .iter()
        .any(|prefix| text.starts_with(prefix));
        if about_us {
            command.env_remove(&name);
        }
    }
    command
}

/// `cargo metadata` of one manifest, its members only: no network, no resolution.
pub(crate) fn metadata(manifest: &Path) -> Result<Value, Failure> {
    let shown = shown(manifest);
    let next =
        format!("run `cargo metadata --no-deps --manifest-path {shown}` and mend what it says");
    let output = cargo()
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--manifest-path",
        ])
        .arg(manifest)
        .output()
        .doing("start cargo", "check that cargo is installed and in PATH")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(
            format!("cargo cannot read {shown}: {}", said.trim()),
            next,
        ));
    }
    serde_json::from_slice(&output.stdout).doing(format!("read cargo's metadata of {shown}"), next)
}

/// The files that git knows or would add, relative to the top of the tree, sorted.
pub(crate) fn files(root: &Path) -> Result<Vec<PathBuf>, Failure> {
    let next = "run this inside a git checkout of the project";
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
            "--deduplicate",
        ])
        .current_dir(root)
        .output()
        .doing("start git", "install git")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(
            format!("git cannot list the files: {}", said.trim()),
            next,
        ));
    }
    let text =
        String::from_utf8(output.stdout).doing("read a file name", "use UTF-8 file names")?;
    let mut files: Vec<PathBuf> = text
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
        // Deleted but not yet staged: listed by git, gone from the tree.
        .filter(|path| root.join(path).is_file())
        .collect();
    files.sort_unstable();
    Ok(files)
}
