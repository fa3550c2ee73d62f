//! The one binary `cereus`: coordinator, provider, local server, keys, chat, the demo.

mod benchmark;
mod books;
mod cache;
mod chat;
mod cli;
mod coordinator;
mod demo;
mod doctor;
mod listen;
mod local;
mod models;
mod paint;
mod provider;
mod signal;
mod terminal;

use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

use crate::cli::{AccountCommand, Cli, Command, KeyCommand, ModelsCommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a person reads when a command fails: a sentence that says what to do.
type Outcome = Result<(), String>;

fn main() -> ExitCode {
    let cli = Cli::read();
    let filter = EnvFilter::try_from_env("CEREUS_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    signal::outlive_file_limit();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // Parts of the message come from servers and machines of others, so what a terminal
            // would obey is taken out.
            eprintln!("cereus: {}", terminal::clean(&message));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Outcome {
    match command {
        Command::Account(AccountCommand::List(args)) => books::list_accounts(&args),
        Command::Audit(args) => books::audit(&args),
        Command::Benchmark(args) => benchmark::benchmark(args),
        Command::Chat(args) => block_on(chat::chat(args)),
        Command::Coordinator(args) => block_on(coordinator::serve(args)),
        Command::Credit(args) => books::credit(&args),
        Command::Demo(args) => block_on(demo::demo(args)),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Earnings(args) => books::earnings(&args),
        Command::Key(KeyCommand::Create(args)) => books::create_key(&args),
        Command::Key(KeyCommand::List(args)) => books::list_keys(&args),
        Command::Key(KeyCommand::Revoke(args)) => books::revoke_key(&args),
        Command::Local(args) => block_on(local::serve(args)),
        Command::Models(ModelsCommand::List(args)) => models::list(&args),
        Command::Prices(args) => books::prices(&args),
        Command::Providers(args) => books::list_providers(&args),
        Command::Provider(args) => block_on(provider::serve(args)),
        Command::Requests(args) => books::list_requests(&args),
    }
}

/// To standard output. A reader that has gone has read enough; a disk that is full has not.
fn say(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(format!("cannot write to standard output: {error}"))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Threads for tasks: half of the processors. The other half is for the threads beside them (store,
/// journal, engine), and fewer threads wake one another less often, which costs short requests
/// much. `TOKIO_WORKER_THREADS` sets another number.
fn worker_threads() -> usize {
    let told = std::env::var("TOKIO_WORKER_THREADS").ok();
    let told = told.and_then(|text| text.parse().ok());
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    told.unwrap_or_else(|| processors() / 2).max(1)
}

fn block_on(work: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(worker_threads())
        .enable_all()
        .build()
        .map_err(|error| format!("the system gives no threads: {error}"))?;
    runtime.block_on(work)
}
