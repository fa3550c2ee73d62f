//! The commands that build something and become it: demo, sim, train-tiny, kill9.

use std::path::PathBuf;
use std::process::Command;

use crate::cli::{DemoArgs, PassArgs, Profile};
use crate::failure::Failure;
use crate::stages::TENSORS;
use crate::{project, python, run, say, setup};

pub(crate) const TINY_MODEL: &str = "engine/models/tiny";
pub(crate) const KILL9_SCRIPT: &str = "shells/cereus/tests/kill9.py";
const MEND: &str = "read the compiler's message above";

pub(crate) fn demo(args: &DemoArgs) -> Result<(), Failure> {
    setup::ensure()?;
    let binary = build_cereus(args.profile)?;
    let mut command = demo_command(&binary)?;
    if args.once {
        command.arg("--once");
    }
    run::replaced_by(command.args(&args.args))
}

/// `cereus demo` on the tiny model.
pub(crate) fn demo_command(binary: &PathBuf) -> Result<Command, Failure> {
    let model = project::root().join(TINY_MODEL);
    if !model.join("config.json").is_file() {
        return Err(Failure::new(
            format!("the model folder {TINY_MODEL} is not there"),
            "check it out again with git, or make it with `cargo xtask train-tiny`",
        ));
    }
    let mut command = Command::new(binary);
    command.arg("demo").arg("--model").arg(model);
    Ok(command)
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
    Ok(project::target().join(folder).join("cereus"))
}

/// The same binary as the tests of the workspace built it: the same packages, the same features.
pub(crate) fn build_cereus_for_tests() -> Result<PathBuf, Failure> {
    let mut command = cargo_in_tree("build");
    command
        .args(["--workspace", "--bin", "cereus", "--tests"])
        .args(TENSORS);
    run::openly(MEND, &mut command)?;
    Ok(project::target().join("debug/cereus"))
}

pub(crate) fn sim(args: &[String]) -> Result<(), Failure> {
    // Paths in the arguments are the caller's: the folder stays as it is.
    run::replaced_by(sim_command().args(args))
}

pub(crate) fn sim_command() -> Command {
    let mut command = cargo_in_tree("run");
    command.args([
        "--quiet",
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
        "mlx",
    ]);
    command.args(["--bin", "train-tiny", "--"]);
    run::replaced_by(command.args(args))
}

pub(crate) fn kill9(args: &PassArgs) -> Result<(), Failure> {
    setup::ensure()?;
    let binary = build_cereus(Profile::Release)?;
    let Some(mut command) = kill9_command(&binary)? else {
        return Err(Failure::new(
            format!("{KILL9_SCRIPT} is not there"),
            "check out a commit that has it",
        ));
    };
    run::replaced_by(command.args(&args.args))
}

/// The crash script against `binary`; nothing where the tree has no such script.
pub(crate) fn kill9_command(binary: &PathBuf) -> Result<Option<Command>, Failure> {
    script_command(KILL9_SCRIPT, binary)
}

/// A Python script of the tests, told where the binary and the model are.
pub(crate) fn script_command(script: &str, binary: &PathBuf) -> Result<Option<Command>, Failure> {
    let path = project::root().join(script);
    if !path.is_file() {
        return Ok(None);
    }
    let mut command = Command::new(python::interpreter()?);
    command
        .arg(path)
        .env("CEREUS_BIN", binary)
        .env("CEREUS_MODEL", project::root().join(TINY_MODEL));
    Ok(Some(command))
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
