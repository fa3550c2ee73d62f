//! `cargo xtask bench soak`: minutes of more load than the engine's memory can hold, and a verdict.

use std::process::Command;

use super::{MEND, PACKAGE, engine};
use crate::cli::BenchArgs;
use crate::demo::cargo_in_tree;
use crate::failure::Failure;
use crate::{project, run, say, setup};

const PROGRAM: &str = "soak";
/// The smaller of the models that the engine and mlx-lm are compared on.
const MODEL: &str = "qwen3-6m";

pub(super) fn soak(args: &BenchArgs) -> Result<(), Failure> {
    setup::ensure()?;
    let folder = match &args.soak.model {
        Some(folder) => folder.clone(),
        None => engine::made_models()?.join(MODEL),
    };
    say::heading("build the soak");
    let mut command = cargo_in_tree("build");
    command.args(["--release", "--package", PACKAGE, "--bin", PROGRAM]);
    command.args(["--features", "cereus-benches/engine"]);
    run::openly(MEND, &mut command)?;
    let mut command = Command::new(project::target()?.join("release").join(PROGRAM));
    command.arg(folder).args(&args.args);
    if let Some(minutes) = args.soak.minutes {
        command.arg("--minutes").arg(minutes.to_string());
    }
    if let Some(path) = &args.engine.json {
        command.arg("--json").arg(path);
    }
    if args.soak.tenants {
        command.arg("--tenants");
    }
    say::heading("soak");
    run::openly("read which claim fails above", &mut command)
}
