//! Command lines of the binary.

pub(crate) mod liars;
mod options;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod swarm;
mod worlds;

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

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(words: &[&str]) -> String {
        let words = ["cereus-sim"].into_iter().chain(words.iter().copied());
        Cli::try_parse_from(words).unwrap_err().to_string()
    }

    #[test]
    fn a_run_that_would_show_nothing_is_refused() {
        for (words, option) in [
            (&["swarm", "--seeds", "0"][..], "--seeds"),
            (&["liars", "--seeds", "0"], "--seeds"),
            (&["run", "trace.csv", "--balance-usd", "0"], "--balance-usd"),
        ] {
            let said = complaint(words);
            assert!(said.contains(option), "{words:?}: {said}");
        }
    }

    #[test]
    fn the_help_lists_what_can_be_planted() {
        let help = complaint(&["swarm", "--help"]);
        assert!(help.contains("lost-cancel"), "{help}");
        let help = complaint(&["liars", "--help"]);
        assert!(
            help.contains("believes-one") && help.contains("drip"),
            "{help}"
        );
        assert!(Cli::try_parse_from(["cereus-sim", "swarm", "--plant", "lost-cancel"]).is_ok());
    }
}
