//! Command lines of the binary.

pub(crate) mod run;

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
    /// What would users have seen? Feeds a trace of arrivals to a simulated fleet.
    Run(run::Args),
}
