//! How fast the engine answers several prompts at once, through the same runtime that serves them.
//!
//! Prints one JSON object for each number of rows, as `benches/mlx_lm/throughput.py` does for mlx-lm:
//! prefill is over when every row has its first token, and decode is what comes after that. Run by
//! `cargo xtask bench engine`, which makes the models.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use cereus_benches::words::Words;
use cereus_core::draw::Seed;
use cereus_engine::runtime::{Engine, EngineConfig, Event, Job, MlxBackend};
use cereus_engine::scheduler::RowId;
use clap::Parser;

/// Repeats of one measurement: so many, or as many as fit into so long.
const REPEATS_MAX: usize = 5;
const REPEATS_TIME: Duration = Duration::from_secs(10);
const WARM_TOKENS: u32 = 4;
const KV_BYTES: u64 = 2 << 30;

#[derive(Parser)]
#[command(about = "Tokens a second of the engine, for several numbers of rows")]
struct Cli {
    /// A folder made by `benches/mlx_lm/make.py`
    model: PathBuf,
    #[arg(long, value_delimiter = ',', default_value = "1,4,8,16")]
    rows: Vec<u16>,
    #[arg(long, default_value_t = 64)]
    prompt_tokens: u32,
    #[arg(long, default_value_t = 64)]
    tokens: u32,
}

type Outcome<T> = Result<T, String>;

fn main() -> ExitCode {
    match measure_all(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("throughput: {message}");
            ExitCode::FAILURE
        }
    }
}

fn measure_all(cli: &Cli) -> Outcome<()> {
    let mut bench = Bench::open(&cli.model, cli.rows.iter().copied().max().unwrap_or(1))?;
    for &rows in &cli.rows {
        let found = bench.measure(rows, cli.prompt_tokens, cli.tokens)?;
        let Rates { prefill, decode } = found;
        eprintln!("    {rows} rows: prefill {prefill:.0}, decode {decode:.0} tokens a second");
        let line = serde_json::json!({
            "rows": rows,
            "prefill_tokens_per_s": prefill,
            "decode_tokens_per_s": decode,
        });
        println!("{line}");
    }
    Ok(())
}

/// Tokens a second.
struct Rates {
    prefill: f64,
    decode: f64,
}

struct Bench {
    engine: Engine,
    heard: Receiver<(Instant, Event)>,
    words: Words,
    jobs: u64,
}

impl Bench {
    fn open(model: &Path, rows_max: u16) -> Outcome<Self> {
        let config = EngineConfig {
            rows_max,
            ..EngineConfig::reference(KV_BYTES, Seed::from_number(1))
        };
        let (events, heard) = channel();
        let folder = model.to_owned();
        let engine = Engine::start(
            &config,
            move || MlxBackend::open(&folder),
            // Nobody listens any more once the bench has failed.
            move |event| drop(events.send((Instant::now(), event))),
        )
        .map_err(|error| error.to_string())?;
        Ok(Self {
            engine,
            heard,
            words: Words::read(model)?,
            jobs: 0,
        })
    }

    fn measure(&mut self, rows: u16, prompt_tokens: u32, tokens: u32) -> Outcome<Rates> {
        self.run(rows, WARM_TOKENS, WARM_TOKENS)?;
        let began = Instant::now();
        let mut found = vec![self.run(rows, prompt_tokens, tokens)?];
        while found.len() < REPEATS_MAX && began.elapsed() < REPEATS_TIME {
            found.push(self.run(rows, prompt_tokens, tokens)?);
        }
        Ok(Rates {
            prefill: median(found.iter().map(|rates| rates.prefill).collect()),
            decode: median(found.iter().map(|rates| rates.decode).collect()),
        })
    }

    /// All rows at once, from their submission to their ends.
    fn run(&mut self, rows: u16, prompt_tokens: u32, tokens: u32) -> Outcome<Rates> {
        let began = Instant::now();
        for _ in 0..rows {
            // No prompt comes twice: nothing of it can be remembered.
            self.jobs += 1;
            let body = serde_json::json!({
                "prompt": self.words.text(self.jobs, prompt_tokens),
                "temperature": 0,
                "max_tokens": tokens,
            });
            let body = body.to_string().into_bytes();
            let id = RowId(self.jobs);
            let submitted = self.engine.submit(Job {
                id,
                body,
                scope: None,
            });
            submitted.map_err(|failure| failure.to_string())?;
        }
        let mut waiting = usize::from(rows);
        let mut begun = BTreeSet::new();
        let (mut count, mut counted) = (0_u32, 0);
        let (mut all_begun, mut ended) = (began, began);
        while waiting > 0 {
            let heard = self.heard.recv();
            let (at, event) = heard.map_err(|_| "the engine ended early".to_owned())?;
            match event {
                Event::Accepted {
                    prompt_tokens: found,
                    ..
                } if found != prompt_tokens => {
                    return Err(format!("a prompt has {found} tokens, not {prompt_tokens}"));
                }
                Event::Accepted { .. } => {}
                // Each token of these models is a word, and goes out by itself.
                Event::Delta { id, .. } => {
                    count += 1;
                    if begun.insert(id.0) && begun.len() == usize::from(rows) {
                        (all_begun, counted) = (at, count);
                    }
                }
                Event::Finished(finished) if finished.usage.completion_tokens != tokens => {
                    let found = finished.usage.completion_tokens;
                    return Err(format!("an answer has {found} tokens, not {tokens}"));
                }
                Event::Finished(_) => {
                    waiting -= 1;
                    ended = at;
                }
                Event::Failed { failure, .. } => return Err(failure.to_string()),
            }
        }
        let all = u32::from(rows) * tokens;
        if count != all {
            return Err(format!("{all} tokens came in {count} pieces"));
        }
        let prompts = f64::from(u32::from(rows) * prompt_tokens);
        Ok(Rates {
            prefill: prompts / (all_begun - began).as_secs_f64(),
            decode: f64::from(count - counted) / (ended - all_begun).as_secs_f64(),
        })
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
