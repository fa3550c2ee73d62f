//! Cereus beside a router of the field, and beside nothing at all, in one run: plain answers of one
//! piece and streams, with one connection and with many.
//!
//! The router forwards to the bare echo. It neither seals, prices, settles nor journals.

use std::path::Path;
use std::time::Duration;

use crate::drive::{Round, drive};
use crate::system::{self, Process, Workspace, machine};
use crate::{Cli, Contestant, Outcome, Shape, bare_echo, cereus, start_echo};

/// Connections, each of which asks again as soon as it is answered.
const PLAIN_AT: [u16; 3] = [1, 16, 32];
const STREAMED_AT: [u16; 2] = [1, 32];
/// For a program that brings up an interpreter first.
const START_WAIT: Duration = Duration::from_secs(60);

pub(crate) fn compare(cli: &Cli, python: &Path) -> Outcome<()> {
    let plain = PLAIN_AT.map(|concurrent| (Shape::Plain, concurrent));
    let pieces = cli.pieces;
    let streamed = STREAMED_AT.map(|concurrent| (Shape::Streamed { pieces }, concurrent));
    println!(
        "{}, {} rounds of {} s each\n",
        machine(),
        cli.rounds,
        cli.seconds
    );
    // An answer's length is a provider's setting, so each shape has servers of its own.
    series(cli, python, 1, &plain)?;
    series(cli, python, pieces, &streamed)
}

fn series(cli: &Cli, python: &Path, pieces: u32, cells: &[(Shape, u16)]) -> Outcome<()> {
    let workspace = Workspace::new(cli.data.as_deref())?;
    let contestants = [
        cereus(cli, workspace.path(), pieces)?,
        router(cli, python)?,
        bare_echo(cli)?,
    ];
    for &(shape, concurrent) in cells {
        let mut rounds: Vec<Vec<Round>> = contestants.iter().map(|_| vec![]).collect();
        for contestant in &contestants {
            drive(contestant, shape, concurrent, Duration::from_secs(1))?;
        }
        // By turns, so that whatever else the machine does falls on all of them.
        for _ in 0..cli.rounds {
            for (contestant, rounds) in contestants.iter().zip(&mut rounds) {
                let time = Duration::from_secs(cli.seconds);
                rounds.push(drive(contestant, shape, concurrent, time)?);
            }
        }
        print(shape, concurrent, &contestants, rounds);
    }
    Ok(())
}

/// sglang's router before the bare echo, everything about it as installed.
fn router(cli: &Cli, python: &Path) -> Outcome<Contestant> {
    let (echo, upstream) = start_echo(cli)?;
    let addr = system::free_address()?;
    let metrics = system::free_address()?;
    let port = addr.port().to_string();
    let metrics_port = metrics.port().to_string();
    let worker = format!("http://{}", upstream.trim());
    let front = Process::spawn(
        python,
        &[
            "-m",
            "sglang_router.launch_router",
            "--host",
            "127.0.0.1",
            "--port",
            &port,
            "--worker-urls",
            &worker,
            "--prometheus-port",
            &metrics_port,
            "--log-level",
            "error",
        ],
    )?;
    let contestant = Contestant::open(
        "sglang-router and echo",
        &addr.to_string(),
        front,
        vec![echo],
    );
    contestant.asked(Shape::Plain).until_served(START_WAIT)?;
    Ok(contestant)
}

fn print(shape: Shape, concurrent: u16, contestants: &[Contestant], rounds: Vec<Vec<Round>>) {
    let (what, each) = match shape {
        Shape::Plain => ("plain answers of one piece".to_owned(), "answer"),
        Shape::Streamed { pieces } => (format!("streams of {pieces} pieces"), "event"),
    };
    let connections = if concurrent == 1 {
        "connection"
    } else {
        "connections"
    };
    println!("{what}, {concurrent} {connections}:\n");
    println!(
        "| | requests/s | least to most | first p50 | p99 | added p50 | CPU in front, request | {each} |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    let middles: Vec<(Round, f64, f64)> = rounds
        .into_iter()
        .filter_map(|rounds| {
            let all = || rounds.iter().map(Round::requests_per_s);
            let (least, most) = (all().fold(f64::MAX, f64::min), all().fold(0.0, f64::max));
            Some((Round::middle(rounds)?, least, most))
        })
        .collect();
    let bare = middles.last().map_or(0.0, |(round, ..)| round.first_ms(50));
    for (contestant, (round, least, most)) in contestants.iter().zip(&middles) {
        let per = |count: u64| round.front_cpu_us as f64 / count.max(1) as f64;
        println!(
            "| {} | {:.0} | {least:.0} to {most:.0} | {:.2} ms | {:.2} ms | {:.2} ms | {:.0} us | {:.1} us |",
            contestant.name,
            round.requests_per_s(),
            round.first_ms(50),
            round.first_ms(99),
            round.first_ms(50) - bare,
            per(round.requests),
            per(round.events),
        );
    }
    if let [(own, ..), (peer, ..), ..] = &middles[..] {
        println!(
            "\n- against the router: {:.2} of its requests a second\n",
            own.requests_per_s() / peer.requests_per_s()
        );
    }
}
