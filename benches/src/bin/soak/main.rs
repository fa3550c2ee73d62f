//! Whether the engine holds out: minutes of more load than its grant of memory can hold, on the real
//! backend, and then a verdict.
//!
//! Clients in a closed loop ask for prompts of all lengths, take some back, ask now and then for what
//! can never fit, and at times all at once, while the grant shrinks and grows. Ends with an exit
//! status of 1 when a claim does not hold. Run by `cargo xtask bench soak`, which makes the model.

mod drive;
mod load;
mod resident;
mod tenants;
mod verdict;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use cereus_benches::words::Words;
use cereus_core::draw::Seed;
use cereus_engine::model::Config;
use cereus_engine::runtime::{Engine, EngineConfig, Event, MlxBackend};
use cereus_engine::scheduler::Admission;
use clap::Parser;

use crate::drive::Soak;
use crate::load::{LONGEST_TOKENS, Load};
use crate::resident::{Reading, Watch};

const ROWS_MAX: u16 = 16;
const WAITING_MAX: u16 = 16;
/// Of the longest requests, so many fit into the grant together: a quarter of the rows.
const LONGEST_THAT_FIT: u64 = 4;
/// The models of `benches/mlx_lm/make.py` are in float32.
const ELEMENT_BYTES: u64 = 4;

#[derive(Parser)]
#[command(about = "Minutes of more load than the engine's memory can hold, and a verdict")]
struct Cli {
    /// A folder made by `benches/mlx_lm/make.py`
    model: PathBuf,
    #[arg(long, default_value_t = 20.0)]
    minutes: f64,
    /// What is asked follows from it; when, from the machine as well
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Leave the C library's allocator as it is, which keeps some of what was freed
    #[arg(long)]
    keep_spare: bool,
    /// Measure instead, in so many rounds, whether a tenant's times tell what another asked
    #[arg(long, value_name = "ROUNDS", num_args = 0..=1, default_missing_value = "300")]
    tenants: Option<u32>,
    /// Write what was found into this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

type Outcome<T> = Result<T, String>;

fn main() -> ExitCode {
    match soak(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("soak: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Says whether every claim holds.
fn soak(cli: &Cli) -> Outcome<bool> {
    if let Some(rounds) = cli.tenants {
        return tenants::tell_apart(&cli.model, rounds, Seed::from_number(cli.seed));
    }
    if !cli.keep_spare {
        resident::with_fixed_thresholds()?;
    }
    let time = Duration::try_from_secs_f64(cli.minutes * 60.0)
        .map_err(|_| "--minutes must be a number that is not negative".to_owned())?;
    let seed = Seed::from_number(cli.seed);
    let grants = Grants::of(&cli.model)?;
    let (engine, heard) = open(cli, grants.full, seed)?;
    let load = Load::new(Words::read(&cli.model)?, seed);
    let mut soak = Soak::new(engine, heard, load, grants, time);
    soak.run()?;
    let found = soak.end()?;
    found.print();
    if let Some(path) = &cli.json {
        let text = format!("{:#}\n", found.json(cli.seed));
        fs::write(path, text).map_err(|why| format!("cannot write {}: {why}", path.display()))?;
    }
    Ok(found.holds())
}

/// An event, and now and then the memory at that moment.
struct Heard {
    event: Event,
    memory: Option<Reading>,
}

/// Memory for keys and values, in bytes.
#[derive(Clone, Copy, Debug)]
struct Grants {
    full: u64,
    /// Of one request that is as long as a soak's longest.
    longest: u64,
}

impl Grants {
    fn of(model: &Path) -> Outcome<Self> {
        let path = model.join("config.json");
        let unreadable = |why: &dyn std::fmt::Display| {
            format!("cannot read {}: {why}; name another folder", path.display())
        };
        let json = fs::read(&path).map_err(|why| unreadable(&why))?;
        let config = Config::from_json(&json).map_err(|why| unreadable(&why))?;
        let layout = config.kv_layout(ELEMENT_BYTES, 0);
        let longest = layout.bytes(LONGEST_TOKENS, LONGEST_TOKENS);
        Ok(Self {
            full: LONGEST_THAT_FIT * longest,
            longest,
        })
    }
}

fn open(cli: &Cli, kv_bytes_max: u64, seed: Seed) -> Outcome<(Engine, Receiver<Heard>)> {
    let config = EngineConfig {
        rows_max: ROWS_MAX,
        waiting_max: WAITING_MAX,
        admission: Admission::OPTIMISTIC,
        ..EngineConfig::reference(kv_bytes_max, seed)
    };
    let (events, heard) = channel();
    let folder = cli.model.clone();
    let mut watch = Watch::new();
    let on_event = move |event| {
        // Nobody listens any more once the soak has failed.
        drop(events.send(Heard {
            memory: watch.look(),
            event,
        }));
    };
    let engine = Engine::start(&config, move || MlxBackend::open(&folder), on_event)
        .map_err(|error| error.to_string())?;
    Ok((engine, heard))
}
