//! The comparison with mlx-lm, family by family: makes the models, then runs the engine's test.

use std::process::Command;

use crate::demo::cargo_in_tree;
use crate::failure::Failure;
use crate::stages::TENSORS;
use crate::{cache, python};

/// How long the prompts are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prompts {
    /// Up to 600 tokens.
    Daily,
    /// Up to 6,000, over windows of 1,024.
    Long,
}

/// Says what Jinja2 gives for the templates of the engine's tests.
const TEMPLATES_SCRIPT: &str = "engine/tests/templates/cases.py";
const SCRIPT: &str = "engine/tests/families/make.py";
/// The engine's test, which cargo leaves out unless it is named.
pub(crate) const TEST: &str = "families";
/// Below the cache.
const MODELS: &str = "families";
const LONG_MODELS: &str = "families-long";

/// Whether what the engine's renderer is held against is what Jinja2 gives.
pub(crate) fn templates() -> Result<Command, Failure> {
    let mut command = Command::new(python::JINJA.interpreter()?);
    command.args([TEMPLATES_SCRIPT, "--check"]);
    command.current_dir(crate::project::root());
    Ok(command)
}

/// `cargo test` of the families, their models made.
pub(crate) fn test(prompts: Prompts) -> Result<Command, Failure> {
    let (name, args, label) = match prompts {
        Prompts::Daily => (
            MODELS,
            &[][..],
            "mlx-lm answers for models of every family (about a minute)",
        ),
        Prompts::Long => (
            LONG_MODELS,
            &["--long"][..],
            "mlx-lm answers to long prompts, for models of every family (many minutes)",
        ),
    };
    let models = cache::made(name, SCRIPT, args, label, &python::MLX_LM)?;
    let mut command = cargo_in_tree("test");
    // The workspace's own features, or everything would be compiled again.
    command.args(["--workspace"]).args(TENSORS);
    command.args(["--test", TEST, "--", "--nocapture"]);
    command.env("CEREUS_FAMILIES_DIR", models);
    Ok(command)
}
