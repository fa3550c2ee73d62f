//! `cargo xtask fuzz`: libFuzzer on the stable compiler.
//!
//! The targets have the layout of cargo-fuzz, but its tool needs an unstable compiler for the
//! sanitizers that it switches on. Coverage itself is an LLVM pass and needs none, so the passes are
//! asked for here. The code under test has no unsafe blocks: an address sanitizer adds nothing
//! there, and `--asan` brings it where it does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bench::targets;
use crate::cli::FuzzArgs;
use crate::failure::{Doing, Failure};
use crate::{project, run, say};

const MANIFEST: &str = "fuzz/Cargo.toml";
/// What cargo-fuzz passes, less the sanitizer.
const COVERAGE_FLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Cdebug-assertions=on",
    "-Coverflow-checks=on",
];
/// An input that takes longer than this is a finding.
const INPUT_SECONDS_MAX: u32 = 10;
/// Longest input that is tried, in bytes.
const INPUT_SIZE_MAX: u32 = 65_536;

pub(crate) fn fuzz(args: &FuzzArgs) -> Result<(), Failure> {
    let manifest = project::root().join(MANIFEST);
    if !manifest.is_file() {
        return Err(Failure::new(
            format!("{MANIFEST} is not there"),
            "check out a commit that has fuzz targets",
        ));
    }
    let all = targets(MANIFEST, "bin")?;
    if args.list {
        for name in all {
            println!("{name}");
        }
        return Ok(());
    }
    let chosen = match &args.target {
        None => all,
        Some(name) if all.contains(name) => vec![name.clone()],
        Some(name) => {
            return Err(Failure::new(
                format!("there is no fuzz target named {name}"),
                format!("choose one of: {}", all.join(", ")),
            ));
        }
    };
    let binaries = build(args, &manifest, &chosen)?;
    for (target, binary) in chosen.iter().zip(binaries) {
        fuzz_one(args, target, &binary)?;
    }
    Ok(())
}

fn build(args: &FuzzArgs, manifest: &Path, chosen: &[String]) -> Result<Vec<PathBuf>, Failure> {
    let triple = host()?;
    let mut flags: Vec<&str> = COVERAGE_FLAGS.to_vec();
    let mut command = project::cargo();
    // Named, even though it is the host: build scripts are then built without these flags.
    command
        .args(["build", "--release", "--target", &triple, "--manifest-path"])
        .arg(manifest);
    if args.asan {
        // The sanitizer's flag is unstable; its runtime comes with every toolchain.
        flags.push("-Zsanitizer=address");
        command.env("RUSTC_BOOTSTRAP", "1");
    }
    // A folder of its own: other flags would rebuild everything at each turn.
    let folder = project::target()?.join(if args.asan { "fuzz-asan" } else { "fuzz" });
    command.arg("--target-dir").arg(&folder);
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    for target in chosen {
        command.args(["--bin", target]);
    }
    say::heading("build the fuzz targets");
    run::openly("read the compiler's message above", &mut command)?;
    let binaries = folder.join(triple).join("release");
    Ok(chosen.iter().map(|target| binaries.join(target)).collect())
}

fn fuzz_one(args: &FuzzArgs, target: &str, binary: &Path) -> Result<(), Failure> {
    let mut command = Command::new(binary);
    if let Some(input) = &args.input {
        say::heading(&format!("fuzz {target}: one input"));
        return run::openly("the input still fails: mend the code", command.arg(input));
    }
    let folder = project::root().join("fuzz");
    let corpus = folder.join("corpus").join(target);
    let artifacts = folder.join("artifacts").join(target);
    for path in [&corpus, &artifacts] {
        fs::create_dir_all(path).doing(
            format!("make {}", project::shown(path)),
            "make fuzz/ writable",
        )?;
    }
    say::heading(&format!("fuzz {target}: {} s", args.seconds));
    command
        .arg(&corpus)
        // The trailing slash makes it a folder for libFuzzer.
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(format!("-max_total_time={}", args.seconds))
        .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
        .arg(format!("-max_len={INPUT_SIZE_MAX}"))
        .arg("-print_final_stats=1");
    let dictionary = folder.join("dictionaries").join(format!("{target}.dict"));
    if dictionary.is_file() {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    let seeds = folder.join("seeds").join(target);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    let next = format!(
        "repeat it: cargo xtask fuzz {target} --input {}/FILE (the file is named above)",
        project::shown(&artifacts)
    );
    run::openly(&next, command.args(&args.args))
}

fn host() -> Result<String, Failure> {
    let next = "check that rustc is installed and in PATH";
    let output = Command::new("rustc")
        .arg("-vV")
        .output()
        .doing("start rustc", next)?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .ok_or_else(|| Failure::new("rustc does not name its host", next))
}
