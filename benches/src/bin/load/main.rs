//! What the network adds to a model that costs nothing: many streams over loopback HTTP through a
//! real coordinator and real providers with the echo backend, beside floors on the same machine in
//! the same run.
//!
//! `cargo xtask bench load` builds what it needs and runs it.

mod drive;
mod floor;
mod peers;
mod system;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::drive::{Asked, Round, drive};
use crate::system::{Process, Workspace};

/// Model that everyone here serves.
const MODEL: &str = "echo";
/// A report may claim 24 at most, so one provider is too few for 32 streams at once.
const PROVIDERS: u16 = 2;

#[derive(Parser)]
#[command(about = "Streams through the whole path, beside its floors")]
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    /// The program `cereus`
    #[arg(long, default_value = "target/release/cereus")]
    cereus: PathBuf,
    /// Streams at once
    #[arg(long, default_value_t = 32)]
    concurrent: u16,
    /// Pieces of each answer
    #[arg(long, default_value_t = 64)]
    pieces: u32,
    /// Seconds of each round
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Rounds of each contestant; the middle one is shown
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Compare with other routers instead, run by this Python, which has their packages
    #[arg(long, value_name = "PYTHON")]
    peers: Option<PathBuf>,
    /// Where servers keep their data; the system's folder for temporary files if not given
    #[arg(long)]
    data: Option<PathBuf>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A whole answer of one piece.
    Plain,
    /// A stream of so many pieces.
    Streamed { pieces: u32 },
}

/// What this program is to be when it starts itself.
#[derive(Clone, Copy, Subcommand)]
enum Role {
    /// A bare server that streams the answer itself
    Echo { pieces: u32 },
    /// A bare server that fetches the answer from the echo and passes it on
    Proxy { upstream: std::net::SocketAddr },
}

type Outcome<T> = Result<T, String>;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.role {
        Some(Role::Echo { pieces }) => floor::echo(pieces),
        Some(Role::Proxy { upstream }) => floor::proxy(upstream),
        None => match &cli.peers {
            Some(python) => peers::compare(&cli, python),
            None => compare(&cli),
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("load: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Somebody who answers, and the processes whose time it takes.
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    addr: String,
    key: String,
    /// The one that consumers talk to, then those behind it.
    front: Process,
    behind: Vec<Process>,
}

impl Contestant {
    /// A server that lets everybody in, and whoever stands behind it.
    fn open(name: &'static str, addr: &str, front: Process, behind: Vec<Process>) -> Self {
        Self {
            name,
            addr: addr.trim().to_owned(),
            key: "none".to_owned(),
            front,
            behind,
        }
    }

    fn asked(&self, shape: Shape) -> Asked {
        Asked::new(self.addr.clone(), &self.key, shape)
    }
}

fn compare(cli: &Cli) -> Outcome<()> {
    let workspace = Workspace::new(cli.data.as_deref())?;
    let shape = Shape::Streamed { pieces: cli.pieces };
    let mut contestants = vec![
        cereus(cli, workspace.path(), cli.pieces)?,
        bare_echo(cli)?,
        bare_proxy(cli)?,
    ];
    match nginx(cli, workspace.path()) {
        Ok(contestant) => contestants.push(contestant),
        Err(why) => eprintln!("without nginx: {why}"),
    }
    let mut rounds: Vec<Vec<Round>> = contestants.iter().map(|_| vec![]).collect();
    for contestant in &contestants {
        drive(contestant, shape, cli.concurrent, Duration::from_secs(1))?;
    }
    // By turns, so that whatever else the machine does falls on all of them.
    for round in 1..=cli.rounds {
        eprintln!("round {round} of {}", cli.rounds);
        for (contestant, rounds) in contestants.iter().zip(&mut rounds) {
            rounds.push(drive(
                contestant,
                shape,
                cli.concurrent,
                Duration::from_secs(cli.seconds),
            )?);
        }
    }
    let middle: Vec<(&str, Round)> = contestants
        .iter()
        .zip(rounds)
        .filter_map(|(contestant, rounds)| Some((contestant.name, Round::middle(rounds)?)))
        .collect();
    table::print(cli.concurrent, cli.pieces, &middle);
    Ok(())
}

fn cereus(cli: &Cli, folder: &Path, pieces: u32) -> Outcome<Contestant> {
    let program = &cli.cereus;
    let data = folder.join("coordinator");
    let data = data.to_string_lossy();
    let made = [
        "key",
        "create",
        "--account",
        "bench",
        "--credit",
        "1000000",
        "--quiet",
        "--data",
    ];
    let key = system::answer_of(program, &[&made[..], &[&data]].concat())?;
    let model = format!("{MODEL}:50000:200000:8192");
    let serve = [
        "coordinator",
        "--listen",
        "127.0.0.1:0",
        "--model",
        &model,
        "--data",
        &data,
    ];
    let (front, line) = Process::start(program, &serve, "listening on ")?;
    let addr = line.trim().trim_start_matches("http://").to_owned();
    let url = format!("http://{addr}");
    let (said, room) = (
        pieces.to_string(),
        cli.concurrent.div_ceil(PROVIDERS).to_string(),
    );
    let mut behind = vec![];
    for number in 0..PROVIDERS {
        let home = folder.join(format!("provider-{number}"));
        let home = home.to_string_lossy();
        let serve = [
            "provider",
            "--coordinator",
            &url,
            "--echo",
            "--model-id",
            MODEL,
            "--echo-pieces",
            &said,
            "--concurrency",
            &room,
            "--data",
            &home,
        ];
        behind.push(Process::start(program, &serve, "joined")?.0);
    }
    let contestant = Contestant {
        name: "Cereus: coordinator and providers",
        addr,
        key: key.trim().to_owned(),
        front,
        behind,
    };
    let whole = contestant.asked(Shape::Streamed { pieces });
    whole.until_served(Duration::from_secs(30))?;
    Ok(contestant)
}

fn start_echo(cli: &Cli) -> Outcome<(Process, String)> {
    let own = system::own_program()?;
    Process::start(&own, &["echo", &cli.pieces.to_string()], "listening on ")
}

fn bare_echo(cli: &Cli) -> Outcome<Contestant> {
    let (front, addr) = start_echo(cli)?;
    Ok(Contestant::open("hyper: echo", &addr, front, vec![]))
}

fn bare_proxy(cli: &Cli) -> Outcome<Contestant> {
    let (echo, addr) = start_echo(cli)?;
    let own = system::own_program()?;
    let (front, addr) = Process::start(&own, &["proxy", addr.trim()], "listening on ")?;
    let name = "hyper: proxy and echo";
    Ok(Contestant::open(name, &addr, front, vec![echo]))
}

fn nginx(cli: &Cli, folder: &Path) -> Outcome<Contestant> {
    let (echo, upstream) = start_echo(cli)?;
    let addr = system::free_address()?;
    let upstream = upstream.trim();
    let config = format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr crit;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; tcp_nodelay on; keepalive_requests 1000000;\n\
         client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n\
         uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
         upstream echo {{ server {upstream}; keepalive 64; keepalive_requests 1000000; }}\n\
         server {{ listen {addr}; location / {{ proxy_pass http://echo; proxy_buffering off;\n\
         proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}\n"
    );
    let home = folder.join("nginx");
    let path = home.join("nginx.conf");
    std::fs::create_dir_all(&home)
        .and_then(|()| std::fs::write(&path, config))
        .map_err(|error| format!("cannot write its configuration: {error}"))?;
    let (home, path) = (home.to_string_lossy(), path.to_string_lossy());
    let front = Process::spawn(Path::new("nginx"), &["-p", &home, "-c", &path])?;
    let name = "nginx: proxy, and echo";
    let contestant = Contestant::open(name, &addr.to_string(), front, vec![echo]);
    let asked = contestant.asked(Shape::Plain);
    asked.until_served(Duration::from_secs(5))?;
    Ok(contestant)
}
