//! Clients in a closed loop against the two servers, by turns.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::sides::{MlxLm, Ours, Sides};
use super::{Found, Spread, at_percent, lines, rounds};
use crate::cli::EngineBenchArgs;
use crate::failure::{Doing, Failure};
use crate::{project, run, say};

const MODEL: &str = "qwen3-6m";
/// What the load generator measures in turn.
const ROUNDS: [&str; 3] = ["short", "cold_prefix", "shared_prefix"];

/// How much is asked.
struct Load {
    clients: &'static str,
    requests: &'static str,
    tokens: &'static str,
    prefix_tokens: &'static str,
}

const FULL: Load = Load {
    clients: "16",
    requests: "4",
    tokens: "64",
    prefix_tokens: "1500",
};
const SMALL: Load = Load {
    clients: "4",
    requests: "2",
    tokens: "16",
    prefix_tokens: "300",
};

/// What one kind of prompt met on one side, over all rounds.
#[derive(Default)]
struct Met {
    tokens_per_s: Vec<f64>,
    first_token_ms: Vec<f64>,
}

type BySide = BTreeMap<(usize, &'static str), Met>;

pub(super) fn measure(
    models: &Path,
    sides: &Sides,
    args: &EngineBenchArgs,
) -> Result<Found, Failure> {
    let load = if args.smoke { &SMALL } else { &FULL };
    let rounds = rounds(args);
    let folder = models.join(MODEL);
    let mut met = BySide::new();
    for round in 1..=rounds {
        say::note(&format!("round {round} of {rounds}: cereus local"));
        let server = Server::ours(&sides.ours, &folder, load)?;
        ask(&server, &sides.ours, &folder, load, 0, &mut met)?;
        drop(server);
        for (place, side) in sides.theirs.iter().enumerate() {
            say::note(&format!(
                "round {round} of {rounds}: server of {}",
                side.name
            ));
            let server = Server::theirs(side, &folder, load)?;
            ask(&server, &sides.ours, &folder, load, 1 + place, &mut met)?;
        }
    }
    for met in met.values_mut() {
        met.first_token_ms.sort_by(f64::total_cmp);
    }
    Ok(Found {
        table: table(&met, sides, load, rounds),
        json: record(&met, sides),
    })
}

fn ask(
    server: &Server,
    ours: &Ours,
    folder: &Path,
    load: &Load,
    side: usize,
    met: &mut BySide,
) -> Result<(), Failure> {
    let mut command = ours.program("served");
    command.args(["--url", &server.url, "--model", server.model]);
    command.arg("--folder").arg(folder);
    command.args(["--clients", load.clients, "--requests", load.requests]);
    command.args([
        "--tokens",
        load.tokens,
        "--prefix-tokens",
        load.prefix_tokens,
    ]);
    let found = lines(&mut command)
        .map_err(|failure| Failure::new(failure.what, format!("read {}", server.log)))?;
    for value in &found {
        for round in ROUNDS {
            let one = met.entry((side, round)).or_default();
            let rate = value[round]["output_tokens_per_s"].as_f64();
            one.tokens_per_s.extend(rate);
            let waits = value[round]["first_token_ms"].as_array();
            let waits = waits.into_iter().flatten();
            one.first_token_ms.extend(waits.filter_map(Value::as_f64));
        }
    }
    Ok(())
}

fn table(met: &BySide, sides: &Sides, load: &Load, rounds: u32) -> String {
    let names = std::iter::once("Cereus").chain(sides.theirs.iter().map(|side| side.name));
    let mut text = "| | tokens/s | first token p50 | p99 | cold prefix p50 | p99 | \
         shared prefix p50 | p99 | tokens/s |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|\n"
        .to_owned();
    let first = |side, round, percent| at_percent(&met[&(side, round)].first_token_ms, percent);
    let rate = |side, round| Spread::of(met[&(side, round)].tokens_per_s.clone()).middle;
    for (side, name) in names.enumerate() {
        text.push_str(&format!("| {name} | {:.0} |", rate(side, "short")));
        for round in ROUNDS {
            for percent in [50, 99] {
                text.push_str(&format!(" {:.0} ms |", first(side, round, percent)));
            }
        }
        text.push_str(&format!(" {:.0} |\n", rate(side, "shared_prefix")));
    }
    let sooner = |side| first(side, "cold_prefix", 50) / first(side, "shared_prefix", 50);
    let others: Vec<String> = (1..=sides.theirs.len())
        .map(|side| format!("{:.1}", sooner(side)))
        .collect();
    text.push_str(&format!(
        "\n{} clients, each asking again as soon as it is answered; {MODEL}, {} new tokens, float32, \
         greedy; turns of each side: {rounds}. Short prompts have 64 tokens that nobody asked before, the \
         others {} more before them: of their own (cold), or the same for all (shared; the last \
         column is theirs). A shared prefix brings the first token {:.1} times sooner than a cold one \
         in Cereus, and {} times in the others. `cereus local --rows {}`; `mlx_lm.server \
         --decode-concurrency {} --prompt-concurrency {}`, its other options as they are.\n",
        load.clients,
        load.tokens,
        load.prefix_tokens,
        sooner(0),
        others.join(" and "),
        load.clients,
        load.clients,
        load.clients,
    ));
    text
}

fn record(met: &BySide, sides: &Sides) -> Value {
    let names = std::iter::once("cereus").chain(sides.theirs.iter().map(|side| side.name));
    let names: Vec<&str> = names.collect();
    let rows = met.iter().map(|((side, round), met)| {
        json!({
            "side": names[*side],
            "prompts": round,
            "output_tokens_per_s_of_rounds": met.tokens_per_s,
            "first_token_ms_p50": at_percent(&met.first_token_ms, 50),
            "first_token_ms_p99": at_percent(&met.first_token_ms, 99),
        })
    });
    rows.collect()
}

/// A server that ends with this value.
struct Server {
    child: Child,
    url: String,
    /// What it calls its model.
    model: &'static str,
    log: String,
}

impl Server {
    fn ours(ours: &Ours, folder: &Path, load: &Load) -> Result<Self, Failure> {
        let mut command = ours.program("cereus");
        command.arg("local").arg(folder);
        command.args(["--listen", "127.0.0.1:0", "--json", "--model-id", MODEL]);
        command.args(["--rows", load.clients]);
        command.stdout(Stdio::piped());
        let (mut server, log) = Self::start(&mut command, "cereus-local", MODEL)?;
        let stdout = server.child.stdout.take().expect("it is piped");
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        let value: Value = serde_json::from_str(&line).unwrap_or_default();
        match (read, value["listening"].as_str()) {
            (Ok(_), Some(url)) => url.clone_into(&mut server.url),
            _ => {
                return Err(Failure::new(
                    "`cereus local` did not start",
                    format!("read {log}"),
                ));
            }
        }
        Ok(server)
    }

    fn theirs(side: &MlxLm, folder: &Path, load: &Load) -> Result<Self, Failure> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .doing("find a free port", "try again")?
            .port();
        let mut command = side.python();
        command.args(["-m", "mlx_lm.server", "--model"]).arg(folder);
        command.args(["--port", &port.to_string(), "--log-level", "WARNING"]);
        command.args(["--decode-concurrency", load.clients]);
        command.args(["--prompt-concurrency", load.clients]);
        command.stdout(Stdio::null());
        // It goes by this name whatever the folder is called. The load generator waits for it.
        let (mut server, _) = Self::start(&mut command, "mlx-lm-server", "default_model")?;
        server.url = format!("http://127.0.0.1:{port}");
        Ok(server)
    }

    /// With its log in the cache; what the log is called comes second.
    fn start(
        command: &mut Command,
        name: &str,
        model: &'static str,
    ) -> Result<(Self, String), Failure> {
        let folder = project::cache().join("log");
        let path = folder.join(format!("{name}.log"));
        let log = fs::create_dir_all(&folder)
            .and_then(|()| File::create(&path))
            .doing("make a log", "make .cache writable")?;
        let child = command.stdin(Stdio::null()).stderr(log).spawn().doing(
            format!("start `{}`", run::line(command)),
            "read the message above",
        )?;
        let log = project::shown(&path);
        let server = Self {
            child,
            url: String::new(),
            model,
            log: log.clone(),
        };
        Ok((server, log))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
