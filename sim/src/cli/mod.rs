//! Command lines of the binary.

pub(crate) mod liars;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod swarm;

use clap::{Parser, Subcommand};

/// Drives the real coordinator and scheduler through simulated worlds, deterministically.
#[derive(Debug, Parser)]
#[command(name = "cereus-sim", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What can liars do? Runs random worlds in which up to a third of the machines lie.
    Liars(liars::Args),
    /// What did production do? Feeds a recorded journal to a fresh coordinator and compares.
    Replay(replay::Args),
    /// What would users have seen? Feeds a trace of arrivals to a simulated fleet.
    Run(run::Args),
    /// Can it break? Runs random worlds with faults, one for each seed, under every oracle.
    Swarm(swarm::Args),
}
