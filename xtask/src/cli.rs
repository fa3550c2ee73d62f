//! The command line: every command, its options and its examples.

use clap::{Args, Parser, Subcommand, ValueEnum};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Set up, run, test and check Cereus",
    after_help = "Start here:\n  \
        cargo xtask demo       watch one private chat completion from end to end\n  \
        cargo xtask test       run every test\n\n\
        Each command has its own --help, with examples.",
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Install what is missing: system packages, MLX
    Setup(SetupArgs),
    /// Start a coordinator and a provider and show one private answer with its receipt
    Demo(DemoArgs),
    /// Run every test: unit, property, simulated, real sockets, real MLX
    Test(StageArgs),
    /// Run the simulator: run, replay, swarm
    Sim(SimArgs),
    /// Measure: the core in loops, the whole path under load
    Bench(BenchArgs),
    /// Fuzz one target, or every target in turn
    Fuzz(FuzzArgs),
    /// Train the tiny model from nothing
    TrainTiny(TrainArgs),
    /// Kill the coordinator and the provider at random moments and check the books
    Kill9(PassArgs),
    /// Run what takes too long for every change
    Nightly(StageArgs),
    /// Check what the compiler cannot: arrows between crates, file length, invariants
    Tidy(TidyArgs),
    /// All that must hold before a change lands: format, lints, docs, tidy, tests
    Ci(StageArgs),
}

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask setup                  install what is missing; instant when nothing is\n  \
    cargo xtask setup --check          only report, change nothing; exit status 1 if incomplete\n  \
    cargo xtask setup --check --json   the same for a script")]
pub(crate) struct SetupArgs {
    /// Report what is there and what is missing, and change nothing
    #[arg(long)]
    pub(crate) check: bool,
    /// Print the report as JSON (with --check)
    #[arg(long, requires = "check")]
    pub(crate) json: bool,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask demo                   stays up; prints a curl line and a Python snippet\n  \
    cargo xtask demo --once            one answer, one receipt, exit status 0\n  \
    cargo xtask demo -- --help         what the demo itself understands")]
pub(crate) struct DemoArgs {
    /// Answer one prompt, show its receipt and stop
    #[arg(long)]
    pub(crate) once: bool,
    /// Which build to run: release is fast to talk to, dev is fast to build
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    pub(crate) profile: Profile,
    /// Further arguments for `cereus demo`
    #[arg(last = true)]
    pub(crate) args: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    Dev,
    Release,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask test                   every stage, in order, stopping at the first that fails\n  \
    cargo xtask test --list            the stages and what each runs\n  \
    cargo xtask test swarm sdk         only these two\n  \
    cargo xtask ci --keep-going        every stage, even after a failure\n  \
    cargo xtask ci --json              a closing summary as JSON on standard output\n\n\
    `test`, `ci` and `nightly` take the same options; `ci` puts the checks of the text before the \
    tests, `nightly` has stages of its own.")]
pub(crate) struct StageArgs {
    /// The stages to run; all of them if none is named
    pub(crate) stages: Vec<String>,
    /// List the stages and stop
    #[arg(long)]
    pub(crate) list: bool,
    /// Go on after a stage fails; the exit status still tells
    #[arg(long)]
    pub(crate) keep_going: bool,
    /// Print the summary as JSON on standard output; all else goes to standard error
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
#[command(
    disable_help_flag = true,
    after_help = "Examples:\n  \
    cargo xtask sim run TRACE --machines 1000   what users would have seen\n  \
    cargo xtask sim compare TRACE --machines 60 which policy serves users best\n  \
    cargo xtask sim report TRACE --machines 60  the same with pictures, as one HTML page\n  \
    cargo xtask sim sweep TRACE                 how few machines are enough\n  \
    cargo xtask sim explain TRACE 4711          why a request went where it went\n  \
    cargo xtask sim bisect runs TRACE           where two runs part\n  \
    cargo xtask sim replay JOURNAL              what production did, by digest\n  \
    cargo xtask sim swarm --seeds 2000          whether it can be broken\n  \
    cargo xtask sim liars --seeds 2000          whether liars do lasting harm\n  \
    cargo xtask sim --help                      the simulator's own help"
)]
pub(crate) struct SimArgs {
    /// Handed to the simulator as they stand
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask bench                  every bench, each with a table, in a few minutes\n  \
    cargo xtask bench --list           their names\n  \
    cargo xtask bench wire             one of them\n  \
    cargo xtask bench load             the whole path over HTTP, beside its floors\n  \
    cargo xtask bench peers            the same beside another router, with one connection and with many\n  \
    cargo xtask bench engine           the engine beside mlx-lm, into docs/figures.md, in about half an hour\n  \
    cargo xtask bench engine --only served --json served.json\n  \
    cargo xtask bench engine --smoke   the same in small, to see that it works\n  \
    cargo xtask bench soak --minutes 3 more load than the engine's memory can hold, and a verdict\n  \
    cargo xtask bench coordinator -- 10000x20   a bench's own options after the dashes")]
pub(crate) struct BenchArgs {
    /// The bench to run; all of them if none is named
    pub(crate) name: Option<String>,
    /// List the benches and stop
    #[arg(long)]
    pub(crate) list: bool,
    #[command(flatten)]
    pub(crate) engine: EngineBenchArgs,
    #[command(flatten)]
    pub(crate) soak: SoakArgs,
    /// Handed to criterion, to the load generator or to the soak, as they stand
    #[arg(last = true)]
    pub(crate) args: Vec<String>,
}

#[derive(Args)]
#[command(next_help_heading = "Options of the bench `engine`")]
pub(crate) struct EngineBenchArgs {
    /// Measure this part alone; may be repeated
    #[arg(long, value_enum)]
    pub(crate) only: Vec<EnginePart>,
    /// Write all that was measured into this file as well; `soak` does so too
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<std::path::PathBuf>,
    /// Turns that each side takes; three if not given
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub(crate) rounds: Option<u32>,
    /// Measure little, in a few minutes, and leave docs/figures.md as it is
    #[arg(long)]
    pub(crate) smoke: bool,
}

impl EngineBenchArgs {
    /// Whether anything was asked for that other benches do not have.
    pub(crate) const fn is_empty(&self) -> bool {
        self.is_empty_but_json() && self.json.is_none()
    }

    pub(crate) const fn is_empty_but_json(&self) -> bool {
        self.only.is_empty() && self.rounds.is_none() && !self.smoke
    }
}

#[derive(Args)]
#[command(next_help_heading = "Options of the bench `soak`")]
pub(crate) struct SoakArgs {
    /// How long it lasts; 20 if not given
    #[arg(long)]
    pub(crate) minutes: Option<f64>,
    /// A folder as `benches/mlx_lm/make.py` makes them; made if not given
    #[arg(long, value_name = "FOLDER")]
    pub(crate) model: Option<std::path::PathBuf>,
    /// Measure instead whether one tenant's times tell what another asked
    #[arg(long)]
    pub(crate) tenants: bool,
}

impl SoakArgs {
    pub(crate) const fn is_empty(&self) -> bool {
        self.minutes.is_none() && self.model.is_none() && !self.tenants
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EnginePart {
    /// The same tokens and logits as mlx-lm, family by family
    Families,
    /// Clients in a closed loop, with and without a common prefix
    Served,
    /// Prefill and decode for several numbers of rows
    Throughput,
}

/// Long enough to leave the shallow paths, short enough to try before a commit.
const FUZZ_SECONDS_DEFAULT: u32 = 60;

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask fuzz --list            the targets\n  \
    cargo xtask fuzz scan              one target, one minute\n  \
    cargo xtask fuzz --seconds 600     every target, ten minutes each\n  \
    cargo xtask fuzz relay -- -jobs=2  further flags of libFuzzer after the dashes\n\n\
    Works with the stable compiler. A finding is kept in fuzz/artifacts/TARGET/, and the command\n\
    that repeats it is printed.")]
pub(crate) struct FuzzArgs {
    /// The target to fuzz; every target in turn if none is named
    pub(crate) target: Option<String>,
    /// Seconds for each target
    #[arg(long, default_value_t = FUZZ_SECONDS_DEFAULT)]
    pub(crate) seconds: u32,
    /// Add the address sanitizer (slower; only of use for targets that reach unsafe code)
    #[arg(long)]
    pub(crate) asan: bool,
    /// Run the target once on this input instead, to repeat a finding
    #[arg(long, requires = "target", value_name = "FILE")]
    pub(crate) input: Option<std::path::PathBuf>,
    /// List the targets and stop
    #[arg(long)]
    pub(crate) list: bool,
    /// Handed to libFuzzer as they stand
    #[arg(last = true)]
    pub(crate) args: Vec<String>,
}

#[derive(Args)]
#[command(
    disable_help_flag = true,
    after_help = "Examples:\n  \
    cargo xtask train-tiny             retrain engine/models/tiny\n  \
    cargo xtask train-tiny --help      the trainer's own help"
)]
pub(crate) struct TrainArgs {
    /// Handed to the trainer as they stand
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

#[derive(Args)]
#[command(
    disable_help_flag = true,
    after_help = "Examples:\n  \
    cargo xtask kill9                  the full run\n  \
    cargo xtask kill9 --rounds 5       a short one\n  \
    cargo xtask kill9 --help           the script's own help"
)]
pub(crate) struct PassArgs {
    /// Handed on as they stand
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask tidy                   every check; exit status 1 if one fails\n  \
    cargo xtask tidy --json            the findings for a script")]
pub(crate) struct TidyArgs {
    /// Print the findings as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
