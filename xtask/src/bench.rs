//! `cargo xtask bench`: the criterion benches, found through cargo's metadata.

use crate::cli::BenchArgs;
use crate::demo::cargo_in_tree;
use crate::failure::Failure;
use crate::{project, run, say};

const PACKAGE: &str = "cereus-benches";

pub(crate) fn bench(args: &BenchArgs) -> Result<(), Failure> {
    let names = targets("benches/Cargo.toml", "bench")?;
    if args.list {
        for name in names {
            println!("{name}");
        }
        return Ok(());
    }
    let mut command = cargo_in_tree("bench");
    command.args(["--package", PACKAGE]);
    match &args.name {
        Some(name) if names.contains(name) => {
            command.args(["--bench", name]);
        }
        Some(name) => {
            return Err(Failure::new(
                format!("there is no bench named {name}"),
                format!("choose one of: {}", names.join(", ")),
            ));
        }
        None if names.is_empty() => {
            say::note("there are no benches yet");
            return Ok(());
        }
        None => {
            command.arg("--benches");
        }
    }
    if !args.args.is_empty() {
        command.arg("--").args(&args.args);
    }
    run::openly("read the message above", &mut command)
}

/// The targets of one kind that a manifest declares, by name.
pub(crate) fn targets(manifest: &str, kind: &str) -> Result<Vec<String>, Failure> {
    let path = project::root().join(manifest);
    let metadata = project::metadata(&path)?;
    let packages = metadata["packages"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let mut names = vec![];
    for package in packages {
        if package["manifest_path"]
            .as_str()
            .is_none_or(|at| at != path.to_string_lossy())
        {
            continue;
        }
        for target in package["targets"].as_array().map_or(&[][..], Vec::as_slice) {
            let kinds = target["kind"].as_array().map_or(&[][..], Vec::as_slice);
            if kinds.iter().any(|it| it == kind) {
                names.extend(target["name"].as_str().map(str::to_owned));
            }
        }
    }
    names.sort_unstable();
    Ok(names)
}
