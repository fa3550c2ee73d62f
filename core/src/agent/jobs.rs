//! The work that was taken, and the bounded memory of what was not.

use std::collections::BTreeMap;

use super::memory::Recent;
use super::opening::Opener;
use super::reply::{Sealer, WireRefusal, send_accepted, send_complete, send_error};
use super::{
    AgentConfig, AgentCounts, AgentEffect, AgentOut, EARLY_CANCELS_MAX, ENDED_JOBS_MAX, JobEnd,
    OpenedBody, SessionId,
};
use crate::api::{self, Api, Piece, Request, Writer};
use crate::envelope::{BoxKey, OVERHEAD_SIZE, ScopeKey};
use crate::event::{Usage, UsageParts};
use crate::ids::{RequestId, WireId};
use crate::slots::BuildIx;
use crate::wire::messages::{InferenceRequest, Stats};

#[derive(Clone, Debug)]
struct Job {
    session: SessionId,
    key: BoxKey,
    writer: Writer,
    stage: Stage,
    /// Pieces of content that were sent.
    pieces: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// The coordinator cancelled it: one terminal is owed.
    Cancelled,
    /// Nobody waits for it any more; the engine has not confirmed its end.
    Orphaned,
    Running,
}

/// A request that may run.
struct Admitted {
    build: BuildIx,
    key: BoxKey,
    writer: Writer,
    body: OpenedBody,
}

/// Everything between `inference_request` and its terminal.
#[derive(Clone, Debug)]
pub(super) struct Jobs {
    running: BTreeMap<WireId, Job>,
    /// Cancels that overtook their requests.
    early_cancels: Recent<EARLY_CANCELS_MAX>,
    ended: Recent<ENDED_JOBS_MAX>,
    sealer: Sealer,
    opener: Opener,
    pub(super) stats: Stats,
}

impl Jobs {
    pub(super) fn new(sealer: Sealer) -> Self {
        Self {
            running: BTreeMap::new(),
            early_cancels: Recent::default(),
            ended: Recent::default(),
            sealer,
            opener: Opener::default(),
            stats: Stats::default(),
        }
    }

    pub(super) fn key_text(&self) -> &str {
        self.sealer.key_text()
    }

    /// Jobs that somebody waits for.
    pub(super) fn live_count(&self) -> usize {
        let live = |job: &&Job| job.stage != Stage::Orphaned;
        self.running.values().filter(live).count()
    }

    pub(super) fn hash(&self, state: &mut impl core::hash::Hasher) {
        use core::hash::Hash;
        for (id, job) in &self.running {
            (id, job.session, job.stage, job.pieces).hash(state);
        }
        self.early_cancels.hash(state);
        self.ended.hash(state);
        self.sealer.sealed().hash(state);
        (self.stats.requests_served, self.stats.tokens_generated).hash(state);
    }

    /// Hands the request in or refuses it, unless it is a repeat.
    pub(super) fn on_request(
        &mut self,
        session: SessionId,
        request: &InferenceRequest<'_>,
        config: &AgentConfig,
        is_leaving: bool,
        counts: &mut AgentCounts,
        out: &mut AgentOut,
    ) {
        let Some(id) = exact_id(&request.request_id) else {
            counts.bad_frames += 1;
            return;
        };
        if self.running.contains_key(&id) || self.ended.has(id) {
            counts.duplicate_requests += 1;
            return;
        }
        match self.admitted(id, request, config, is_leaving) {
            Ok(Admitted {
                build,
                key,
                writer,
                body,
            }) => {
                let job = Job {
                    session,
                    key,
                    writer,
                    stage: Stage::Running,
                    pieces: 0,
                };
                self.running.insert(id, job);
                counts.jobs_started += 1;
                let scope = request.cache_scope.as_deref().unwrap_or_default();
                out.push(AgentEffect::StartJob {
                    job: id,
                    build,
                    body,
                    scope: scope.to_owned(),
                });
            }
            Err(refusal) => {
                counts.jobs_refused += 1;
                self.ended.put(id);
                send_error(id, session, &refusal, out);
            }
        }
    }

    fn admitted(
        &mut self,
        id: WireId,
        request: &InferenceRequest<'_>,
        config: &AgentConfig,
        is_leaving: bool,
    ) -> Result<Admitted, WireRefusal> {
        if self.early_cancels.remove(id) {
            return Err(WireRefusal::cancelled());
        }
        if is_leaving {
            return Err(WireRefusal::draining());
        }
        // Jobs that the engine has yet to let go of take up room as well.
        if self.running.len() >= usize::from(config.jobs_max.get()) {
            return Err(WireRefusal::new(429, "queue_full", "every slot is taken"));
        }
        let invalid = |text: &str| WireRefusal::new(400, "client_error", text);
        let Some(sealed) = &request.encrypted_body else {
            return Err(invalid("encrypted_body is required"));
        };
        let mut opened = Vec::new();
        let size_max = api::BODY_SIZE_MAX + OVERHEAD_SIZE;
        let (key, plain) = self
            .opener
            .open(&config.secret, sealed, size_max, &mut opened)
            .map_err(|_| invalid("the request could not be opened"))?;
        let scope = request.cache_scope.as_deref().unwrap_or_default();
        if scope.len() > ScopeKey::SCOPE_SIZE_MAX {
            return Err(invalid("cache_scope is too long"));
        }
        let refused = |refusal: api::Refusal| invalid(&refusal.to_string());
        let body = Request::read_any(plain).map_err(refused)?;
        body.one_answer().map_err(refused)?;
        let model = body.named_model().map_err(refused)?;
        let at = config.builds.iter().position(|it| *it == model);
        let Some(build) = at.and_then(|at| u16::try_from(at).ok()).map(BuildIx) else {
            let text = "this model is not served here";
            return Err(WireRefusal::new(404, "model_load", text));
        };
        // Chunks of chat completions, whichever API the consumer asked by.
        let writer = Writer::direct(Api::Chat, RequestId(id.0), 0, model);
        let size = plain.len();
        Ok(Admitted {
            build,
            key,
            writer,
            body: OpenedBody::at_the_end_of(opened, size),
        })
    }

    pub(super) fn on_cancel(
        &mut self,
        session: SessionId,
        id: WireId,
        counts: &mut AgentCounts,
        out: &mut AgentOut,
    ) {
        self.stats.cancellations_received += 1;
        match self.running.get_mut(&id) {
            Some(job) if job.session == session && job.stage == Stage::Running => {
                job.stage = Stage::Cancelled;
                out.push(AgentEffect::StopJob { job: id });
            }
            Some(_) => {}
            None if self.ended.has(id) => {}
            None => {
                counts.early_cancels += 1;
                self.early_cancels.put(id);
            }
        }
    }

    /// Says that it is accepted: from now on the coordinator waits for as long as a load may take.
    pub(super) fn on_taken(&mut self, id: WireId, out: &mut AgentOut) -> bool {
        let Some(job) = self.running.get(&id) else {
            return false;
        };
        if job.stage == Stage::Running {
            send_accepted(id, job.session, out);
        }
        true
    }

    pub(super) fn on_said(&mut self, id: WireId, piece: &Piece<'_>, out: &mut AgentOut) -> bool {
        let Some(job) = self.running.get_mut(&id) else {
            return false;
        };
        if job.stage != Stage::Running || piece.is_empty() {
            return true;
        }
        let plain = &mut self.sealer.plain;
        plain.clear();
        job.writer
            .write_piece(0, piece, plain)
            .expect("log-probabilities of our own are well formed");
        job.pieces = job.pieces.saturating_add(1);
        self.sealer.send_chunk(id, job.session, &job.key, out);
        true
    }

    pub(super) fn on_ended(&mut self, id: WireId, end: JobEnd, out: &mut AgentOut) -> bool {
        let Some(mut job) = self.running.remove(&id) else {
            return false;
        };
        self.ended.put(id);
        let stats = &mut self.stats;
        match (job.stage, end) {
            (Stage::Orphaned, _) => {}
            (Stage::Running, JobEnd::Failed(fault)) => {
                if job.pieces > 0 {
                    stats.generation_errors_after_output += 1;
                }
                send_error(id, job.session, &fault.into(), out);
            }
            (
                Stage::Running,
                JobEnd::Finished {
                    usage,
                    parts,
                    finish,
                },
            ) => {
                let plain = &mut self.sealer.plain;
                plain.clear();
                job.writer.write_finish(0, finish, plain);
                self.sealer.send_chunk(id, job.session, &job.key, out);
                let usage = floored(usage, job.pieces, stats);
                stats.requests_served += 1;
                stats.tokens_generated += i64::from(usage.completion_tokens);
                send_complete(id, job.session, usage, parts, out);
            }
            // The engine stopped a job that nobody had told it to stop: a fault of this machine.
            (Stage::Running, JobEnd::Stopped { .. }) => {
                let fault = super::JobFault::Internal;
                send_error(id, job.session, &fault.into(), out);
            }
            (Stage::Cancelled, _) if job.pieces == 0 => {
                stats.cancellations_before_output += 1;
                send_error(id, job.session, &WireRefusal::cancelled(), out);
            }
            (Stage::Cancelled, end) => {
                let usage = match end {
                    JobEnd::Failed(_) => Usage::default(),
                    JobEnd::Finished { usage, .. } | JobEnd::Stopped { usage } => usage,
                };
                let usage = floored(usage, job.pieces, stats);
                stats.cancellations_partial_complete += 1;
                stats.tokens_generated += i64::from(usage.completion_tokens);
                send_complete(id, job.session, usage, UsageParts::default(), out);
            }
        }
        true
    }

    /// The socket is gone, and its jobs with it: the coordinator has sent their requests elsewhere, so
    /// nothing of it is resumed on the next one.
    pub(super) fn orphan_all(&mut self, out: &mut AgentOut) {
        for (id, job) in &mut self.running {
            if job.stage == Stage::Running {
                out.push(AgentEffect::StopJob { job: *id });
            }
            job.stage = Stage::Orphaned;
        }
        self.early_cancels.clear();
        self.opener.forget();
    }

    /// Time is up: what still runs is refused after all.
    pub(super) fn refuse_all(&mut self, refusal: &WireRefusal, out: &mut AgentOut) {
        for (id, job) in &self.running {
            if job.stage != Stage::Orphaned {
                send_error(*id, job.session, refusal, out);
            }
        }
        self.orphan_all(out);
    }
}

/// A completed request with no tokens would bill nothing: what was sent is the least there was.
fn floored(usage: Usage, pieces: u32, stats: &mut Stats) -> Usage {
    if usage.completion_tokens == 0 && pieces > 0 {
        stats.usage_gaps += 1;
        return Usage {
            completion_tokens: pieces,
            ..usage
        };
    }
    usage
}

/// The id, if our spelling of it is the sender's: it is echoed in every answer.
pub(super) fn exact_id(text: &str) -> Option<WireId> {
    let id = WireId::parse(text)?;
    let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    is_lower.then_some(id)
}
