//! `cereus coordinator`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use cereus_coordinator::settings::parse_model;
use cereus_core::config::ModelSpec;
use clap::Args;

use super::LISTEN_DEFAULT;
use crate::listen::parse_listen;

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cereus coordinator --data data --model tiny:50000:200000:2048\n  \
    cereus coordinator --data data --model-catalog models.json --listen 0.0.0.0:8080 --metrics-listen 9090\n\n\
    A catalogue file:\n  \
    {\"models\": [{\"id\": \"tiny\", \"input_micro_usd_per_mtok\": 50000,\n   \
    \"output_micro_usd_per_mtok\": 200000, \"context_tokens\": 2048,\n   \
    \"output_tokens_default\": 512}]}\n\n\
    context_tokens is what prompt and answer may have together: 8192 where nobody says. A machine whose\n\
    own model holds less refuses longer prompts; name no more than the machines can hold.\n\n\
    output_tokens_default is the most tokens that an answer may have where its request names no\n\
    max_tokens: 512 where the catalogue does not say, and at most half of the context.\n\n\
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
    /// A model to sell: ID:INPUT:OUTPUT, then perhaps :CONTEXT (8192 tokens if not given); micro-USD for a million tokens; may be repeated
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
    #[arg(long, default_value_t = 4_096, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) connections: u32,
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
