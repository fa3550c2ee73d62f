//! The commands that build something and become it: demo, sim, train-tiny, kill9.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli::{DemoArgs, PassArgs, Profile};
use crate::failure::Failure;
use crate::stages::TENSORS;
use crate::{project, python, run, say, setup};

pub(crate) const TINY_MODEL: &str = "engine/models/tiny";
pub(crate) const KILL9_SCRIPT: &str = "shells/cereus/tests/kill9.py";
const MEND: &str = "read the compiler's message above";

pub(crate) fn demo(args: &DemoArgs) -> Result<(), Failure> {
    let model = tiny_model()?;
    setup::ensure()?;
    let binary = build_cereus(args.profile)?;
    let mut command = demo_command(&binary, &model);
    if args.once {
        command.arg("--once");
    }
    run::replaced_by(command.args(&args.args))
}

/// `cereus demo` on `model`.
pub(crate) fn demo_command(binary: &Path, model: &Path) -> Command {
    let mut command = Command::new(binary);
    command.arg("demo").arg("--model").arg(model);
    command
}

/// The folder of the tiny model, which every checkout has.
pub(crate) fn tiny_model() -> Result<PathBuf, Failure> {
    let folder = project::root().join(TINY_MODEL);
    if folder.join("config.json").is_file() {
        return Ok(folder);
    }
    Err(Failure::new(
        format!("the model folder {TINY_MODEL} is not there"),
        "check it out again with git, or make it with `cargo xtask train-tiny`",
    ))
}

/// Builds the one binary and says where it is.
pub(crate) fn build_cereus(profile: Profile) -> Result<PathBuf, Failure> {
    let mut command = cargo_in_tree("build");
    command.args(["--package", "cereus", "--bin", "cereus"]);
    let folder = match profile {
        Profile::Dev => "debug",
        Profile::Release => {
            command.arg("--release");
            "release"
        }
    };
    say::heading(&format!("build cereus ({folder})"));
    run::openly(MEND, &mut command)?;
    Ok(project::target()?.join(folder).join("cereus"))
}

/// The same binary as the tests of the workspace built it: the same packages, the same features.
pub(crate) fn build_cereus_for_tests() -> Result<PathBuf, Failure> {
    let mut command = cargo_in_tree("build");
    command
        .args(["--workspace", "--bin", "cereus", "--tests"])
        .args(TENSORS);
    run::openly(MEND, &mut command)?;
    Ok(project::target()?.join("debug/cereus"))
}

pub(crate) fn sim(args: &[String]) -> Result<(), Failure> {
    // Paths in the arguments are the caller's: the folder stays as it is.
    run::replaced_by(sim_command().args(args))
}

pub(crate) fn sim_command() -> Command {
    let mut command = cargo_in_tree("run");
    command.args([
        "--release",
        "--package",
        "cereus-sim",
        "--bin",
        "cereus-sim",
        "--",
    ]);
    command
}

pub(crate) fn train_tiny(args: &[String]) -> Result<(), Failure> {
    setup::ensure()?;
    let mut command = cargo_in_tree("run");
    command.args([
        "--release",
        "--package",
        "cereus-engine",
        "--features",
        "train",
    ]);
    command.args(["--bin", "train-tiny", "--"]);
    run::replaced_by(command.args(args))
}

pub(crate) fn kill9(args: &PassArgs) -> Result<(), Failure> {
    let script = test_script(KILL9_SCRIPT)?;
    setup::ensure()?;
    let binary = build_cereus(Profile::Release)?;
    run::replaced_by(script_command(&script, &binary)?.args(&args.args))
}

/// A Python script of the tests.
pub(crate) fn test_script(path: &str) -> Result<PathBuf, Failure> {
    let full = project::root().join(path);
    if full.is_file() {
        return Ok(full);
    }
    Err(Failure::new(
        format!("{path} is not there"),
        "check out a commit that has it",
    ))
}

/// `script`, told where the binary and the model are.
pub(crate) fn script_command(script: &Path, binary: &Path) -> Result<Command, Failure> {
    let mut command = Command::new(python::SDK.interpreter()?);
    command
        .arg(script)
        .env("CEREUS_BIN", binary)
        .env("CEREUS_MODEL", tiny_model()?);
    Ok(command)
}

/// `cargo WORD` on this workspace, wherever the caller stands.
pub(crate) fn cargo_in_tree(word: &str) -> Command {
    let mut command = project::cargo();
    command
        .arg(word)
        .arg("--manifest-path")
        .arg(project::root().join("Cargo.toml"));
    command
}
