//! `cereus provider`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cereus_coordinator::hint::word;
use cereus_core::memory::MemoryCap;
use cereus_core::schedule::{Schedule, WINDOWS_MAX};
use cereus_engine::model::ModelPlace;
use cereus_provider::memory::{MemoryProbe as _, SystemMemory, policy};
use cereus_provider::weights::{FoundModel, scan};
use cereus_provider::{
    Backend, Earner, Hours, MemorySettings, ModelSource, Preload, Progress, Settings, SystemClock,
    hours_text, serve as run,
};
use tokio::sync::watch;

use crate::Outcome;
use crate::cli::ProviderArgs;
use crate::models::{check_root, misfit};
use crate::signal::asked_to_stop;

pub(crate) async fn serve(args: ProviderArgs) -> Outcome {
    let settings = settings(args)?;
    let (ask, asked) = watch::channel(false);
    tokio::spawn(async move {
        asked_to_stop().await;
        ask.send_replace(true);
        asked_to_stop().await;
        // A second Ctrl-C means that its sender does not want to wait for the jobs that still run.
        std::process::exit(1);
    });
    let key = settings.earn_key.as_ref();
    let from = key.map_or_else(String::new, |key| key.from.clone());
    run(settings, asked, move |progress| say(progress, &from))
        .await
        .map_err(|error| error.to_string())
}

/// The demo and the tests read these lines. A reader that has gone is no reason to end. `key` is
/// where the earning key was given.
fn say(progress: Progress, key: &str) {
    let line = match progress {
        Progress::Challenged => "challenged".to_owned(),
        Progress::Contested => {
            "contested: another provider uses this machine's identity".to_owned()
        }
        Progress::LostAtWork => {
            "limited: the connection ended at work again and again, most likely for \
            want of memory"
                .to_owned()
        }
        Progress::Earning(Earner::Account) => format!("earning for the account of {key}"),
        Progress::Earning(Earner::KeyUnknown) => {
            format!("not taken: the coordinator does not know the key of {key}; trying again")
        }
        Progress::Earning(Earner::Nobody) => "earning for no account: no --earn-key".to_owned(),
        Progress::Fenced { model, why } => format!("fenced {model}: {why}"),
        Progress::Joined => "joined".to_owned(),
        Progress::Loaded(model) => format!("loaded {model}"),
        Progress::NothingSold => {
            "idle: the coordinator sells none of this machine's models".to_owned()
        }
        Progress::Machine(machine) => format!("machine {machine}"),
        Progress::Resting(None) => "resting".to_owned(),
        Progress::Resting(Some(wait)) => format!("resting for {}", hours_text(wait)),
        Progress::Unloaded(model) => format!("unloaded {model}"),
    };
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn settings(args: ProviderArgs) -> Result<Settings, String> {
    let earn_key = args.earning_key()?;
    let policy = policy(args.memory_reserve_gb);
    let probe = SystemMemory::default();
    let cap = MemoryCap::new(probe.read().physical_bytes, policy);
    let models = sources(&args, &cap)?;
    if args.windows.len() > WINDOWS_MAX {
        return Err(format!(
            "--schedule may be given {WINDOWS_MAX} times at most"
        ));
    }
    let schedule = Schedule::new(args.windows);
    if !schedule.is_always() && !SystemClock.knows_its_zone() {
        tracing::warn!("the time zone is unknown: the schedule is read as UTC; TZ names another");
    }
    Ok(Settings {
        coordinator: args.coordinator,
        authorities: args.authorities,
        data: args.data,
        models,
        earn_key,
        rows_max: args.concurrency,
        drain_wait_max: Duration::from_secs(args.drain_wait),
        hours: Hours::new(schedule),
        memory: MemorySettings {
            policy,
            probe: Box::new(probe),
            slots_max: args.slots,
            idle_wait: Duration::from_secs(args.idle_timeout.saturating_mul(60)),
        },
        preload: if args.on_demand {
            Preload::OnDemand
        } else {
            Preload::Fitting
        },
    })
}

fn sources(args: &ProviderArgs, cap: &MemoryCap) -> Result<Vec<ModelSource>, String> {
    if args.echo.is_on {
        return echoes(args);
    }
    let ids = &args.model_ids;
    if ids.len() > 1 || (ids.len() == 1 && args.models.len() != 1) {
        return Err(
            "--model-id names the one --model; of several, each is --model ID=FOLDER".into(),
        );
    }
    let mut sources = Vec::new();
    for served in &args.models {
        let place = find_place(&served.folder)?;
        let named = served.id.clone().or_else(|| ids.first().cloned());
        let id = named.or(place.name).ok_or_else(|| {
            let folder = served.folder.display();
            format!("{folder} has no name; give it one, as in --model ID={folder}")
        })?;
        let backend = Backend::Model(place.folder);
        sources.push(ModelSource { id, backend });
    }
    for root in &args.roots {
        check_root(root)?;
        let count = sources.len();
        let found = scan(root).into_iter().filter(|it| is_servable(cap, it));
        sources.extend(found.map(|model| ModelSource {
            id: model.id,
            backend: Backend::Model(model.folder),
        }));
        if sources.len() == count {
            let root = root.display();
            return Err(format!(
                "{root} holds no model that can be served here; `cereus models list --all {}` shows \
                 why",
                word(&root.to_string())
            ));
        }
    }
    Ok(sources)
}

/// One that is fenced off is told to the coordinator as such.
fn is_servable(cap: &MemoryCap, model: &FoundModel) -> bool {
    let hindrance = model.unsupported.clone().or_else(|| misfit(cap, model));
    if let Some(why) = &hindrance {
        tracing::info!(model = %model.id, why, "not served");
    }
    hindrance.is_none()
}

fn echoes(args: &ProviderArgs) -> Result<Vec<ModelSource>, String> {
    let mut ids = args.model_ids.clone();
    if ids.is_empty() {
        ids.extend(args.models.iter().filter_map(|it| folder_name(&it.folder)));
    }
    if ids.is_empty() {
        return Err("which model is it? --model-id names it as the coordinator sells it".into());
    }
    let backend = Backend::Echo {
        words: args.echo.pieces,
        pause: Duration::from_millis(args.echo.pause_ms),
        weights_bytes: 0,
    };
    let source = |id| ModelSource {
        id,
        backend: backend.clone(),
    };
    Ok(ids.into_iter().map(source).collect())
}

/// Where a model's files lie, and its name: the repository's for a folder of the hub's cache.
pub(crate) fn model_place(folder: &Path) -> Result<(String, PathBuf), String> {
    let place = find_place(folder)?;
    let name = place
        .name
        .ok_or("the folder has no name; --model-id gives the model one")?;
    Ok((name, place.folder))
}

fn find_place(folder: &Path) -> Result<ModelPlace, String> {
    let place = ModelPlace::find(folder);
    place.map_err(|error| format!("cannot load {}: {error}", folder.display()))
}

/// The last part of its path.
fn folder_name(folder: &Path) -> Option<String> {
    // `.` and `..` have a name only once they are resolved.
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    Some(folder.file_name()?.to_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn served(models: &[&str]) -> Result<Vec<ModelSource>, String> {
        let options = models.iter().flat_map(|model| ["--model", model]);
        let Command::Provider(args) =
            Cli::parse_from(["cereus", "provider"].into_iter().chain(options)).command
        else {
            unreachable!("it was asked for");
        };
        let cap = MemoryCap::new(16 << 30, policy(None));
        sources(&args, &cap)
    }

    #[test]
    fn a_folder_of_the_hubs_cache_is_served_under_its_repositorys_name() {
        let root = tempfile::tempdir().unwrap();
        let repository = root.path().join("models--acme--small");
        std::fs::create_dir_all(repository.join("snapshots/0a")).unwrap();
        let named = repository.to_str().unwrap();
        let snapshot = repository.join("snapshots/0a");
        let other = format!("other={named}");
        let found = served(&[named, snapshot.to_str().unwrap(), &other]).unwrap();
        let ids: Vec<&str> = found.iter().map(|source| source.id.as_str()).collect();
        assert_eq!(ids, ["acme/small", "acme/small", "other"]);
        for source in found {
            let Backend::Model(folder) = source.backend else {
                panic!("a model's folder");
            };
            assert_eq!(
                folder.canonicalize().unwrap(),
                snapshot.canonicalize().unwrap()
            );
        }
        let nothing = served(&["/no/such/folder"]).unwrap_err();
        assert!(nothing.contains("/no/such/folder"), "{nothing}");
    }
}
