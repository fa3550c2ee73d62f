//! `cereus benchmark`.

mod measure;
mod prompts;
mod report;

use std::path::PathBuf;

use cereus_core::draw::Seed;
use cereus_engine::runtime::{EchoBackend, Engine, EngineConfig, Event, StartError};
use indicatif::{ProgressBar, ProgressStyle};

use self::measure::{Bench, Plan};
use self::report::Report;
use crate::cli::BenchmarkArgs;
use crate::local::kv_bytes_max;
use crate::paint::Paint;
use crate::provider::model_place;
use crate::{Outcome, say};

pub(crate) fn benchmark(args: BenchmarkArgs) -> Outcome {
    let is_for_scripts = args.json;
    let report = run(args)?;
    say(&if is_for_scripts {
        format!("{:#}\n", report.as_json())
    } else {
        report.as_text(Paint::for_stdout())
    })?;
    if report.cells.is_empty() {
        return Err("nothing could be measured; the reasons stand above".to_owned());
    }
    Ok(())
}

fn run(args: BenchmarkArgs) -> Result<Report, String> {
    let plan = Plan {
        prompt_tokens: args.prompt,
        new_tokens: args.new,
        iterations: args.iterations,
    };
    let mut rows = args.rows;
    rows.sort_unstable();
    rows.dedup();
    let kv_bytes_max = kv_bytes_max(args.kv_gb)?;
    let mut config = EngineConfig::reference(kv_bytes_max, Seed::from_number(0));
    config.rows_max = rows.last().copied().unwrap_or(1);
    config.waiting_max = config.rows_max;
    let progress = ProgressBar::new_spinner();
    progress.set_style(ProgressStyle::with_template("{spinner} {msg}").expect("a valid template"));
    progress.enable_steady_tick(std::time::Duration::from_millis(100));
    progress.set_message("loading the model");
    let (model, mut bench) = match args.folder {
        Some(folder) if !args.echo => {
            let (name, folder) = model_place(&folder)?;
            (
                name,
                Bench::start(|on_event| start_model(&config, folder, on_event))?,
            )
        }
        Some(_) | None => (
            "echo".to_owned(),
            Bench::start(|on_event| {
                let open = || Ok::<_, String>(EchoBackend::new(0));
                Engine::start(&config, open, on_event).map_err(reason)
            })?,
        ),
    };
    let mut report = Report::new(model, plan);
    for rows in rows {
        progress.set_message(format!("{rows} rows together"));
        report.add(rows, bench.cell(plan, rows));
    }
    progress.finish_and_clear();
    report.engine = Some(bench.capacity());
    Ok(report)
}

#[cfg(feature = "mlx")]
fn start_model(
    config: &EngineConfig,
    folder: PathBuf,
    on_event: impl FnMut(Event) + Send + 'static,
) -> Result<Engine, String> {
    use cereus_engine::runtime::MlxBackend;

    let shown = folder.display().to_string();
    Engine::start(config, move || MlxBackend::open(&folder), on_event)
        .map_err(|error| format!("cannot load {shown}: {}", reason(error)))
}

#[cfg(not(feature = "mlx"))]
fn start_model(
    _config: &EngineConfig,
    _folder: PathBuf,
    _on_event: impl FnMut(Event) + Send + 'static,
) -> Result<Engine, String> {
    Err(
        "this build has no engine (feature `mlx`); build it with `cargo build -p cereus`"
            .to_owned(),
    )
}

fn reason<E: std::fmt::Display>(error: StartError<E>) -> String {
    match error {
        StartError::Backend(error) => error.to_string(),
        StartError::Config(error) => format!("the engine's limits fit no scheduler: {error}"),
        StartError::Disk(error) => format!("prompts cannot be kept on disk: {error}"),
        StartError::Died => "the engine's thread ended while loading the model".to_owned(),
        StartError::Thread(error) => format!("the engine's thread cannot start: {error}"),
    }
}
