//! The model at work, and the way of its events to whoever waits for them.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cereus_core::api::CHOICES_MAX;
use cereus_core::draw::Seed;
use cereus_engine::runtime::{EchoBackend, Engine, EngineConfig, Event, StartError};
use cereus_engine::scheduler::RowId;
use cereus_engine::scheduler::flow::Flow;

use crate::row_events::RowEvents;
use crate::{Backend, LocalError, Settings};

/// Who waits for which row. The engine's thread looks here once for each event.
#[derive(Debug, Default)]
pub(crate) struct EventsByRow(Mutex<HashMap<RowId, Arc<RowEvents>>>);

impl EventsByRow {
    pub(crate) fn insert(&self, id: RowId, events: Arc<RowEvents>) {
        self.lock().insert(id, events);
    }

    pub(crate) fn remove(&self, id: RowId) {
        self.lock().remove(&id);
    }

    /// An event of a row that nobody waits for any more goes nowhere.
    fn hand_on(&self, event: Event) {
        let (id, is_last) = match &event {
            Event::Accepted { id, .. } | Event::Delta { id, .. } => (*id, false),
            Event::Failed { id, .. } => (*id, true),
            Event::Finished(finished) => (finished.id, true),
        };
        let mut events_by_row = self.lock();
        let events = if is_last {
            events_by_row.remove(&id)
        } else {
            events_by_row.get(&id).cloned()
        };
        drop(events_by_row);
        if let Some(events) = events {
            events.push(event);
        }
    }

    /// A panic elsewhere leaves the map whole: each change is one call.
    fn lock(&self) -> MutexGuard<'_, HashMap<RowId, Arc<RowEvents>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A loaded model with the rows that it answers.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) engine: Engine,
    pub(crate) events_by_row: Arc<EventsByRow>,
}

impl Model {
    /// Blocks until the model is loaded.
    pub(crate) fn load(settings: &Settings) -> Result<Self, LocalError> {
        let seed = Seed([random_word(), random_word()]);
        let mut config = EngineConfig::reference(settings.kv_bytes_max, seed);
        config.rows_max = settings.rows_max.max(1);
        // Each request that was let in may ask for several answers (`n`), and each answer is a row.
        let rows_max = settings.places_max().saturating_mul(CHOICES_MAX as usize);
        config.waiting_max = u16::try_from(rows_max).unwrap_or(u16::MAX);
        config.unread_events_max = Some(Flow::UNREAD_MAX);
        config.disk.clone_from(&settings.disk);
        let events_by_row = Arc::new(EventsByRow::default());
        let for_thread = Arc::clone(&events_by_row);
        let on_event = move |event| for_thread.hand_on(event);
        let engine = match settings.backend.clone() {
            Backend::Echo { words, pause } => {
                let open = move || Ok::<_, String>(EchoBackend::new(words).paced(pause));
                Engine::start(&config, open, on_event).map_err(|error| reason("echo".into(), error))
            }
            Backend::Model(folder) => start_model(&config, folder, on_event),
        };
        let engine = engine?;
        if settings.disk.is_some() && !engine.has_disk() {
            tracing::warn!(
                "prompts of this model are kept in memory only: the cache on disk is for models \
                 whose layers all have full attention"
            );
        }
        Ok(Self {
            engine,
            events_by_row,
        })
    }
}

/// Whether there is a model to load, before anything is said of the rest. Reads no weights.
#[cfg(feature = "mlx")]
pub(crate) fn check(backend: &Backend) -> Result<(), LocalError> {
    match backend {
        Backend::Echo { .. } => Ok(()),
        Backend::Model(folder) => {
            let checked = cereus_engine::model::check_files(folder);
            checked.map_err(|error| LocalError::Model {
                folder: folder.clone(),
                reason: error.to_string(),
            })
        }
    }
}

/// Nothing here could judge it, and loading says so.
#[cfg(not(feature = "mlx"))]
#[expect(clippy::unnecessary_wraps, reason = "with the engine it may fail")]
pub(crate) const fn check(_backend: &Backend) -> Result<(), LocalError> {
    Ok(())
}

#[cfg(feature = "mlx")]
fn start_model(
    config: &EngineConfig,
    folder: PathBuf,
    on_event: impl FnMut(Event) + Send + 'static,
) -> Result<Engine, LocalError> {
    use cereus_engine::runtime::MlxBackend;

    if let Some(warning) = template_warning(&folder) {
        tracing::warn!("{warning}");
    }
    let opened = folder.clone();
    Engine::start(config, move || MlxBackend::open(&opened), on_event)
        .map_err(|error| reason(folder, error))
}

/// What is wrong with the folder's chat template, for whoever starts a server on it.
#[cfg(feature = "mlx")]
fn template_warning(folder: &std::path::Path) -> Option<String> {
    use cereus_engine::language::{TemplateCheck, check_template};

    match check_template(folder) {
        TemplateCheck::Absent => Some(
            "the folder has no chat template: /v1/completions is served, and each request to \
             /v1/chat/completions refused; put a chat_template.jinja there to have both"
                .to_owned(),
        ),
        TemplateCheck::Fails(why) => Some(format!(
            "the model's chat template fails its self-check, so some conversations will be \
             refused: {why}"
        )),
        // The load that follows fails by it, and its error says so.
        TemplateCheck::Damaged(_) | TemplateCheck::Renders => None,
    }
}

#[cfg(not(feature = "mlx"))]
fn start_model(
    _config: &EngineConfig,
    _folder: PathBuf,
    _on_event: impl FnMut(Event) + Send + 'static,
) -> Result<Engine, LocalError> {
    Err(LocalError::NoTensors)
}

fn reason<E: fmt::Display>(folder: PathBuf, error: StartError<E>) -> LocalError {
    let reason = match error {
        StartError::Backend(error) => error.to_string(),
        StartError::Config(error) => {
            format!("the engine's limits fit no scheduler: {error} (--kv-gb and --rows set them)")
        }
        StartError::Disk(error) => format!("prompts cannot be kept on disk: {error}"),
        StartError::Died => "the engine's thread ended while loading the model".to_owned(),
        StartError::Thread(error) => format!("the engine's thread cannot start: {error}"),
    };
    LocalError::Model { folder, reason }
}

/// The standard library draws its hash keys from the system's randomness.
pub(crate) fn random_word() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}

#[cfg(all(test, feature = "mlx"))]
mod tests {
    use super::*;

    #[test]
    fn a_template_that_fails_its_self_check_or_is_absent_is_told_at_start() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("chat_template.jinja");
        assert!(
            template_warning(folder.path())
                .unwrap()
                .contains("/v1/completions")
        );
        std::fs::write(&file, "{{ messages[0].nothing.at.all }}").unwrap();
        let warning = template_warning(folder.path()).unwrap();
        assert!(
            warning.contains("on a plain chat") && warning.contains("line 1"),
            "{warning}"
        );
        std::fs::write(&file, "{% for m in messages %}{{ m.content }}{% endfor %}").unwrap();
        assert_eq!(template_warning(folder.path()), None);
        std::fs::write(&file, "{% for m in").unwrap();
        assert_eq!(template_warning(folder.path()), None, "the load says it");
    }
}
