//! `cereus benchmark`.

mod measure;
mod prompts;
mod report;

use std::path::PathBuf;

use cereus_core::draw::Seed;
use cereus_engine::runtime::{EchoBackend, Engine, EngineConfig, Event, StartError};
use indicatif::{ProgressBar, ProgressStyle};

use self::measure::{Bench, Measured, Plan};
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
                let engine = Engine::start(&config, open, on_event).map_err(reason)?;
                // It knows nothing of words: one token each.
                let cut = Box::new(|text: &str| Ok(text.split(' ').map(|_| 1).collect()));
                Ok(Measured { engine, cut })
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
) -> Result<Measured, String> {
    use cereus_engine::runtime::MlxBackend;

    let shown = folder.display().to_string();
    let unloaded = |why: String| format!("cannot load {shown}: {why}");
    let opened = folder.clone();
    let engine = Engine::start(config, move || MlxBackend::open(&opened), on_event)
        .map_err(|error| unloaded(reason(error)))?;
    let cut = cut(&folder).map_err(unloaded)?;
    Ok(Measured { engine, cut })
}

/// The model's own tokenizer, once more: the engine's lives with the engine.
#[cfg(feature = "mlx")]
fn cut(folder: &std::path::Path) -> Result<prompts::Cut, String> {
    use cereus_engine::chat::ChatRequest;
    use cereus_engine::language::Language;
    use cereus_engine::model::Config;
    use serde_json::json;

    let config = std::fs::read(folder.join("config.json")).map_err(|error| error.to_string())?;
    let config = Config::from_json(&config).map_err(|error| error.to_string())?;
    let language = Language::load(folder, &config).map_err(|error| error.to_string())?;
    Ok(Box::new(move |text| {
        let body = json!({ "prompt": text }).to_string();
        let request = ChatRequest::from_json(body.as_bytes());
        let tokens = request.and_then(|request| language.prompt(&request));
        tokens.map_err(|failure| failure.text.into_owned())
    }))
}

#[cfg(not(feature = "mlx"))]
fn start_model(
    _config: &EngineConfig,
    _folder: PathBuf,
    _on_event: impl FnMut(Event) + Send + 'static,
) -> Result<Measured, String> {
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
