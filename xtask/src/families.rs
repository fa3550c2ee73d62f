//! The comparison with mlx-lm, family by family: makes the models, then runs the engine's test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::demo::{cargo_in_tree, test_script};
use crate::failure::{Doing, Failure};
use crate::stages::TENSORS;
use crate::{project, python, run};

const SCRIPT: &str = "engine/tests/families/make.py";
/// The engine's test, which cargo leaves out unless it is named.
pub(crate) const TEST: &str = "families";
/// Below the cache.
const MODELS: &str = "families";
/// Holds what the models were made by; compared before making them again.
const STAMP: &str = "made-by";

/// `cargo test` of the families, their models made.
pub(crate) fn test() -> Result<Command, Failure> {
    let models = models()?;
    let mut command = cargo_in_tree("test");
    // The workspace's own features, or everything would be compiled again.
    command.args(["--workspace"]).args(TENSORS);
    command.args(["--test", TEST, "--", "--nocapture"]);
    command.env("CEREUS_FAMILIES_DIR", models);
    Ok(command)
}

/// The folder of the models, with mlx-lm's answers; made anew when the script or mlx-lm changed.
fn models() -> Result<PathBuf, Failure> {
    let folder = project::cache().join(MODELS);
    let script = test_script(SCRIPT)?;
    let text = fs::read_to_string(&script).doing(format!("read {SCRIPT}"), "make it readable")?;
    let wanted = format!("{}\n{text}", python::MLX_LM.packages.join("\n"));
    let stamp = folder.join(STAMP);
    if fs::read_to_string(&stamp).is_ok_and(|made_by| made_by == wanted) {
        return Ok(folder);
    }
    clear(&folder)?;
    run::quietly(
        "families",
        "mlx-lm answers for models of every family (some minute)",
        "read what the script says above",
        Command::new(python::MLX_LM.interpreter()?)
            .arg(script)
            .arg(&folder),
    )?;
    fs::write(&stamp, wanted).doing("note what the models were made by", "make .cache writable")?;
    Ok(folder)
}

/// A family that the script no longer makes must not be compared.
fn clear(folder: &Path) -> Result<(), Failure> {
    if !folder.exists() {
        return Ok(());
    }
    let shown = project::shown(folder);
    fs::remove_dir_all(folder).doing(format!("clear {shown}"), format!("delete {shown}"))
}
