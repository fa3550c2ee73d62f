//! The comparison with mlx-lm, family by family: makes the models, then runs the engine's test.

use std::process::Command;

use crate::demo::cargo_in_tree;
use crate::failure::Failure;
use crate::stages::TENSORS;
use crate::{cache, python};

const SCRIPT: &str = "engine/tests/families/make.py";
/// The engine's test, which cargo leaves out unless it is named.
pub(crate) const TEST: &str = "families";
/// Below the cache.
const MODELS: &str = "families";

/// `cargo test` of the families, their models made.
pub(crate) fn test() -> Result<Command, Failure> {
    let label = "mlx-lm answers for models of every family (about a minute)";
    let models = cache::made(MODELS, SCRIPT, label, &python::MLX_LM)?;
    let mut command = cargo_in_tree("test");
    // The workspace's own features, or everything would be compiled again.
    command.args(["--workspace"]).args(TENSORS);
    command.args(["--test", TEST, "--", "--nocapture"]);
    command.env("CEREUS_FAMILIES_DIR", models);
    Ok(command)
}
