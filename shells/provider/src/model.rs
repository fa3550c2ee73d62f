//! The model at work: starts the engine, numbers its rows, and puts its words into the agent's.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use cereus_core::agent::{JobEnd, JobFault};
use cereus_core::api;
use cereus_core::draw::Seed;
use cereus_core::event::Usage;
use cereus_core::ids::WireId;
use cereus_engine::failure::{Failure, Reason};
use cereus_engine::runtime::{
    CapacitySnapshot, Delta, EchoBackend, Engine, EngineConfig, Event, FinishReason, Job,
    StartError,
};
use cereus_engine::scheduler::RowId;
use tokio::sync::mpsc;

use crate::Backend;
use crate::old_weights::{Weights, weigh};
use crate::paced::Paced;
use crate::report::memory_total_bytes;

/// Rows that may wait in the engine for each one that runs.
const WAITING_PER_ROW: u16 = 4;
/// The share of the machine's memory that keys and values may take.
const KV_MEMORY_SHARE: u64 = 4;

/// Why a model is not at work.
#[derive(Debug)]
pub enum ModelError {
    Engine(String),
    /// This build has no tensors.
    NoTensors,
    Weights {
        folder: PathBuf,
        source: std::io::Error,
    },
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(text) => f.write_str(text),
            Self::NoTensors => f.write_str(
                "this build has no engine (feature `mlx`); build it with `cargo xtask demo`, or use \
                 --echo",
            ),
            Self::Weights { folder, source } => write!(
                f,
                "cannot read the model folder {} ({source}); it is in the Hugging Face layout",
                folder.display()
            ),
        }
    }
}

impl std::error::Error for ModelError {}

/// A loaded model with the jobs that it runs.
pub(crate) struct Model {
    engine: Engine,
    pub(crate) weights: Weights,
    rows: HashMap<RowId, WireId>,
    jobs: HashMap<WireId, RowId>,
    next_row: u64,
}

/// What the engine said, in the agent's words.
pub(crate) enum Word {
    Ended(WireId, JobEnd),
    Said(WireId, Delta),
}

impl Model {
    /// Blocks until the model is loaded.
    pub(crate) fn load(
        backend: &Backend,
        rows_max: u16,
        seed: Seed,
        // Unbounded: the engine's thread must not wait, and its jobs bound what it can say.
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<Self, ModelError> {
        let weights = match backend {
            Backend::Echo { .. } => Weights::default(),
            Backend::Model(folder) => weigh(folder).map_err(|source| ModelError::Weights {
                folder: folder.clone(),
                source,
            })?,
        };
        let mut config = EngineConfig::reference(memory_total_bytes() / KV_MEMORY_SHARE, seed);
        config.rows_max = rows_max.max(1);
        config.waiting_max = config.rows_max.saturating_mul(WAITING_PER_ROW);
        let on_event = move |event| {
            // Fails only while the process ends.
            let _ = events.send(event);
        };
        let engine = match backend.clone() {
            Backend::Echo { words, pause } => Engine::start(
                &config,
                move || {
                    Ok::<_, String>(Paced {
                        inner: EchoBackend::new(words),
                        pause,
                    })
                },
                on_event,
            )
            .map_err(engine_error)?,
            Backend::Model(folder) => start_model(&config, folder, on_event)?,
        };
        Ok(Self {
            engine,
            weights,
            rows: HashMap::new(),
            jobs: HashMap::new(),
            next_row: 0,
        })
    }

    /// Hands the job in; how it ended at once, if it did.
    pub(crate) fn start(&mut self, job: WireId, body: Vec<u8>) -> Option<JobEnd> {
        self.next_row += 1;
        let row = RowId(self.next_row);
        match self.engine.submit(Job {
            id: row,
            body,
            scope: None,
        }) {
            Ok(()) => {
                self.rows.insert(row, job);
                self.jobs.insert(job, row);
                None
            }
            Err(failure) => Some(failed(&failure)),
        }
    }

    pub(crate) fn stop(&self, job: WireId) {
        if let Some(row) = self.jobs.get(&job) {
            self.engine.cancel(*row);
        }
    }

    pub(crate) fn capacity(&self) -> CapacitySnapshot {
        self.engine.capacity()
    }

    pub(crate) fn word(&mut self, event: Event) -> Option<Word> {
        match event {
            // The agent has said so when it took the job.
            Event::Accepted { .. } => None,
            Event::Delta { id, delta } => {
                let job = *self.rows.get(&id)?;
                Some(Word::Said(job, delta))
            }
            Event::Finished(finished) => {
                let job = self.forget(finished.id)?;
                let usage = Usage {
                    prompt_tokens: finished.usage.prompt_tokens,
                    completion_tokens: finished.usage.completion_tokens,
                };
                let whole = |finish| JobEnd::Finished {
                    usage,
                    reasoning_tokens: finished.usage.reasoning_tokens,
                    finish,
                };
                Some(Word::Ended(
                    job,
                    match finished.reason {
                        FinishReason::Cancelled => JobEnd::Stopped { usage },
                        FinishReason::Length => whole(api::FinishReason::Length),
                        FinishReason::Stop => whole(api::FinishReason::Stop),
                        FinishReason::ToolCalls => whole(api::FinishReason::ToolCalls),
                    },
                ))
            }
            Event::Failed { id, failure } => {
                tracing::debug!(reason = failure.reason.as_str(), "a job failed");
                Some(Word::Ended(self.forget(id)?, failed(&failure)))
            }
        }
    }

    /// Blocks until the last job is done and the model is freed.
    pub(crate) fn end(self) {
        self.engine.stop();
    }

    fn forget(&mut self, row: RowId) -> Option<WireId> {
        let job = self.rows.remove(&row)?;
        self.jobs.remove(&job);
        Some(job)
    }
}

#[cfg(feature = "mlx")]
fn start_model(
    config: &EngineConfig,
    folder: PathBuf,
    on_event: impl FnMut(Event) + Send + 'static,
) -> Result<Engine, ModelError> {
    use cereus_engine::runtime::MlxBackend;

    Engine::start(config, move || MlxBackend::open(&folder), on_event).map_err(engine_error)
}

#[cfg(not(feature = "mlx"))]
fn start_model(
    _config: &EngineConfig,
    _folder: PathBuf,
    _on_event: impl FnMut(Event) + Send + 'static,
) -> Result<Engine, ModelError> {
    Err(ModelError::NoTensors)
}

fn engine_error<E: fmt::Display>(error: StartError<E>) -> ModelError {
    ModelError::Engine(match error {
        StartError::Backend(error) => error.to_string(),
        StartError::Config(error) => format!("the engine's limits fit no scheduler: {error}"),
        StartError::Died => "the engine's thread ended while loading the model".to_owned(),
        StartError::Thread(error) => format!("the engine's thread cannot start: {error}"),
    })
}

/// The engine's vocabulary in the agent's.
fn failed(failure: &Failure) -> JobEnd {
    match failure.reason {
        Reason::Cancelled => JobEnd::Stopped {
            usage: Usage::default(),
        },
        Reason::ClientError | Reason::RequestExceedsContext => JobEnd::Failed(JobFault::Client),
        Reason::Draining | Reason::QueueFull => JobEnd::Failed(JobFault::QueueFull),
        Reason::JinjaTemplate => JobEnd::Failed(JobFault::Template),
        Reason::ProviderError => JobEnd::Failed(JobFault::Internal),
        Reason::RequestExceedsNodeBudget => JobEnd::Failed(JobFault::Memory),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_of_the_engine_is_a_fault_of_the_wire() {
        for reason in Reason::ALL {
            let end = failed(&Failure::new(reason, "text"));
            match reason.status_code() {
                499 => assert_eq!(
                    end,
                    JobEnd::Stopped {
                        usage: Usage::default()
                    }
                ),
                400 => assert_eq!(end, JobEnd::Failed(JobFault::Client)),
                422 => assert_eq!(end, JobEnd::Failed(JobFault::Template)),
                500 => assert_eq!(end, JobEnd::Failed(JobFault::Internal)),
                // Another machine, or this one later, may do it.
                429 | 503 => assert!(matches!(
                    end,
                    JobEnd::Failed(JobFault::QueueFull | JobFault::Memory)
                )),
                status => panic!("{reason:?} has the unknown status {status}"),
            }
        }
    }
}
