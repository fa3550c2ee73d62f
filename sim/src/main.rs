//! `cereus-sim`: `run` a workload, `replay` a journal, `swarm` over seeds, `shrink` one of them, or `liars`.
//!
//! The only place of this crate that reads a clock, and only to say how long it took.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "prints the speed of the simulation in real time"
)]

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    sigpipe::reset();
    match cli::Cli::parse().command {
        cli::Command::Bisect(args) => cli::bisect::run(&args),
        cli::Command::Calibrate(args) => cli::calibrate::run(&args),
        cli::Command::Compare(args) => cli::compare::run(&args),
        cli::Command::Explain(args) => cli::explain::run(&args),
        cli::Command::Liars(args) => cli::liars::run(&args),
        cli::Command::Replay(args) => cli::replay::run(&args),
        cli::Command::Report(args) => cli::report::run(&args),
        cli::Command::Run(args) => cli::run::run(&args),
        cli::Command::Sweep(args) => cli::sweep::run(&args),
        cli::Command::Shrink(args) => cli::shrink::run(&args),
        cli::Command::Swarm(args) => cli::swarm::run(&args),
    }
}
