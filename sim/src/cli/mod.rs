//! Command lines of the binary.

pub(crate) mod bisect;
pub(crate) mod calibrate;
pub(crate) mod compare;
pub(crate) mod explain;
pub(crate) mod liars;
mod options;
pub(crate) mod replay;
pub(crate) mod report;
pub(crate) mod run;
mod several;
pub(crate) mod shrink;
pub(crate) mod swarm;
pub(crate) mod sweep;
mod tables;
mod trace;
mod world;
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
    /// Where do two runs part? Finds the first event after which something differs.
    Bisect(bisect::Args),
    /// What can a chip do? Fits its figures to benchmarks or to a journal, and says how well they fit.
    Calibrate(calibrate::Args),
    /// Which policy serves users best? Runs several over the same seeds and says what differs.
    Compare(compare::Args),
    /// Why did it go there? Shows the costs that the coordinator compared for one request.
    Explain(explain::Args),
    /// What can liars do? Runs random worlds in which up to a third of the machines lie.
    Liars(liars::Args),
    /// What did production do? Feeds a recorded journal to a fresh coordinator and compares.
    Replay(replay::Args),
    /// The same with pictures: one HTML page of a fleet, its policies, its limits and its machines.
    Report(report::Args),
    /// What would users have seen? Feeds a trace of arrivals to a simulated fleet.
    Run(run::Args),
    /// How few machines are enough? Looks for the smallest fleet that meets an objective.
    Sweep(sweep::Args),
    /// Why does it break? Looks for the smallest world in which a seed of the swarm still does.
    Shrink(shrink::Args),
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
    fn a_comparison_takes_loads_or_a_speedup_and_names_its_policies() {
        let parse = |words: &[&str]| {
            let first = ["cereus-sim", "compare", "trace.csv"];
            Cli::try_parse_from(first.iter().chain(words))
        };
        assert!(parse(&["--load", "0.5,0.8", "--policies", "random,two-choices"]).is_ok());
        assert!(parse(&["--speedup", "1.5", "--seeds", "3"]).is_ok());
        assert!(parse(&["--speedup", "1.5", "--load", "0.8"]).is_err());
        assert!(parse(&["--load", "0"]).is_err());
        let said = parse(&["--policies", "best"]).unwrap_err().to_string();
        assert!(said.contains("least-outstanding"), "{said}");
    }

    #[test]
    fn the_oracle_alone_knows_what_is_to_come() {
        use cereus_core::coordinator::Policy;
        use cereus_sim::world::config::RunConfig;
        use cereus_sim::world::knowledge::Knowledge;
        use clap::ValueEnum;

        let base = RunConfig::reference(3);
        for choice in options::Choice::value_variants() {
            let world = choice.world(5, &base);
            let knows = world.knowledge == Knowledge::Perfect;
            assert_eq!(knows, *choice == options::Choice::Oracle, "{choice:?}");
            assert_eq!(knows, world.policy == Policy::Told, "{choice:?}");
            let same = RunConfig {
                seed: base.seed,
                policy: base.policy,
                knowledge: base.knowledge,
                ..world
            };
            assert_eq!(same, base, "nothing else differs");
        }
    }

    #[test]
    fn every_command_says_how_it_is_called() {
        for command in ["run", "compare", "report", "sweep", "explain", "bisect"] {
            let help = complaint(&[command, "--help"]);
            assert!(help.contains("EXAMPLES\n    cargo xtask sim "), "{help}");
            assert!(
                help.contains(&format!("cargo xtask sim {command} ")),
                "{help}"
            );
        }
        for words in [
            &["explain", "trace.csv", "4711"][..],
            &[
                "explain",
                "trace.csv",
                "00000000-0000-0000-0000-00000000002a",
            ],
            &["bisect", "runs", "trace.csv", "--other-policy", "random"],
            &["bisect", "journals", "a.journal", "b.journal"],
            &[
                "sweep",
                "trace.csv",
                "--goal",
                "0.99",
                "--ttft-p99-ms",
                "8000",
            ],
            &["report", "trace.csv", "--against", "sticky", "--no-loads"],
            &[
                "calibrate",
                "a.json",
                "b.json",
                "--model",
                "llama-3-8b-4bit",
            ],
            &[
                "calibrate",
                "a.journal",
                "--model",
                "qwen",
                "--machine",
                "2",
            ],
        ] {
            let words = ["cereus-sim"].iter().chain(words);
            assert!(Cli::try_parse_from(words.clone()).is_ok(), "{words:?}");
        }
        let said = complaint(&["explain", "trace.csv", "first"]);
        assert!(said.contains("neither a number nor an id"), "{said}");
    }

    #[test]
    fn the_help_lists_what_can_be_planted() {
        let help = complaint(&["swarm", "--help"]);
        assert!(help.contains("lost-cancel"), "{help}");
        let help = complaint(&["calibrate", "--help"]);
        assert!(help.contains("cargo xtask sim calibrate "), "{help}");
        let help = complaint(&["liars", "--help"]);
        assert!(
            help.contains("believes-one") && help.contains("drip"),
            "{help}"
        );
        assert!(Cli::try_parse_from(["cereus-sim", "swarm", "--plant", "lost-cancel"]).is_ok());
    }
}
