//! The command line: every command, its options and its examples.

mod operator;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use cereus_coordinator::settings::{parse_model, parse_model_id};
use cereus_core::config::ModelSpec;
use cereus_core::schedule::Window;
use cereus_core::slots::SLOTS_MAX;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::listen::parse_listen;

pub(crate) use operator::{
    AccountCommand, AccountListArgs, AuditArgs, CreditAddArgs, CreditArgs, CreditCommand,
    CreditListArgs, CreditReverseArgs, EarningsArgs, EarningsCommand, EarningsMoveArgs,
    EarningsProveArgs, KeyCommand, KeyCreateArgs, KeyListArgs, KeyRevokeArgs, ListArgs, PricesArgs,
    PricesCommand, ProvidersArgs, RequestsArgs,
};

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

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cereus coordinator --data data --model tiny:50000:200000:2048\n  \
    cereus coordinator --data data --model-catalog models.json --listen 0.0.0.0:8080 --metrics-listen 9090\n\n\
    A catalogue file:\n  \
    {\"models\": [{\"id\": \"tiny\", \"input_micro_usd_per_mtok\": 50000,\n   \
    \"output_micro_usd_per_mtok\": 200000, \"context_tokens\": 2048}]}\n\n\
    `cereus prices reload` has a running coordinator read that file anew.\n\n\
    SIGTERM or Ctrl-C drains: nothing more is admitted, running streams finish.")]
pub(crate) struct CoordinatorArgs {
    /// Where to listen: a port of this machine alone, or HOST:PORT; port 0 takes any free port
    #[arg(long, default_value = LISTEN_DEFAULT, value_parser = parse_listen, value_name = "[HOST:]PORT")]
    pub(crate) listen: SocketAddr,
    /// Where to show GET /metrics: a port of this machine alone, or HOST:PORT; nowhere if not given
    #[arg(long, value_parser = parse_listen, value_name = "[HOST:]PORT")]
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// Folder of the ledger and the journal; made if it is not there
    #[arg(long, default_value = "cereus-data")]
    pub(crate) data: PathBuf,
    /// A model to sell: ID:INPUT:OUTPUT, then perhaps :CONTEXT; micro-USD for a million tokens; may be repeated
    #[arg(long = "model", value_parser = parse_model, value_name = "ID:IN:OUT[:CONTEXT]")]
    pub(crate) models: Vec<ModelSpec>,
    /// A JSON file of models to sell
    #[arg(long)]
    pub(crate) model_catalog: Option<PathBuf>,
    /// Longest queue for one model before requests get 429
    #[arg(long, default_value_t = 256)]
    pub(crate) queue_depth: u32,
    /// Longest wait in the queue, in seconds
    #[arg(long, default_value_t = 120)]
    pub(crate) queue_wait: u64,
    /// Open connections of consumers; one more waits a little and is told to come back
    #[arg(long, default_value_t = 4_096)]
    pub(crate) connections: usize,
    /// Seconds that a connection may rest between two requests
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) idle_timeout: u64,
    /// A proxy in front of this coordinator, whose X-Forwarded-For is believed; may be repeated
    #[arg(long = "proxy", value_name = "ADDRESS")]
    pub(crate) proxies: Vec<IpAddr>,
    /// How long a drain waits for the last stream, in seconds
    #[arg(long, default_value_t = 600)]
    pub(crate) drain_wait: u64,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cereus provider --coordinator http://127.0.0.1:8080 --model engine/models/tiny\n  \
    cereus provider --model small=models/a --model large=models/b --idle-timeout 30\n  \
    cereus provider --models ~/.cache/huggingface/hub --on-demand\n  \
    cereus provider --model models/a --schedule 'mon-fri 22:00-06:00' --schedule 'sat,sun 00:00-00:00'\n  \
    cereus provider --coordinator http://127.0.0.1:8080 --echo --model-id tiny\n\n\
    The machine's key is made at the first start and kept in --data. SIGTERM or Ctrl-C drains.\n\
    What does not fit beside the others is loaded when somebody asks for it, and then the model\n\
    that was idle longest goes; `cereus doctor --explain-memory` shows what fits.\n\n\
    Outside of its --schedule a provider finishes what runs, leaves the coordinator and unloads its\n\
    models. A window that ends no later than it begins ends on the next day.")]
pub(crate) struct ProviderArgs {
    /// The coordinator's address; an earning key travels to another machine over https alone
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub(crate) coordinator: String,
    /// A PEM file of certificates to trust besides the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) authorities: Option<PathBuf>,
    /// A model folder in the standard Hugging Face layout, under the folder's name or another one; may be repeated
    #[arg(long = "model", value_name = "[ID=]FOLDER", value_parser = parse_served, required_unless_present_any = ["echo", "roots"])]
    pub(crate) models: Vec<Served>,
    /// Serve every model in this folder or Hugging Face cache; may be repeated
    #[arg(long = "models", value_name = "FOLDER")]
    pub(crate) roots: Vec<PathBuf>,
    /// The name under which the coordinator sells the one --model; with --echo may be repeated
    #[arg(long = "model-id", value_name = "ID", value_parser = parse_model_id)]
    pub(crate) model_ids: Vec<String>,
    /// Load no model before somebody asks for it
    #[arg(long)]
    pub(crate) on_demand: bool,
    /// Models in memory at once
    #[arg(long, default_value_t = SLOTS_MAX, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) slots: u8,
    /// Minutes without a request after which a model leaves the memory; 0: never
    #[arg(long, value_name = "MINUTES", default_value_t = 60)]
    pub(crate) idle_timeout: u64,
    /// Memory left to other programs, in GiB
    #[arg(long, value_name = "GIB", value_parser = parse_gib)]
    pub(crate) memory_reserve_gb: Option<u64>,
    /// Folder of the machine's key
    #[arg(long, default_value = "cereus-provider")]
    pub(crate) data: PathBuf,
    /// An API key of the account that earns; may also be given as CEREUS_EARN_KEY
    #[arg(long, value_parser = parse_key)]
    pub(crate) earn_key: Option<String>,
    /// Say the same word again and again instead of running a model: for tests and benches
    #[arg(long)]
    pub(crate) echo: bool,
    /// Words that the echo answers with (with --echo)
    #[arg(long, default_value_t = 16, requires = "echo")]
    pub(crate) echo_pieces: u32,
    /// Pause before each word of the echo, in milliseconds (with --echo)
    #[arg(long, default_value_t = 0, requires = "echo")]
    pub(crate) echo_pause_ms: u64,
    /// Requests that one model serves at once
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) concurrency: u16,
    /// How long running requests may finish after SIGTERM, or when the hours end, in seconds
    #[arg(long, default_value_t = 120)]
    pub(crate) drain_wait: u64,
    /// Serve at these local times only, as in `mon-fri 22:00-06:00`; may be repeated
    #[arg(long = "schedule", value_name = "DAYS FROM-TO")]
    pub(crate) windows: Vec<Window>,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cereus local engine/models/tiny\n  \
    cereus local engine/models/tiny --listen 127.0.0.1:0 --json    for scripts: says where it listens\n  \
    cereus local engine/models/tiny --cache cereus-cache           long prompts outlive a restart\n\n\
    Then, in another terminal:\n  \
    curl http://127.0.0.1:8080/v1/chat/completions -H 'content-type: application/json' \\\n    \
    -d '{\"messages\": [{\"role\": \"user\", \"content\": \"What is 2 + 3?\"}]}'\n\n\
    Routes: /v1/chat/completions, /v1/completions, /v1/models, /v1/status, /health, /metrics.\n\
    SIGTERM or Ctrl-C drains: nothing more is taken, running answers finish.")]
pub(crate) struct LocalArgs {
    /// A model folder in the standard Hugging Face layout
    #[arg(value_name = "FOLDER", required_unless_present = "echo")]
    pub(crate) folder: Option<PathBuf>,
    /// Where to listen: a port of this machine alone, or HOST:PORT; port 0 takes any free port
    #[arg(long, default_value = LISTEN_DEFAULT, value_parser = parse_listen, value_name = "[HOST:]PORT")]
    pub(crate) listen: SocketAddr,
    /// The name that requests give the model; the folder's name if not given
    #[arg(long, value_parser = parse_model_id)]
    pub(crate) model_id: Option<String>,
    /// A key that clients must send; may also be given as CEREUS_LOCAL_KEY; none asks for nothing
    #[arg(long, value_parser = parse_key)]
    pub(crate) key: Option<String>,
    /// Requests answered together
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) rows: u16,
    /// Requests that may wait before further ones get 429
    #[arg(long, default_value_t = 64)]
    pub(crate) waiting: u16,
    /// Open HTTP connections; further ones wait
    #[arg(long, default_value_t = 256)]
    pub(crate) connections: usize,
    /// Seconds that a connection may rest between two requests
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) idle_timeout: u64,
    /// Another host name under which a server of this machine answers, as `mac.lan`; may be repeated
    #[arg(long = "allow-host", value_name = "NAME")]
    pub(crate) allow_hosts: Vec<String>,
    /// Web pages that may use this server beside those of this machine, as `https://chat.example`, or `*`; may be repeated
    #[arg(long = "allow-origin", value_name = "ORIGIN", value_parser = parse_origin)]
    pub(crate) allow_origins: Vec<String>,
    /// Memory for keys and values, in GiB; a quarter of the machine's if not given
    #[arg(long, value_name = "GIB", value_parser = parse_some_gib)]
    pub(crate) kv_gb: Option<u64>,
    /// Keep what was computed of prompts of 1,024 tokens and more in this folder, sealed: it outlives memory and a restart, for a day
    #[arg(long, value_name = "FOLDER")]
    pub(crate) cache: Option<PathBuf>,
    /// The most that the cache takes of the disk, in GiB (with --cache)
    #[arg(long, value_name = "GIB", value_parser = parse_some_gib, default_value = "8", requires = "cache")]
    pub(crate) cache_gb: u64,
    /// Folder of the cache's key, outside the cache; made if it is not there (with --cache)
    #[arg(long, default_value = "cereus-data", requires = "cache")]
    pub(crate) data: PathBuf,
    /// How long running answers may finish after SIGTERM, in seconds
    #[arg(long, default_value_t = 120)]
    pub(crate) drain_wait: u64,
    /// Print one JSON object when it serves
    #[arg(long)]
    pub(crate) json: bool,
    /// Say the same word again and again instead of running a model: for tests and benches
    #[arg(long)]
    pub(crate) echo: bool,
    /// Words that the echo answers with (with --echo)
    #[arg(long, default_value_t = 16, requires = "echo")]
    pub(crate) echo_pieces: u32,
    /// Pause before each word of the echo, in milliseconds (with --echo)
    #[arg(long, default_value_t = 0, requires = "echo")]
    pub(crate) echo_pause_ms: u64,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cereus benchmark engine/models/tiny\n  \
    cereus benchmark engine/models/tiny --rows 1,2,4 --prompt 512 --new 128 --json\n\n\
    Prefill counts from the hand-in of all prompts to the last first token. Decode counts the tokens of \
    all rows together while all of them decode. Linearity is that speed over the speed of one row times \
    the rows.")]
pub(crate) struct BenchmarkArgs {
    /// A model folder in the standard Hugging Face layout
    #[arg(value_name = "FOLDER", required_unless_present = "echo")]
    pub(crate) folder: Option<PathBuf>,
    /// Sizes of batch
    #[arg(long, value_delimiter = ',', default_value = "1,4,8,16",
        value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub(crate) rows: Vec<u16>,
    /// Tokens of each prompt, as near as words can be cut
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub(crate) prompt: u32,
    /// Tokens of each answer
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=65_536))]
    pub(crate) new: u32,
    /// Measurements whose median is reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) iterations: u32,
    /// Memory for keys and values, in GiB; a quarter of the machine's if not given
    #[arg(long, value_name = "GIB", value_parser = parse_some_gib)]
    pub(crate) kv_gb: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Run no model: what everything around one costs
    #[arg(long)]
    pub(crate) echo: bool,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cereus doctor\n  \
    cereus doctor --explain-memory engine/models/tiny\n  \
    cereus doctor --json engine/models/tiny\n\n\
    Nothing is loaded. The status is 1 when a check failed.")]
pub(crate) struct DoctorArgs {
    /// Folders of models; all of the Hugging Face cache if none is given
    #[arg(value_name = "MODEL")]
    pub(crate) models: Vec<PathBuf>,
    /// Show every term between the machine's memory and the verdict on each model
    #[arg(long)]
    pub(crate) explain_memory: bool,
    /// Print one JSON object, with every term
    #[arg(long)]
    pub(crate) json: bool,
    /// Warnings fail as well
    #[arg(long)]
    pub(crate) strict: bool,
    /// Memory left to other programs, in GiB
    #[arg(long, value_name = "GIB", value_parser = parse_gib)]
    pub(crate) memory_reserve_gb: Option<u64>,
}

#[derive(Subcommand)]
pub(crate) enum ModelsCommand {
    /// List models without reading their weights
    List(ModelsListArgs),
}

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cereus models list\n  \
    cereus models list --hash --json engine/models\n\n\
    Hashes are kept in --data and computed again only when a file was touched.")]
pub(crate) struct ModelsListArgs {
    /// A Hugging Face cache, a folder of model folders, or one model; this user's cache if not given
    #[arg(value_name = "FOLDER")]
    pub(crate) folders: Vec<PathBuf>,
    /// Also those that this machine cannot load
    #[arg(long)]
    pub(crate) all: bool,
    /// Compute the hash of each model's files
    #[arg(long)]
    pub(crate) hash: bool,
    /// Print JSON, one object on each line
    #[arg(long)]
    pub(crate) json: bool,
    /// Folder where hashes are kept
    #[arg(long, default_value = "cereus-provider")]
    pub(crate) data: PathBuf,
    /// Memory left to other programs, in GiB
    #[arg(long, value_name = "GIB", value_parser = parse_gib)]
    pub(crate) memory_reserve_gb: Option<u64>,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cereus chat --key sk-cereus-... --model tiny \"What is 2 + 3?\"\n  \
    CEREUS_API_KEY=sk-cereus-... cereus chat --model tiny --receipt \"Spell cereus\"")]
pub(crate) struct ChatArgs {
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub(crate) coordinator: String,
    /// The API key; may also be given as CEREUS_API_KEY
    #[arg(long, value_parser = parse_key)]
    pub(crate) key: Option<String>,
    #[arg(long)]
    pub(crate) model: String,
    #[arg(long, default_value_t = 256)]
    pub(crate) max_tokens: u32,
    #[arg(long)]
    pub(crate) temperature: Option<f64>,
    #[arg(long)]
    pub(crate) seed: Option<i64>,
    /// Show what it cost and where the time went
    #[arg(long)]
    pub(crate) receipt: bool,
    /// What to ask
    pub(crate) prompt: String,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cereus demo                        stays up; prints a curl line and a Python snippet\n  \
    cereus demo --once                 one answer, one receipt, exit status 0\n  \
    cereus demo --prompt \"Spell night\"")]
pub(crate) struct DemoArgs {
    /// Answer one prompt, show its receipt and stop
    #[arg(long)]
    pub(crate) once: bool,
    /// A model folder in the standard Hugging Face layout
    #[arg(long, default_value = "engine/models/tiny")]
    pub(crate) model: PathBuf,
    /// The coordinator's port; 0 takes any free port
    #[arg(long, default_value_t = 0)]
    pub(crate) port: u16,
    /// What to ask
    #[arg(long, default_value = "What is Cereus?")]
    pub(crate) prompt: String,
    /// Folder of the ledger and the journal; a fresh temporary one if not given
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
    /// Say the same word again and again instead of running the model
    #[arg(long)]
    pub(crate) echo: bool,
}

/// A model folder, and the name that it is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) id: Option<String>,
    pub(crate) folder: PathBuf,
}

/// A folder whose own name holds a `=` is taken as it is.
fn parse_served(text: &str) -> Result<Served, String> {
    let named = text.split_once('=').filter(|_| !Path::new(text).exists());
    Ok(match named {
        Some((id, folder)) => Served {
            id: Some(parse_model_id(id)?),
            folder: PathBuf::from(folder),
        },
        None => Served {
            id: None,
            folder: PathBuf::from(text),
        },
    })
}

/// A key that is empty is most often a variable that is not set.
fn parse_key(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("the key is empty; is its variable set?".to_owned());
    }
    Ok(text.to_owned())
}

/// `*`, or what browsers send as a page's origin.
fn parse_origin(text: &str) -> Result<String, String> {
    let is_host = |host: &str| {
        let is_odd = |it: char| it.is_whitespace() || it.is_control() || "/?#@\\*".contains(it);
        !host.is_empty() && !host.starts_with(':') && !host.contains(is_odd)
    };
    let is_origin = text.split_once("://").is_some_and(|(scheme, host)| {
        !scheme.is_empty()
            && scheme
                .bytes()
                .all(|it| it.is_ascii_alphanumeric() || it == b'-')
            && is_host(host)
    });
    if text != "*" && !is_origin {
        return Err(format!(
            "`{text}`: expected * or an origin as browsers send it, SCHEME://HOST or \
             SCHEME://HOST:PORT, for instance https://chat.example"
        ));
    }
    Ok(text.to_owned())
}

/// As [`parse_gib`], of which there must be some.
fn parse_some_gib(text: &str) -> Result<u64, String> {
    let bytes = parse_gib(text)?;
    if bytes == 0 {
        return Err(format!(
            "`{text}`: expected more than nothing, for instance 4 or 0.5"
        ));
    }
    Ok(bytes)
}

/// Gibibytes as whole bytes.
fn parse_gib(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}`: expected gibibytes, for instance 4 or 0.5");
    let millionths = millionths(text).ok_or_else(wrong)?;
    let bytes = (u128::from(millionths.unsigned_abs()) << 30) / 1_000_000;
    u64::try_from(bytes).map_err(|_| wrong())
}

/// A number without a sign and with at most six decimals.
fn millionths(text: &str) -> Option<i64> {
    const DIGITS: usize = 6;
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    if !is_number(whole) || !is_number(part) || part.len() > DIGITS {
        return None;
    }
    format!("{whole}{part:0<DIGITS$}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        with_signs(Cli::command()).debug_assert();
    }

    /// What is wrong with a command line.
    fn complaint(words: &[&str]) -> String {
        let words = ["cereus"].into_iter().chain(words.iter().copied());
        let given = with_signs(Cli::command()).try_get_matches_from(words);
        given.map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn a_number_below_zero_hears_what_is_wrong_with_it() {
        let chat = ["cereus", "chat", "--model", "m", "--seed", "-7", "-2"];
        let given = with_signs(Cli::command()).try_get_matches_from(chat);
        let Command::Chat(chat) = Cli::from_arg_matches(&given.unwrap()).unwrap().command else {
            unreachable!("it was asked for");
        };
        assert_eq!((chat.seed, chat.prompt.as_str()), (Some(-7), "-2"));
        let credit = complaint(&["credit", "--account", "ada", "--amount", "-1"]);
        assert!(credit.contains("expected dollars"), "{credit}");
        let tokens = complaint(&["chat", "--model", "m", "--max-tokens", "-1", "hello"]);
        assert!(tokens.contains("--max-tokens"), "{tokens}");
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

    #[test]
    fn origins_are_written_as_browsers_send_them() {
        for origin in ["*", "https://chat.example", "http://[::1]:3000", "app://-"] {
            assert_eq!(parse_origin(origin).as_deref(), Ok(origin));
        }
        for wrong in [
            "",
            "foo",
            "https://",
            "https://a/",
            "https://*.a",
            "https://:1",
            "https://a b",
        ] {
            assert!(parse_origin(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_model_may_be_given_a_name_of_its_own() {
        let served = parse_served("small=models/a").unwrap();
        assert_eq!(served.id.as_deref(), Some("small"));
        assert_eq!(served.folder, Path::new("models/a"));
        assert_eq!(parse_served("models/a").unwrap().id, None);
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("a=b");
        std::fs::create_dir(&odd).unwrap();
        let served = parse_served(odd.to_str().unwrap()).unwrap();
        assert_eq!((served.id, served.folder), (None, odd));
    }

    #[test]
    fn gibibytes_are_read_as_bytes() {
        for (text, bytes) in [("4", 4 << 30), ("0.5", 1 << 29), ("0", 0)] {
            assert_eq!(parse_gib(text), Ok(bytes));
        }
        for text in ["", "-1", "4GB", "9999999999999"] {
            assert!(parse_gib(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_window_that_is_none_is_refused_with_an_example() {
        let parsed =
            |window| Cli::try_parse_from(["cereus", "provider", "--echo", "--schedule", window]);
        assert!(parsed("mon-fri 22:00-06:00").is_ok());
        for wrong in ["mon", "moon 22:00-06:00", "mon 22:00-24:00"] {
            let Err(error) = parsed(wrong) else {
                panic!("`{wrong}` was taken");
            };
            assert!(
                error.to_string().contains("22:00-06:00") || error.to_string().contains("mon-fri")
            );
        }
    }
}
