//! Between the agent and the process: sockets and frames become its events, its effects are
//! carried out.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cereus_core::agent::{AgentEffect, AgentEvent, JobEnd, Notice, OpenedBody, SessionId};
use cereus_core::event::Usage;
use cereus_core::ids::WireId;
use cereus_core::slots::{BuildIx, Eviction, JobId, Refusal, SlotsEvent};
use cereus_engine::kv::Scope;
use cereus_engine::runtime::Event;
use cereus_socket::Heard;
use secrecy::ExposeSecret as _;

use super::{FRAMES_MAX, Run, unix_now_s};
use crate::dial::{Socket, why_failed};
use crate::engines::{First, JobBody, JobNews};
use crate::report::{State, heartbeat, register_frame};
use crate::{Earner, Progress};

/// How long the goodbye may take at the very end.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

impl Run {
    pub(super) fn dialled(&mut self, session: SessionId, dialled: io::Result<Socket>) {
        match dialled {
            Ok(socket) => {
                self.socket = Some((session, socket));
                let register = register_frame(
                    &self.key,
                    &self.host,
                    self.agent.key_text(),
                    &self.offered,
                    self.settings.memory.probe.read(),
                    self.settings
                        .earn_key
                        .as_ref()
                        .map_or("", |key| key.secret.expose_secret()),
                    unix_now_s(),
                );
                self.step(AgentEvent::Connected {
                    session,
                    register: &register,
                });
            }
            Err(error) => {
                let address = self.route.address();
                let why = why_failed(&error);
                tracing::warn!(%address, why, "cannot reach the coordinator yet; trying again");
                self.step(AgentEvent::DialFailed { session });
            }
        }
    }

    /// What came of the one socket, and what has come with it.
    pub(super) fn heard_all(&mut self, first: Heard) {
        self.heard(first);
        for _ in 1..FRAMES_MAX {
            let socket = self.socket.as_mut();
            let Some(next) = socket.and_then(|(_, socket)| socket.heard_already()) else {
                break;
            };
            self.heard(next);
        }
    }

    fn heard(&mut self, heard: Heard) {
        let Some((session, _)) = self.socket else {
            return;
        };
        match heard {
            Heard::Closed { code: None, .. } | Heard::TooLarge => self.socket_closed(),
            Heard::Closed {
                code: Some(code),
                reason,
            } => {
                // The words are the coordinator's; a terminal must not obey them.
                tracing::info!(code, reason = %reason.escape_debug(), "the coordinator says goodbye");
                let reason = reason.as_str();
                self.step(AgentEvent::CloseReceived {
                    session,
                    code,
                    reason,
                });
            }
            Heard::Frame(frame) => self.step(AgentEvent::FrameReceived {
                session,
                frame: &frame,
            }),
            Heard::Pong => self.step(AgentEvent::PongReceived { session }),
            Heard::Written => {}
        }
    }

    pub(super) fn socket_closed(&mut self) {
        if let Some((session, _)) = self.socket.take() {
            tracing::info!("the coordinator's connection ended");
            self.step(AgentEvent::SocketClosed { session });
        }
    }

    pub(super) fn said(&mut self, event: Event) {
        match self.engines.job_news(event) {
            Some(JobNews::Said { job, delta, first }) => {
                if first == First::Yes {
                    let job = JobId(job.0);
                    self.events.push_back(SlotsEvent::JobSpoke { job });
                }
                let piece = delta.as_piece();
                self.step(AgentEvent::JobSaid { job, piece });
            }
            Some(JobNews::Ended(job, end)) => self.ended(job, end),
            None => {}
        }
    }

    pub(super) fn ended(&mut self, job: WireId, end: JobEnd) {
        self.events
            .push_back(SlotsEvent::JobEnded { job: JobId(job.0) });
        self.step(AgentEvent::JobEnded { job, end });
    }

    pub(super) fn report(&mut self) {
        let ids = Arc::clone(&self.ids);
        let state = State {
            host: &self.host,
            slots: &self.slots,
            engines: &self.engines,
            measured: self.measured,
        };
        let heartbeat = Box::new(heartbeat(self.now(), &ids, &state));
        self.step(AgentEvent::Measured { heartbeat });
    }

    /// One event, and all that follows from it in order. What carrying out gives rise to is a step of
    /// its own, whose effects come after those that wait already.
    pub(super) fn step(&mut self, event: AgentEvent<'_>) {
        let now = self.now();
        self.agent.step(now, event, &mut self.out);
        self.effects.extend(self.out.list.drain(..));
        if self.is_carrying_out {
            return;
        }
        self.is_carrying_out = true;
        while let Some(effect) = self.effects.pop_front() {
            self.carry_out(effect);
        }
        self.is_carrying_out = false;
    }

    fn carry_out(&mut self, effect: AgentEffect) {
        match effect {
            AgentEffect::Abandon { session } => self.abandon(session),
            AgentEffect::Close {
                session,
                code,
                reason,
            } => {
                if let Some((_, mut socket)) = self.socket.take_if(|(id, _)| *id == session) {
                    socket.close(code, reason);
                    let goodbye = async {
                        let _ = tokio::time::timeout(CLOSE_WAIT, socket.end()).await;
                    };
                    self.leaving = Some(tokio::spawn(goodbye));
                }
            }
            AgentEffect::Dial { session } => {
                let dialling = self.route.dial(session, self.tell.dialled.clone());
                self.dialling = Some((session, dialling));
            }
            AgentEffect::LoadModel { build } => self.order(&build),
            AgentEffect::Measure => self.report(),
            AgentEffect::Notice(notice) => self.noticed(notice),
            AgentEffect::Ping { session } => {
                if let Some(socket) = self.socket_of(session) {
                    socket.ping();
                }
            }
            AgentEffect::ReadLocalTime => {
                let local = self.settings.hours.clock.read();
                self.step(AgentEvent::LocalTimeRead { local });
            }
            AgentEffect::Rest => self.rest(),
            AgentEffect::Rise => self.rise(),
            AgentEffect::Send { session, frame } => {
                if let Some(socket) = self.socket_of(session) {
                    socket.write(frame);
                }
            }
            AgentEffect::Sign { challenge, status } => {
                let signature = self.key.sign(&challenge);
                let status_signature = self.key.sign(status.as_bytes());
                let signed = AgentEvent::Signed {
                    signature: &signature,
                    status_signature: &status_signature,
                };
                self.step(signed);
                self.steps.push(Progress::Challenged);
            }
            AgentEffect::StartJob {
                job,
                build,
                body,
                scope,
            } => self.ask(job, build, body, &scope),
            AgentEffect::StopJob { job } => self.stop_job(job),
            AgentEffect::Stopped => self.is_stopped = true,
        }
    }

    fn socket_of(&mut self, session: SessionId) -> Option<&mut Socket> {
        let (_, socket) = self.socket.as_mut().filter(|(id, _)| *id == session)?;
        Some(socket)
    }

    fn ask(&mut self, job: WireId, build: BuildIx, body: OpenedBody, scope: &str) {
        let job = JobId(job.0);
        let scope = Scope::new(scope.as_bytes());
        self.bodies.insert(job, JobBody { body, scope });
        self.events.push_back(SlotsEvent::Asked { job, build });
    }

    /// The coordinator wants a model in memory.
    fn order(&mut self, id: &str) {
        let at = self.offered.iter().position(|one| one.id() == id);
        let Some(build) = at.and_then(|at| u16::try_from(at).ok()).map(BuildIx) else {
            let why = Refusal::Unknown;
            self.step(AgentEvent::ModelLoadFailed { build: id, why });
            return;
        };
        self.ordered.insert(build);
        let eviction = Eviction::Allowed;
        self.events
            .push_back(SlotsEvent::LoadAsked { build, eviction });
    }

    fn stop_job(&mut self, job: WireId) {
        if self.bodies.remove(&JobId(job.0)).is_some() {
            // The job still waited for its model and never reached an engine, so it has used
            // nothing.
            let usage = Usage::default();
            self.ended(job, JobEnd::Stopped { usage });
        } else {
            self.engines.stop(job);
        }
    }

    fn abandon(&mut self, session: SessionId) {
        self.socket.take_if(|(id, _)| *id == session);
        if let Some((_, dialling)) = self.dialling.take_if(|(id, _)| *id == session) {
            dialling.abort();
        }
    }

    fn noticed(&mut self, notice: Notice) {
        match notice {
            Notice::Joined => {
                tracing::info!("joined the coordinator");
                self.steps.push(Progress::Joined);
                if self.settings.earn_key.is_none() {
                    tracing::warn!(
                        "no earning key (--earn-key): what this machine earns is written down \
                         for no account until its owner claims it (`cereus earnings prove`); \
                         earnings are a record, which nothing pays out"
                    );
                    self.steps.push(Progress::Earning(Earner::Nobody));
                }
            }
            Notice::Linked => {
                tracing::info!("what this machine earns goes to the account of its earning key");
                self.steps.push(Progress::Earning(Earner::Account));
            }
            Notice::NothingSold => {
                let models = self.ids.join(", ");
                tracing::warn!(
                    models,
                    "the coordinator sells none of these models, so this machine gets no work: GET \
                     /v1/models at the coordinator lists what it sells, and --model ID=FOLDER gives a \
                     model the name that it is sold by"
                );
                self.steps.push(Progress::NothingSold);
            }
            Notice::Contested => {
                tracing::error!(
                    "another provider uses this machine's identity, so one of the two is sent away; stop \
                     one, or give each its own folder with --data"
                );
                self.steps.push(Progress::Contested);
            }
            Notice::LostAtWork => {
                tracing::warn!(
                    "the connection ended while this machine worked, again and again, so it gets one \
                     request at a time for a while; most likely the system ends the provider for want of \
                     memory: its log says so (`log show --predicate 'eventMessage contains \"jetsam\"'`, or \
                     `dmesg` for \"oom-kill\"); serve fewer or smaller models, or keep more memory free with \
                     --memory-reserve-gb"
                );
                self.steps.push(Progress::LostAtWork);
            }
            Notice::EarnKeyUnknown => {
                let key = self.settings.earn_key.as_ref();
                let from = key.map_or("none", |key| key.from.as_str());
                tracing::warn!(
                    "the coordinator does not know the earning key ({from}): asking again; \
                     `cereus key create` at the coordinator makes one"
                );
                self.steps.push(Progress::Earning(Earner::KeyUnknown));
            }
            Notice::HoursEnded => {
                tracing::info!("the hours are over: running jobs finish, nothing more is taken");
            }
            Notice::CoordinatorDeploys => tracing::info!("the coordinator restarts"),
            Notice::SentAway => tracing::info!("the coordinator sent this machine away"),
            Notice::Suspended => tracing::info!("this machine slept"),
            Notice::BadFrame
            | Notice::RuntimeMismatch
            | Notice::Unreachable
            | Notice::Untrusted => {
                tracing::warn!(?notice, "the coordinator and this machine do not get on");
            }
        }
    }
}
