//! `cereus benchmark`, `cereus doctor`, `cereus models`: what this machine can do.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::values::{parse_gib, parse_some_gib};

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
    /// Tokens of each prompt
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
