//! `cereus provider`.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use cereus_provider::{Backend, Progress, Settings, serve as run};
use secrecy::SecretString;
use tokio::sync::watch;

use crate::Outcome;
use crate::cli::ProviderArgs;
use crate::signal::asked_to_stop;

pub(crate) async fn serve(args: ProviderArgs) -> Outcome {
    let settings = settings(args)?;
    let (ask, asked) = watch::channel(false);
    tokio::spawn(async move {
        asked_to_stop().await;
        ask.send_replace(true);
        asked_to_stop().await;
        // Asked twice: whoever asks does not want to wait for what runs.
        std::process::exit(1);
    });
    run(settings, asked, say)
        .await
        .map_err(|error| error.to_string())
}

/// The demo and the tests read these lines. A reader that has gone is no reason to end.
fn say(progress: Progress) {
    let line = match progress {
        Progress::Challenged => "challenged".to_owned(),
        Progress::Joined => "joined".to_owned(),
        Progress::Loaded(model) => format!("loaded {model}"),
        Progress::Machine(machine) => format!("machine {machine}"),
    };
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn settings(args: ProviderArgs) -> Result<Settings, String> {
    let named = args
        .model_id
        .or_else(|| args.model.as_deref().and_then(folder_name));
    let model_id =
        named.ok_or("which model is it? --model-id names it as the coordinator sells it")?;
    let backend = match args.model {
        Some(folder) if !args.echo => Backend::Model(folder),
        Some(_) | None => Backend::Echo {
            words: args.echo_pieces,
            pause: Duration::from_millis(args.echo_pause_ms),
        },
    };
    let earn_key = args
        .earn_key
        .or_else(|| std::env::var("CEREUS_EARN_KEY").ok());
    Ok(Settings {
        coordinator: args.coordinator,
        data: args.data,
        backend,
        model_id,
        earn_key: SecretString::from(earn_key.unwrap_or_default()),
        rows_max: args.concurrency,
        drain_wait_max: Duration::from_secs(args.drain_wait),
    })
}

/// The last part of its path.
pub(crate) fn folder_name(folder: &Path) -> Option<String> {
    // `.` and `..` have a name only once they are resolved.
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    Some(folder.file_name()?.to_str()?.to_owned())
}
