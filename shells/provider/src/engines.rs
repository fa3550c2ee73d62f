//! The models in memory and the jobs on them: numbers their rows, and puts their words into the
//! agent's.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

use cereus_core::agent::{JobEnd, JobFault, OpenedBody};
use cereus_core::api;
use cereus_core::event::{Usage, UsageParts};
use cereus_core::ids::WireId;
use cereus_core::slots::BuildIx;
use cereus_engine::failure::{Failure, Reason};
use cereus_engine::kv::Scope;
use cereus_engine::runtime::{CapacitySnapshot, Delta, Engine, Event, FinishReason, Job};
use cereus_engine::scheduler::RowId;

use crate::load::LoadedModel;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Engines {
    loaded: BTreeMap<BuildIx, Loaded>,
    /// Numbered over all engines, so that a row's number says which job it is.
    rows: HashMap<RowId, WireId>,
    jobs: HashMap<WireId, Running>,
    row_last: u64,
    /// Events taken since the engines were told, by row.
    taken: BTreeMap<RowId, u32>,
}

#[derive(Debug)]
struct Loaded {
    engine: Engine,
    /// How it keeps keys and values, if it has any.
    kv_backend: Option<&'static str>,
    /// When one of its answers began last.
    spoke_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    build: BuildIx,
    row: RowId,
    has_spoken: bool,
}

/// What a job is made of. Prints no body.
pub(crate) struct JobBody {
    /// The chat completion.
    pub(crate) body: OpenedBody,
    /// Whose prompts it may share a cache with.
    pub(crate) scope: Option<Scope>,
}

impl fmt::Debug for JobBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobBody({:?})", self.body)
    }
}

/// What an engine said, in the agent's words.
#[derive(Debug)]
pub(crate) enum JobNews {
    Ended(WireId, JobEnd),
    Said {
        job: WireId,
        delta: Delta,
        first: First,
    },
}

/// Whether these are the first words of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum First {
    No,
    Yes,
}

/// What a loaded model shows of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight {
    pub(crate) capacity: CapacitySnapshot,
    pub(crate) kv_backend: Option<&'static str>,
    pub(crate) since_first_token: Option<Duration>,
}

impl Engines {
    pub(crate) fn put(&mut self, build: BuildIx, loaded: LoadedModel) {
        let loaded = Loaded {
            engine: loaded.engine,
            kv_backend: loaded.kv_backend,
            spoke_at: None,
        };
        let previous = self.loaded.insert(build, loaded);
        assert!(previous.is_none(), "a model is loaded once");
    }

    /// Takes an engine out. What still runs on it is told to stop: nobody hears of it any more.
    pub(crate) fn take(&mut self, build: BuildIx) -> Option<Engine> {
        let Loaded { engine, .. } = self.loaded.remove(&build)?;
        let of_build = self.jobs.values().filter(|job| job.build == build);
        for job in of_build {
            engine.cancel(job.row);
        }
        Some(engine)
    }

    pub(crate) fn take_all(&mut self) -> Vec<Engine> {
        let loaded = std::mem::take(&mut self.loaded);
        loaded.into_values().map(|it| it.engine).collect()
    }

    /// Hands the job in; how it ended at once, if it did.
    pub(crate) fn start(&mut self, job: WireId, build: BuildIx, ask: JobBody) -> Option<JobEnd> {
        let Some(Loaded { engine, .. }) = self.loaded.get(&build) else {
            // The model was unloaded between the decision to hand the job over and this moment.
            return Some(JobEnd::Failed(JobFault::Internal));
        };
        self.row_last += 1;
        let row = RowId(self.row_last);
        let JobBody { body, scope } = ask;
        let body = body.into_bytes();
        let id = row;
        match engine.submit(Job { id, body, scope }) {
            Ok(()) => {
                self.rows.insert(row, job);
                let has_spoken = false;
                let running = Running {
                    build,
                    row,
                    has_spoken,
                };
                self.jobs.insert(job, running);
                None
            }
            Err(failure) => Some(failed(&failure)),
        }
    }

    pub(crate) fn stop(&self, job: WireId) {
        if let Some(running) = self.jobs.get(&job)
            && let Some(loaded) = self.loaded.get(&running.build)
        {
            loaded.engine.cancel(running.row);
        }
    }

    /// Stops it, and hears nothing of it any more.
    pub(crate) fn drop_job(&mut self, job: WireId) {
        self.stop(job);
        if let Some(running) = self.jobs.remove(&job) {
            self.rows.remove(&running.row);
        }
    }

    pub(crate) fn set_grant(&self, build: BuildIx, bytes: u64) {
        if let Some(loaded) = self.loaded.get(&build) {
            loaded.engine.set_grant(bytes);
        }
    }

    pub(crate) fn sight(&self, build: BuildIx) -> Option<Sight> {
        self.loaded.get(&build).map(Loaded::sight)
    }

    /// Of each loaded model.
    pub(crate) fn sights(&self) -> impl Iterator<Item = (BuildIx, Sight)> + '_ {
        let all = self.loaded.iter();
        all.map(|(build, loaded)| (*build, loaded.sight()))
    }

    pub(crate) fn job_news(&mut self, event: Event) -> Option<JobNews> {
        match event {
            // The coordinator was told of the acceptance when the slots decided it, before the job
            // reached the engine.
            Event::Accepted { .. } => None,
            Event::Delta { id, delta } => {
                *self.taken.entry(id).or_default() += 1;
                let job = *self.rows.get(&id)?;
                let first = self.note_speech(job);
                Some(JobNews::Said { job, delta, first })
            }
            Event::Finished(finished) => {
                let job = self.forget(finished.id)?;
                let usage = Usage {
                    prompt_tokens: finished.usage.prompt_tokens,
                    completion_tokens: finished.usage.completion_tokens,
                };
                let whole = |finish| JobEnd::Finished {
                    usage,
                    parts: UsageParts {
                        cached_tokens: finished.usage.cached_tokens,
                        reasoning_tokens: finished.usage.reasoning_tokens,
                    },
                    finish,
                };
                let end = match finished.reason {
                    FinishReason::Cancelled => JobEnd::Stopped { usage },
                    FinishReason::Length => whole(api::FinishReason::Length),
                    FinishReason::Stop => whole(api::FinishReason::Stop),
                    FinishReason::ToolCalls => whole(api::FinishReason::ToolCalls),
                };
                Some(JobNews::Ended(job, end))
            }
            Event::Failed { id, failure } => {
                tracing::debug!(reason = failure.reason.as_str(), "a job failed");
                Some(JobNews::Ended(self.forget(id)?, failed(&failure)))
            }
        }
    }

    /// Tells the engines what was taken of them: rows that paused for their reader go on.
    pub(crate) fn acknowledge(&mut self) {
        for (row, events) in std::mem::take(&mut self.taken) {
            let job = self.rows.get(&row).and_then(|job| self.jobs.get(job));
            if let Some(loaded) = job.and_then(|job| self.loaded.get(&job.build)) {
                loaded.engine.read(row, events);
            }
        }
    }

    fn note_speech(&mut self, job: WireId) -> First {
        let Some(running) = self.jobs.get_mut(&job).filter(|job| !job.has_spoken) else {
            return First::No;
        };
        running.has_spoken = true;
        if let Some(loaded) = self.loaded.get_mut(&running.build) {
            loaded.spoke_at = Some(Instant::now());
        }
        First::Yes
    }

    fn forget(&mut self, row: RowId) -> Option<WireId> {
        let job = self.rows.remove(&row)?;
        self.jobs.remove(&job);
        Some(job)
    }
}

impl Loaded {
    fn sight(&self) -> Sight {
        Sight {
            capacity: self.engine.capacity(),
            kv_backend: self.kv_backend,
            since_first_token: self.spoke_at.map(|at| at.elapsed()),
        }
    }
}

/// The engine's vocabulary in the agent's.
fn failed(failure: &Failure) -> JobEnd {
    match failure.reason {
        Reason::AdmissionTimeout => JobEnd::Failed(JobFault::TurnOverdue),
        Reason::Cancelled => JobEnd::Stopped {
            usage: Usage::default(),
        },
        Reason::ClientError => JobEnd::Failed(JobFault::Client),
        Reason::Draining | Reason::QueueFull => JobEnd::Failed(JobFault::QueueFull),
        Reason::JinjaTemplate => JobEnd::Failed(JobFault::Template),
        Reason::ProviderError | Reason::SafetyDeadline | Reason::Stalled => {
            JobEnd::Failed(JobFault::Internal)
        }
        Reason::RequestExceedsContext => JobEnd::Failed(JobFault::TooLong),
        Reason::RequestExceedsNodeBudget => JobEnd::Failed(JobFault::Memory),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use cereus_core::draw::Seed;
    use cereus_engine::scheduler::flow::Flow;
    use serde_json::json;
    use tokio::sync::mpsc;

    use super::*;
    use crate::load::{LoadOrder, Moved, begin_load};
    use crate::offered::Offered;
    use crate::weights::KnownHashes;
    use crate::{Backend, ModelSource};

    const BUILD: BuildIx = BuildIx(0);

    /// Engines with one echo of many words, and what it says.
    fn echoing() -> (Engines, mpsc::UnboundedReceiver<Event>) {
        let source = ModelSource {
            id: "tiny".to_owned(),
            backend: Backend::Echo {
                words: 100_000,
                pause: Duration::ZERO,
                weights_bytes: 0,
            },
        };
        let nowhere = Path::new("nowhere");
        let offered = Offered::open(source, &KnownHashes::open(nowhere)).unwrap();
        let order = LoadOrder::new(BUILD, &offered, nowhere, 1 << 30, 4, Seed::from_number(1));
        let (words, said) = mpsc::unbounded_channel();
        let (moves, mut moved) = mpsc::unbounded_channel();
        begin_load(order, words, moves);
        let Some(Moved::Loaded { result, .. }) = moved.blocking_recv() else {
            panic!("a load ends");
        };
        let mut engines = Engines::default();
        engines.put(BUILD, result.unwrap());
        (engines, said)
    }

    fn ask(engines: &mut Engines, job: u128, words: u32) {
        let body = json!({"model": "tiny", "temperature": 0, "max_tokens": words,
            "messages": [{"role": "user", "content": "Well?"}]});
        let ask = JobBody {
            body: body.to_string().into_bytes().into(),
            scope: None,
        };
        assert_eq!(engines.start(WireId(job), BUILD, ask), None);
    }

    #[test]
    fn an_answer_that_nobody_takes_pauses_at_the_bound_while_others_go_on() {
        let (mut engines, mut said) = echoing();
        ask(&mut engines, 1, 2_000);
        let mut untaken = Vec::new();
        let is_of_first = |event: &Event| matches!(event, Event::Accepted { id, .. } | Event::Delta { id, .. } if *id == RowId(1));
        for job in 2..32 {
            ask(&mut engines, job, 100);
            loop {
                let event = said.blocking_recv().unwrap();
                if is_of_first(&event) {
                    untaken.push(event);
                    continue;
                }
                let news = engines.job_news(event);
                engines.acknowledge();
                if let Some(JobNews::Ended(ended, end)) = news {
                    assert_eq!(ended, WireId(job));
                    assert!(matches!(end, JobEnd::Finished { .. }), "{end:?}");
                    break;
                }
            }
        }
        // Three thousand steps went by; what the last step said comes on top of the bound.
        let bound = usize::try_from(Flow::UNREAD_MAX).unwrap() + 2;
        assert!(untaken.len() <= bound, "{} events wait", untaken.len());
        let mut words = 0;
        let mut events = untaken.into_iter();
        loop {
            let event = events.next().or_else(|| said.blocking_recv()).unwrap();
            match engines.job_news(event) {
                Some(JobNews::Said { .. }) => words += 1,
                Some(JobNews::Ended(_, end)) => {
                    assert!(matches!(end, JobEnd::Finished { .. }), "{end:?}");
                    break;
                }
                None => {}
            }
            engines.acknowledge();
        }
        assert!(words >= 1_900, "the answer came whole: {words}");
    }

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
                400 => assert!(matches!(
                    end,
                    JobEnd::Failed(JobFault::Client | JobFault::TooLong)
                )),
                422 => assert_eq!(end, JobEnd::Failed(JobFault::Template)),
                500 | 504 => assert_eq!(end, JobEnd::Failed(JobFault::Internal)),
                // Another machine, or this one later, may do it.
                429 | 503 => assert!(matches!(
                    end,
                    JobEnd::Failed(JobFault::QueueFull | JobFault::Memory | JobFault::TurnOverdue)
                )),
                status => panic!("{reason:?} has the unknown status {status}"),
            }
        }
    }
}
