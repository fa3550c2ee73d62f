//! `cargo xtask`: everything that is done to the project from outside it.
//!
//! A shell around other programs: it installs, builds, runs and checks, and depends on none of the
//! project's crates, so that it is there within seconds of a fresh clone. It must never hold logic
//! that the product needs at run time.

mod bench;
mod cache;
mod cli;
mod demo;
mod failure;
mod families;
mod fuzz;
mod numerics;
mod project;
mod python;
mod run;
mod say;
mod setup;
mod stages;
mod tidy;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use failure::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match obey(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say::failure(&failure);
            ExitCode::from(failure.code)
        }
    }
}

fn obey(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Bench(args) => bench::bench(args),
        Command::Ci(args) => stages::ci(args),
        Command::Demo(args) => demo::demo(args),
        Command::Fuzz(args) => fuzz::fuzz(args),
        Command::Kill9(args) => demo::kill9(args),
        Command::Nightly(args) => stages::nightly(args),
        Command::Setup(args) => setup::command(args),
        Command::Sim(args) => demo::sim(&args.args),
        Command::Test(args) => stages::test(args),
        Command::Tidy(args) => tidy::command(args),
        Command::TrainTiny(args) => demo::train_tiny(&args.args),
    }
}
