//! Processes, what they use, and the machine that they run on.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sysinfo::{CpuRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, RefreshKind, System};

use crate::Outcome;

/// A folder that goes when the run ends.
pub(crate) struct Workspace(PathBuf);

impl Workspace {
    pub(crate) fn new(parent: Option<&Path>) -> Outcome<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let path = parent.join(format!("cereus-load-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(|error| format!("cannot make a folder: {error}"))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A child that ends with this value.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    pub(crate) fn spawn(program: &Path, args: &[&str]) -> Outcome<Self> {
        let child = command(program, args)
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        Ok(Self { child })
    }

    /// Starts a program and waits for the line that begins with `head`; answers its rest.
    pub(crate) fn start(program: &Path, args: &[&str], head: &str) -> Outcome<(Self, String)> {
        let mut child = command(program, args)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        let stdout = child.stdout.take().expect("it is piped");
        let process = Self { child };
        let mut lines = BufReader::new(stdout).lines();
        let rest = loop {
            let Some(Ok(line)) = lines.next() else {
                return Err(format!(
                    "`{}` ended early; its reason is above",
                    args.join(" ")
                ));
            };
            if let Some(rest) = line.strip_prefix(head) {
                break rest.to_owned();
            }
        };
        // Whatever it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Ok((process, rest))
    }

    /// Microseconds of processor time since it started; 0 where the system does not tell.
    pub(crate) fn cpu_us(&self) -> u64 {
        self.read(sysinfo::Process::accumulated_cpu_time) * 1_000
    }

    /// KiB in memory now; 0 where the system does not tell.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.read(sysinfo::Process::memory) / 1_024
    }

    fn read(&self, what: impl Fn(&sysinfo::Process) -> u64) -> u64 {
        let id = Pid::from_u32(self.child.id());
        let kinds = ProcessRefreshKind::nothing().with_cpu().with_memory();
        let mut system = System::new();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[id]), false, kinds);
        system.process(id).map_or(0, what)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(program: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(Stdio::null())
        .env("CEREUS_LOG", "warn");
    command
}

/// What a program prints before it ends.
pub(crate) fn answer_of(program: &Path, args: &[&str]) -> Outcome<String> {
    let output = command(program, args)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
    if !output.status.success() {
        return Err(format!("`{}` failed; its reason is above", args.join(" ")));
    }
    String::from_utf8(output.stdout).map_err(|_| "it does not print text".to_owned())
}

pub(crate) fn own_program() -> Outcome<PathBuf> {
    std::env::current_exe().map_err(|error| format!("this program cannot find itself: {error}"))
}

/// A port that nobody had a moment ago, for servers that cannot choose one.
pub(crate) fn free_address() -> Outcome<SocketAddr> {
    TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|error| format!("no port is free: {error}"))
}

/// Processor and cores, for whoever reads the numbers.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpus = RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing());
    let system = System::new_with_specifics(cpus);
    let model = system.cpus().first().map(sysinfo::Cpu::brand);
    let model = model
        .filter(|it| !it.is_empty())
        .unwrap_or("unknown processor");
    format!("{model}, {cores} cores, {}", std::env::consts::OS)
}
