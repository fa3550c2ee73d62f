//! `cargo xtask bench`: the criterion benches, found through cargo's metadata, the load over loopback
//! HTTP, and the engine beside mlx-lm; each ends with a table that docs/figures.md can take. A soak ends
//! with a verdict instead.

mod engine;
mod soak;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use serde_json::Value;

use crate::cli::BenchArgs;
use crate::demo::cargo_in_tree;
use crate::failure::{Doing, Failure};
use crate::{project, python, run, say};

const PACKAGE: &str = "cereus-benches";
/// Programs and not criterion's: the end-to-end bench, and the control plane, whose slowest decisions count.
const LOAD: &str = "load";
const COORDINATOR: &str = "coordinator";
/// What is measured is built as for those who run it for long.
const PROFILE: &str = "dist";
/// Seconds for each number: enough that a second run agrees, few enough to wait for them all.
const BRIEF: [&str; 4] = ["--warm-up-time", "1", "--measurement-time", "3"];
const MEND: &str = "read the message above";
/// The same program beside other routers.
const PEERS: &str = "peers";
/// Where memory serves as a disk, if the system has such a place: what is compared is the way there
/// and back, and the router writes nothing.
const RAM_DISK: &str = "/dev/shm";
/// The comparison with mlx-lm, which takes so long that it runs only when it is named.
const ENGINE: &str = "engine";
/// The same holds for this one.
const SOAK: &str = "soak";

pub(crate) fn bench(args: &BenchArgs) -> Result<(), Failure> {
    let mut names = targets("benches/Cargo.toml", "bench")?;
    names.extend([COORDINATOR, LOAD].map(str::to_owned));
    if args.name.as_deref() == Some(ENGINE) && !args.list {
        return engine::compare(&args.engine);
    }
    if args.name.as_deref() == Some(SOAK) && !args.list && args.engine.is_empty_but_json() {
        return soak::soak(args);
    }
    if !args.engine.is_empty() || !args.soak.is_empty() {
        return Err(Failure::new(
            "--only, --rounds and --smoke are options of the bench engine, --minutes, --model and \
             --tenants of soak, and --json of both",
            format!("name it: cargo xtask bench {ENGINE}, or {SOAK}"),
        ));
    }
    if args.name.as_deref() == Some(PEERS) && !args.list {
        return peers(args);
    }
    if args.list {
        names.extend([ENGINE, PEERS, SOAK].map(str::to_owned));
        for name in names {
            println!("{name}");
        }
        return Ok(());
    }
    let chosen = match &args.name {
        None => names,
        Some(name) if names.contains(name) => vec![name.clone()],
        Some(name) => {
            return Err(Failure::new(
                format!("there is no bench named {name}"),
                format!("choose one of: {}", names.join(", ")),
            ));
        }
    };
    for name in &chosen {
        match name.as_str() {
            COORDINATOR => coordinator(args)?,
            LOAD => load(args)?,
            name => criterion(name, args)?,
        }
    }
    Ok(())
}

fn coordinator(args: &BenchArgs) -> Result<(), Failure> {
    say::heading("build the bench of the control plane");
    let mut command = cargo_in_tree("build");
    command.args(["--profile", PROFILE, "--package", PACKAGE]);
    run::openly(MEND, command.args(["--bin", COORDINATOR]))?;
    let program = project::target()?.join(PROFILE).join(COORDINATOR);
    run::openly(MEND, Command::new(program).args(&args.args))
}

fn load(args: &BenchArgs) -> Result<(), Failure> {
    let mut command = load_generator()?;
    say::heading("load over loopback HTTP");
    run::openly(MEND, command.args(&args.args))
}

fn peers(args: &BenchArgs) -> Result<(), Failure> {
    let python = python::ROUTERS.interpreter()?;
    let mut command = load_generator()?;
    say::heading("plain answers and streams over loopback HTTP, beside a router");
    command.arg("--peers").arg(python);
    if Path::new(RAM_DISK).is_dir() {
        command.args(["--data", RAM_DISK]);
    }
    run::openly(MEND, command.args(&args.args))
}

/// The load generator, built, with `cereus` beside it.
fn load_generator() -> Result<Command, Failure> {
    say::heading("build cereus without the tensors, and the load generator");
    let mut command = cargo_in_tree("build");
    command.args([
        "--profile",
        PROFILE,
        "--package",
        "cereus",
        "--no-default-features",
    ]);
    command.args(["--package", PACKAGE, "--bin", LOAD]);
    run::openly(MEND, &mut command)?;
    let binaries = project::target()?.join(PROFILE);
    let mut command = Command::new(binaries.join(LOAD));
    command.arg("--cereus").arg(binaries.join("cereus"));
    Ok(command)
}

fn criterion(name: &str, args: &BenchArgs) -> Result<(), Failure> {
    let began = SystemTime::now();
    let mut command = cargo_in_tree("bench");
    command.args(["--package", PACKAGE, "--bench", name, "--"]);
    if args.args.is_empty() {
        command.args(BRIEF);
    }
    run::openly(MEND, command.args(&args.args))?;
    let mut rows = vec![];
    measured(&project::target()?.join("criterion"), began, &mut rows)?;
    if rows.is_empty() {
        return Ok(());
    }
    rows.sort();
    println!("\n| {name} | time | a second |\n|---|---:|---:|");
    for row in rows {
        println!("{}", row.text);
    }
    println!();
    Ok(())
}

/// One number of criterion's, in the order of its group and then of its size or name.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    group: String,
    size: Option<u64>,
    name: String,
    text: String,
}

/// Collects what criterion wrote under `folder` since `began`.
fn measured(folder: &Path, began: SystemTime, rows: &mut Vec<Row>) -> Result<(), Failure> {
    let next = "delete target/criterion and try again";
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(());
    };
    let mut folders: Vec<PathBuf> = vec![];
    for entry in entries {
        let path = entry.doing("list criterion's folder", next)?.path();
        if path.is_dir() {
            folders.push(path);
        }
    }
    for path in folders {
        let estimates = path.join("new/estimates.json");
        let is_new = fs::metadata(&estimates)
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|at| at >= began);
        if is_new {
            rows.extend(row(
                &read(&path.join("new/benchmark.json"))?,
                &read(&estimates)?,
            ));
        } else if !estimates.exists() {
            measured(&path, began, rows)?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Value, Failure> {
    let next = "delete target/criterion and try again";
    let doing = || format!("read {}", project::shown(path));
    let text = fs::read(path).doing(doing(), next)?;
    serde_json::from_slice(&text).doing(doing(), next)
}

fn row(benchmark: &Value, estimates: &Value) -> Option<Row> {
    let group = benchmark["group_id"].as_str()?.to_owned();
    let name = benchmark["function_id"]
        .as_str()
        .or(benchmark["value_str"].as_str())?
        .to_owned();
    // The slope is what criterion itself prints; it has none for some ways of timing.
    let ns = estimates["slope"]["point_estimate"]
        .as_f64()
        .or(estimates["mean"]["point_estimate"].as_f64())?;
    let (time, unit) = if ns < 1_000.0 {
        (ns, "ns")
    } else {
        (ns / 1_000.0, "us")
    };
    let text = format!(
        "| {group} {name} | {time:.2} {unit} | {:.0} |",
        1_000_000_000.0 / ns
    );
    Some(Row {
        group,
        size: name.parse().ok(),
        name,
        text,
    })
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
