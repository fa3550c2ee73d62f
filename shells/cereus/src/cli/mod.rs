//! The command line: every command, its options and its examples.

mod consumer;
mod coordinator;
mod local;
mod machine;
mod operator;
mod provider;
mod values;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub(crate) use consumer::{ChatArgs, DemoArgs};
pub(crate) use coordinator::CoordinatorArgs;
pub(crate) use local::LocalArgs;
pub(crate) use machine::{BenchmarkArgs, DoctorArgs, ModelsCommand, ModelsListArgs};
pub(crate) use operator::{
    AccountCommand, AccountListArgs, AuditArgs, CreditAddArgs, CreditArgs, CreditCommand,
    CreditListArgs, CreditReverseArgs, EarningsArgs, EarningsCommand, EarningsMoveArgs,
    EarningsProveArgs, KeyCommand, KeyCreateArgs, KeyListArgs, KeyRevokeArgs, ListArgs, PricesArgs,
    PricesCommand, ProvidersArgs, RequestsArgs,
};
pub(crate) use provider::ProviderArgs;
pub(crate) use values::{key_in_variable, parse_key};

pub(crate) const LISTEN_DEFAULT: &str = "127.0.0.1:8080";

#[derive(Parser)]
#[command(
    name = "cereus",
    version,
    about = "A decentralised private inference network",
    after_help = "Start here:\n  \
        cereus demo --model engine/models/tiny     one private answer, with its receipt\n  \
        cereus doctor engine/models/tiny           whether this machine can serve it\n  \
        cereus local engine/models/tiny            the OpenAI API on this machine alone\n\n\
        A network of your own:\n  \
        cereus key create --data data --account me --credit 5\n  \
        cereus coordinator --data data --model tiny:50000:200000:2048\n  \
        cereus provider --coordinator http://127.0.0.1:8080 --model engine/models/tiny\n  \
        cereus chat --key sk-cereus-... --model tiny \"What is 2 + 3?\"\n\n\
        Logs go to standard error; CEREUS_LOG sets their level, as in CEREUS_LOG=debug.",
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// The command line of this process. What is wrong with it ends the process.
    pub(crate) fn read() -> Self {
        let given = with_signs(Self::command()).get_matches();
        Self::from_arg_matches(&given).unwrap_or_else(|error| error.exit())
    }
}

/// Takes `-7` for a number, so that a value below zero hears what is wrong with it rather than that
/// there is no option `-7`.
fn with_signs(command: clap::Command) -> clap::Command {
    let takes_sign = |arg: clap::Arg| {
        let takes_value = arg.get_action().takes_values();
        arg.allow_negative_numbers(takes_value)
    };
    command.mut_args(takes_sign).mut_subcommands(with_signs)
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run a coordinator: the HTTP API, the ledger, and the providers' endpoint
    Coordinator(CoordinatorArgs),
    /// Run a provider: serve a model to a coordinator
    Provider(ProviderArgs),
    /// Serve a model on this machine alone: the OpenAI API without a coordinator
    Local(LocalArgs),
    /// Measure how fast this machine runs a model, at several sizes of batch
    Benchmark(BenchmarkArgs),
    /// Make, list and revoke API keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Add money to an account, list what came in, take a credit back
    Credit(CreditArgs),
    /// Accounts and their money
    #[command(subcommand)]
    Account(AccountCommand),
    /// What was asked, and what it cost
    Requests(RequestsArgs),
    /// What machines earned, by account; moves what one earned without an account
    Earnings(EarningsArgs),
    /// Connected machines: trust, models, load, and why one gets nothing
    Providers(ProvidersArgs),
    /// What a running coordinator sells, and for how much; reads its catalogue anew
    Prices(PricesArgs),
    /// Check the whole ledger and its file
    Audit(AuditArgs),
    /// Ask a model something and print its answer as it is made
    Chat(ChatArgs),
    /// Show one private chat completion from end to end, with its receipt
    Demo(DemoArgs),
    /// Say whether this machine can serve, and each model on it
    Doctor(DoctorArgs),
    /// List the models on this machine
    #[command(subcommand)]
    Models(ModelsCommand),
}

/// What answers without a model.
#[derive(Args)]
pub(crate) struct EchoArgs {
    /// Say the same word again and again instead of running a model: for tests and benches
    #[arg(id = "echo", long = "echo")]
    pub(crate) is_on: bool,
    /// Words that the echo answers with (with --echo)
    #[arg(long = "echo-pieces", default_value_t = 16, requires = "echo")]
    pub(crate) pieces: u32,
    /// Pause before each word of the echo, in milliseconds (with --echo)
    #[arg(long = "echo-pause-ms", default_value_t = 0, requires = "echo")]
    pub(crate) pause_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        with_signs(Cli::command()).debug_assert();
    }

    fn read(words: &[&str]) -> Command {
        let words = ["cereus"].iter().chain(words);
        let given = with_signs(Cli::command()).try_get_matches_from(words);
        Cli::from_arg_matches(&given.unwrap()).unwrap().command
    }

    /// What is wrong with a command line.
    fn complaint(words: &[&str]) -> String {
        let words = ["cereus"].into_iter().chain(words.iter().copied());
        let given = with_signs(Cli::command()).try_get_matches_from(words);
        given.map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn a_number_below_zero_hears_what_is_wrong_with_it() {
        let chat = ["chat", "--model", "m", "--seed", "-7", "-2"];
        let Command::Chat(chat) = read(&chat) else {
            unreachable!("it was asked for");
        };
        assert_eq!((chat.seed, chat.prompt.as_str()), (Some(-7), "-2"));
        let credit = complaint(&["credit", "--account", "ada", "--amount", "-1"]);
        assert!(credit.contains("expected dollars"), "{credit}");
        let Command::Chat(open) = read(&["chat", "--model", "m", "--max-tokens", "-1", "hi"])
        else {
            unreachable!("it was asked for");
        };
        assert_eq!(open.max_tokens, -1);
        let tokens = complaint(&["chat", "--model", "m", "--max-tokens", "-2", "hello"]);
        assert!(tokens.contains("max_tokens must be -1 or"), "{tokens}");
    }

    #[test]
    fn both_servers_are_told_where_to_listen_as_people_write_it() {
        for (place, address) in [
            ("localhost:8081", "127.0.0.1:8081"),
            ("8081", "127.0.0.1:8081"),
            ("0.0.0.0:8081", "0.0.0.0:8081"),
        ] {
            let Command::Local(local) = read(&["local", "--echo", "--listen", place]) else {
                unreachable!("it was asked for");
            };
            assert_eq!(local.listen.to_string(), address);
            let both = ["--listen", place, "--metrics-listen", place];
            let Command::Coordinator(coordinator) = read(&[&["coordinator"], &both[..]].concat())
            else {
                unreachable!("it was asked for");
            };
            assert_eq!(coordinator.listen.to_string(), address);
            let metrics = coordinator.metrics_listen.map(|it| it.to_string());
            assert_eq!(metrics.as_deref(), Some(address));
        }
    }

    #[test]
    fn values_that_make_no_sense_are_refused_with_their_option() {
        for (words, option) in [
            (
                &["provider", "--echo", "--concurrency", "0"][..],
                "--concurrency",
            ),
            (
                &["provider", "--model", "a", "--echo-pieces", "3"],
                "--echo",
            ),
            (&["provider", "--echo", "--model-id", ""], "--model-id"),
            (&["provider", "--echo", "--earn-key", ""], "--earn-key"),
            (&["provider", "--model", "a b=folder"], "--model"),
            (&["coordinator", "--model", "tiny:1:2:0"], "--model"),
            (&["local", "a", "--rows", "0"], "--rows"),
            (&["local", "a", "--connections", "0"], "--connections"),
            (&["coordinator", "--connections", "0"], "--connections"),
            (&["credit", "reverse", "abc"], "cereus credit list"),
            (&["local", "a", "--model-id", ""], "--model-id"),
            (&["local", "a", "--key", ""], "--key"),
            (&["local", "a", "--kv-gb", "0"], "--kv-gb"),
            (&["local", "a", "--data", "data"], "--cache"),
            (&["local", "a", "--cache-gb", "2"], "--cache"),
            (&["local", "a", "--echo-pause-ms", "3"], "--echo"),
            (&["local", "a", "--allow-origin", "foo"], "--allow-origin"),
            (&["chat", "--model", "m", "--key", "", "hello"], "--key"),
        ] {
            let said = complaint(words);
            assert!(said.contains(option), "{words:?}: {said}");
        }
    }
}
