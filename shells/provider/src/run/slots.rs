//! Between the slots and the process: loads, measurements and ends of jobs become their events,
//! their effects are carried out.

use cereus_core::agent::{AgentEvent, JobEnd, JobFault};
use cereus_core::ids::WireId;
use cereus_core::memory::MemoryFacts;
use cereus_core::slots::{
    BuildIx, EngineSign, JobId, Leave, Measured, Refusal, SlotsEffect, SlotsEvent,
};
use cereus_engine::runtime::{clear_spare_memory, process_memory};

use super::Run;
use super::start::fresh_seed;
use crate::load::{LoadOrder, Moved, NotLoaded, begin_load, begin_unload};
use crate::report::update_frame;
use crate::{Preload, Progress, ProviderError};

impl Run {
    /// Steps the slots through all that happened and all that came of it.
    ///
    /// # Errors
    /// None of the models of the start came into memory.
    pub(super) fn settle(&mut self) -> Result<(), ProviderError> {
        while let Some(event) = self.events.pop_front() {
            let now = self.now();
            let mut out = std::mem::take(&mut self.slots_out);
            self.slots.step(now, event, &mut out);
            for effect in out.drain(..) {
                self.follow(effect)?;
            }
            self.slots_out = out;
        }
        if std::mem::take(&mut self.has_news) {
            self.report();
        }
        if self.is_hopeless() {
            let reasons = std::mem::take(&mut self.preload.reasons);
            return Err(ProviderError::NothingLoaded(reasons));
        }
        Ok(())
    }

    /// Whether the start is over and nothing came of it.
    fn is_hopeless(&self) -> bool {
        let is_any_left = match self.settings.preload {
            Preload::Fitting => self.preload.has_loaded,
            Preload::OnDemand => self.offered.iter().any(|one| one.fault().is_none()),
        } || !self.preload.has_begun;
        self.is_preloaded() && !is_any_left && !self.is_stopped
    }

    pub(super) fn moved(&mut self, moved: Moved) {
        match moved {
            Moved::Loaded { build, result } => {
                self.is_loading = false;
                let fault = match result {
                    Ok(mut loaded) => {
                        let hash = loaded.hash.take();
                        self.engines.put(build, loaded);
                        if let Some(hash) = hash {
                            self.hashed(build, hash);
                        }
                        None
                    }
                    Err(NotLoaded { fault, error }) => {
                        let model = self.id(build);
                        tracing::warn!(model, %error, "a model could not be loaded");
                        if self.preload.due.contains(&build) {
                            self.preload.reasons.push(format!("{model}: {error}"));
                        }
                        Some(fault)
                    }
                };
                self.events
                    .push_back(SlotsEvent::LoadEnded { build, fault });
            }
            Moved::Unloaded { build } => {
                let model = self.id(build);
                tracing::info!(model, "unloaded");
                self.steps.push(Progress::Unloaded(model.to_owned()));
                self.events.push_back(SlotsEvent::Unloaded { build });
            }
        }
    }

    fn hashed(&mut self, build: BuildIx, hash: String) {
        let id = self.id(build).to_owned();
        let event = AgentEvent::ModelHashed {
            build: &id,
            hash: &hash,
        };
        self.step(event);
        let Some(files) = &mut self.offered[usize::from(build.0)].files else {
            return;
        };
        if files.hash.as_ref() != Some(&hash) {
            files.hash = Some(hash);
            let update = update_frame(&self.offered);
            self.step(AgentEvent::ModelsChanged { update: &update });
        }
    }

    fn follow(&mut self, effect: SlotsEffect) -> Result<(), ProviderError> {
        match effect {
            SlotsEffect::Accept { job } => {
                let job = WireId(job.0);
                self.step(AgentEvent::JobTaken { job });
            }
            SlotsEffect::BeginLoad { build, grant_bytes } => self.load(build, grant_bytes)?,
            SlotsEffect::BeginUnload { build, leave } => self.unload(build, leave),
            SlotsEffect::ClearBufferCache => {
                clear_spare_memory();
                self.events.push_back(SlotsEvent::CacheCleared);
            }
            SlotsEffect::Loaded { build } => self.loaded(build),
            SlotsEffect::LoadRefused { build, why } => self.load_refused(build, why),
            SlotsEffect::Measure => self.measure(),
            SlotsEffect::Ready { job, build } => {
                // A job that is not there any more was stopped meanwhile, and its end is on its
                // way.
                if let Some(ask) = self.bodies.remove(&job) {
                    let job = WireId(job.0);
                    if let Some(end) = self.engines.start(job, build, ask) {
                        self.ended(job, end);
                    }
                }
            }
            SlotsEffect::Refuse { job, why } => self.refuse(job, why),
            SlotsEffect::Report => self.has_news = true,
            SlotsEffect::SetGrant { build, bytes } => self.engines.set_grant(build, bytes),
        }
        Ok(())
    }

    fn load(&mut self, build: BuildIx, grant_bytes: u64) -> Result<(), ProviderError> {
        tracing::info!(model = self.id(build), "loading");
        self.is_loading = true;
        let order = LoadOrder::new(
            build,
            &self.offered[usize::from(build.0)],
            &self.settings.data,
            grant_bytes,
            self.settings.rows_max,
            fresh_seed()?,
        );
        begin_load(order, self.tell.words.clone(), self.tell.moves.clone());
        Ok(())
    }

    fn unload(&mut self, build: BuildIx, leave: Leave) {
        let model = self.id(build);
        match leave {
            Leave::Abandoned => tracing::warn!(model, "its engine does not answer: giving it up"),
            Leave::Idle => tracing::info!(model, "unloading"),
        }
        match self.engines.take(build) {
            Some(engine) => begin_unload(build, engine, self.tell.moves.clone()),
            None => self.events.push_back(SlotsEvent::Unloaded { build }),
        }
    }

    fn loaded(&mut self, build: BuildIx) {
        let id = self.id(build).to_owned();
        tracing::info!(model = %id, "loaded");
        if self.preload.due.remove(&build) {
            self.preload.has_loaded = true;
        }
        self.steps.push(Progress::Loaded(id.clone()));
        if self.ordered.remove(&build) {
            self.step(AgentEvent::ModelLoaded { build: &id });
        }
    }

    fn load_refused(&mut self, build: BuildIx, why: Refusal) {
        let id = self.id(build).to_owned();
        tracing::warn!(model = %id, %why, "not loaded");
        if self.preload.due.remove(&build) && !matches!(why, Refusal::Fault(_)) {
            self.preload.reasons.push(format!("{id}: {why}"));
        }
        if self.ordered.remove(&build) {
            let event = AgentEvent::ModelLoadFailed { build: &id, why };
            self.step(event);
        }
    }

    fn refuse(&mut self, job: JobId, why: Refusal) {
        self.bodies.remove(&job);
        let job = WireId(job.0);
        self.engines.drop_job(job);
        let end = JobEnd::Failed(JobFault::NotLoaded(why));
        // Only the agent is told: it was the slots that ended the job.
        self.step(AgentEvent::JobEnded { job, end });
    }

    fn measure(&mut self) {
        let mut reserved_bytes = 0_u64;
        for (build, sight) in self.engines.sights() {
            let capacity = sight.capacity;
            let own = capacity
                .active_token_budget_used
                .saturating_mul(capacity.kv_bytes_per_token);
            reserved_bytes = reserved_bytes.saturating_add(own);
            self.events.push_back(SlotsEvent::Watched {
                build,
                engine: if capacity.has_crashed {
                    EngineSign::Dead
                } else {
                    EngineSign::Alive
                },
                steps: capacity.steps_executed,
            });
        }
        let reading = self.settings.memory.probe.read();
        let used = process_memory();
        self.measured = Measured {
            memory: MemoryFacts {
                available_bytes: reading.available_bytes,
                engine_used_bytes: used.active_bytes.saturating_add(used.cache_bytes),
            },
            reserved_bytes,
            strain: reading.strain,
        };
        self.events.push_back(SlotsEvent::Measured(self.measured));
    }

    fn id(&self, build: BuildIx) -> &str {
        self.offered[usize::from(build.0)].id()
    }
}
