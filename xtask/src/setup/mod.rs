//! `cargo xtask setup`: installs what is missing, and nothing else.
//!
//! Order: system packages, then MLX. A machine that has everything is told so within a moment and
//! without a network. What cannot be installed from here is named, with the command to type.

mod need;

use std::io::{self, IsTerminal};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::cli::SetupArgs;
use crate::failure::Failure;
use crate::{project, run, say};

use need::{NEEDS, Need};

const MLX_SCRIPT: &str = "engine/linux/build-mlx.sh";
pub(crate) fn command(args: &SetupArgs) -> Result<(), Failure> {
    if args.check {
        return check(args.json);
    }
    if !ensure()? {
        say::good("everything is there");
    }
    Ok(())
}

/// Installs what is missing. Returns whether anything had to be done.
pub(crate) fn ensure() -> Result<bool, Failure> {
    let missing: Vec<&Need> = missing().collect();
    let mlx_needed = !mlx_is_ready();
    if missing.is_empty() && !mlx_needed {
        return Ok(false);
    }
    say::heading("setup");
    if !missing.is_empty() {
        for need in &missing {
            say::note(&format!("{} is missing: {}", need.name, need.why));
        }
        install(&missing)?;
    }
    if mlx_needed {
        build_mlx()?;
    }
    Ok(true)
}

/// What this system needs. A Mac without brew's formula for a need has it already.
fn applicable() -> impl Iterator<Item = &'static Need> {
    NEEDS
        .iter()
        .filter(|need| !(cfg!(target_os = "macos") && need.brew.is_none()))
}

fn missing() -> impl Iterator<Item = &'static Need> {
    applicable().filter(|need| (need.found)().is_none())
}

fn check(as_json: bool) -> Result<(), Failure> {
    let mlx_ready = mlx_is_ready();
    let mut rows = vec![];
    let mut complete = mlx_ready;
    for need in applicable() {
        let found = (need.found)();
        complete &= found.is_some();
        rows.push((need, found));
    }
    if as_json {
        let needs: Vec<_> = rows
            .iter()
            .map(|(need, found)| json!({ "name": need.name, "why": need.why, "found": found }))
            .collect();
        let mlx = json!({ "folder": project::mlx(), "ready": mlx_ready });
        let report = json!({ "complete": complete, "needs": needs, "mlx": mlx });
        println!("{report}");
    } else {
        for (need, found) in &rows {
            match found {
                Some(path) => say::good(&format!("{:<26} {}", need.name, path.display())),
                None => say::bad(&format!("{:<26} {}", need.name, need.why)),
            }
        }
        let line = format!("{:<26} {}", "MLX", project::shown(&project::mlx()));
        if mlx_ready {
            say::good(&line);
        } else {
            say::bad(&line);
        }
    }
    if complete {
        return Ok(());
    }
    Err(Failure::new(
        "something is missing",
        "run `cargo xtask setup`",
    ))
}

fn install(missing: &[&Need]) -> Result<(), Failure> {
    if need::program("apt-get").is_some() {
        let packages: Vec<&str> = missing.iter().flat_map(|need| need.apt).copied().collect();
        return install_with_apt(&packages);
    }
    if cfg!(target_os = "macos") && need::program("brew").is_some() {
        let packages: Vec<&str> = missing.iter().filter_map(|need| need.brew).collect();
        say::warning("no test of this project has run on a Mac yet");
        return run::quietly(
            "brew",
            &format!("brew installs {}", packages.join(" ")),
            "mend what brew says, or install them by hand",
            Command::new("brew").arg("install").args(&packages),
        );
    }
    let mut list = String::new();
    for need in missing {
        list.push_str(&format!(
            "\n        {:<26} (Debian: {}; brew: {})",
            need.name,
            need.apt.join(" "),
            need.brew.unwrap_or("comes with Xcode's command line tools"),
        ));
    }
    Err(Failure::new(
        "this system has neither apt-get nor brew, so nothing can be installed from here",
        format!("install these by hand, then run this again:{list}"),
    ))
}

fn install_with_apt(packages: &[&str]) -> Result<(), Failure> {
    let by_hand = format!("type: sudo apt-get install {}", packages.join(" "));
    let Some(prefix) = become_root() else {
        return Err(Failure::new(
            "only root may install packages, and there is no sudo",
            by_hand,
        ));
    };
    let listed = "check the network and /etc/apt/sources.list";
    // A fresh machine has no package lists at all.
    run::quietly(
        "apt-update",
        "apt reads its package lists",
        listed,
        apt(&prefix).args(["update", "--quiet"]),
    )?;
    run::quietly(
        "apt-install",
        &format!("apt installs {}", packages.join(" ")),
        &by_hand,
        apt(&prefix)
            .args(["install", "--yes", "--no-install-recommends"])
            .args(packages),
    )?;
    let still: Vec<&str> = missing().map(|need| need.name).collect();
    if still.is_empty() {
        return Ok(());
    }
    let what = format!(
        "apt is content, yet these are not to be found: {}",
        still.join(", ")
    );
    Err(Failure::new(
        what,
        "see `cargo xtask setup --check` for what was looked for",
    ))
}

/// The words to put before apt-get: none for root, sudo for others if it will work.
fn become_root() -> Option<Vec<&'static str>> {
    let root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|out| out.stdout == b"0\n");
    if root {
        return Some(vec![]);
    }
    need::program("sudo")?;
    let silent = Command::new("sudo").args(["-n", "true"]).output();
    if silent.is_ok_and(|out| out.status.success()) {
        return Some(vec!["sudo", "-n"]);
    }
    // Someone is there to type a password: ask now, in the open, for the quiet runs that follow.
    let may_ask = io::stdin().is_terminal() && io::stderr().is_terminal();
    let allowed = may_ask
        && Command::new("sudo")
            .arg("-v")
            .status()
            .is_ok_and(|status| status.success());
    allowed.then(|| vec!["sudo", "-n"])
}

fn apt(prefix: &[&str]) -> Command {
    const QUIET: &str = "DEBIAN_FRONTEND=noninteractive";
    // `env` carries the variable through sudo, which clears the environment.
    let mut words = prefix.to_vec();
    words.extend(["env", QUIET, "apt-get"]);
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command
}

/// Whether the script has nothing left to do: it knows what its folder must hold.
fn mlx_is_ready() -> bool {
    let asked = mlx_script().arg("--check").stdin(Stdio::null()).output();
    asked.is_ok_and(|output| output.status.success())
}

fn mlx_script() -> Command {
    let mut command = Command::new("bash");
    command
        .arg(project::root().join(MLX_SCRIPT))
        .arg(project::mlx());
    command
}

fn build_mlx() -> Result<(), Failure> {
    run::quietly(
        "mlx",
        "MLX: fetch the wheel, build its C interface (some two minutes)",
        "check that PyPI and crates.io can be reached",
        &mut mlx_script(),
    )
}
