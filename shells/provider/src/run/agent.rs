//! What the agent hears, and what it has done.

use std::sync::Arc;
use std::time::Duration;

use cereus_core::agent::{AgentEffect, AgentEvent, AgentOut, JobEnd, Notice, SessionId};
use cereus_core::event::Usage;
use cereus_core::ids::WireId;
use cereus_core::slots::{BuildIx, Eviction, JobId, Refusal, SlotsEvent};
use cereus_engine::kv::Scope;
use cereus_engine::runtime::Event;
use secrecy::ExposeSecret as _;

use super::{Run, unix_now_s};
use crate::Progress;
use crate::engines::{Ask, First, Word};
use crate::report::{State, heartbeat, register_frame};
use crate::socket::{Heard, Socket, dial};

/// How long the goodbye may take at the very end.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

impl Run {
    pub(super) async fn heard(&mut self, session: SessionId, heard: Heard) {
        match heard {
            Heard::Connected(socket) => {
                self.sockets.insert(session, socket);
                let register = register_frame(
                    &self.key,
                    self.agent.key_text(),
                    &self.offered,
                    self.settings.memory.probe.read(),
                    self.settings.earn_key.expose_secret(),
                    unix_now_s(),
                );
                self.step(AgentEvent::Connected {
                    session,
                    register: &register,
                })
                .await;
            }
            Heard::DialFailed(error) => {
                tracing::info!(%error, "cannot reach the coordinator yet");
                self.step(AgentEvent::DialFailed { session }).await;
            }
            Heard::CloseReceived { code, reason } => {
                let reason = reason.as_str();
                self.step(AgentEvent::CloseReceived {
                    session,
                    code,
                    reason,
                })
                .await;
            }
            Heard::Frame(frame) => {
                self.step(AgentEvent::FrameReceived {
                    session,
                    frame: &frame,
                })
                .await;
            }
            Heard::Pong => self.step(AgentEvent::PongReceived { session }).await,
            Heard::SocketClosed => self.closed(session).await,
        }
    }

    async fn closed(&mut self, session: SessionId) {
        if self.sockets.remove(&session).is_some() {
            tracing::info!("the coordinator's connection ended");
        }
        self.step(AgentEvent::SocketClosed { session }).await;
    }

    pub(super) async fn said(&mut self, event: Event) {
        match self.engines.word(event) {
            Some(Word::Said { job, delta, first }) => {
                if first == First::Yes {
                    let job = JobId(job.0);
                    self.events.push_back(SlotsEvent::JobSpoke { job });
                }
                let mut buffers = std::mem::take(&mut self.said);
                let said = buffers.said(&delta);
                self.step(AgentEvent::JobSaid { job, said }).await;
                self.said = buffers;
            }
            Some(Word::Ended(job, end)) => self.ended(job, end).await,
            None => {}
        }
    }

    pub(super) async fn ended(&mut self, job: WireId, end: JobEnd) {
        self.events
            .push_back(SlotsEvent::JobEnded { job: JobId(job.0) });
        self.step(AgentEvent::JobEnded { job, end }).await;
    }

    pub(super) async fn report(&mut self) {
        let ids = Arc::clone(&self.ids);
        let state = State {
            slots: &self.slots,
            engines: &self.engines,
            measured: self.measured,
        };
        let heartbeat = Box::new(heartbeat(self.now(), &ids, &state));
        self.step(AgentEvent::Measured { heartbeat }).await;
    }

    pub(super) async fn step(&mut self, event: AgentEvent<'_>) {
        let now = self.now();
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        self.agent.step(now, event, &mut out);
        for effect in &out.list {
            // Boxed: what an effect gives rise to is a step of its own.
            Box::pin(self.carry_out(effect, &out)).await;
        }
        self.out = out;
    }

    async fn carry_out(&mut self, effect: &AgentEffect, out: &AgentOut) {
        match effect {
            AgentEffect::Abandon { session } => self.abandon(*session),
            AgentEffect::Close {
                session,
                code,
                reason,
            } => {
                if let Some(socket) = self.sockets.remove(session) {
                    let _ = tokio::time::timeout(CLOSE_WAIT, socket.close(*code, reason)).await;
                }
            }
            AgentEffect::Dial { session } => {
                let dialling = dial(self.url.clone(), *session, self.tell.heard.clone());
                self.dialling = Some((*session, dialling));
            }
            AgentEffect::LoadModel { build } => {
                let id = String::from_utf8_lossy(out.slice(build)).into_owned();
                self.order(&id).await;
            }
            AgentEffect::Measure => self.report().await,
            AgentEffect::Notice(notice) => self.noticed(*notice),
            AgentEffect::Ping { session } => {
                let sent = self.sockets.get(session).map(Socket::ping);
                self.sent(*session, sent).await;
            }
            AgentEffect::ReadLocalTime => {
                let local = self.settings.hours.clock.read();
                self.step(AgentEvent::LocalTimeRead { local }).await;
            }
            AgentEffect::Rest => self.rest(),
            AgentEffect::Rise => self.rise(),
            AgentEffect::Send { session, frame } => {
                let sent = self
                    .sockets
                    .get(session)
                    .map(|socket| socket.send(out.slice(frame)));
                self.sent(*session, sent).await;
            }
            AgentEffect::Sign { challenge, status } => {
                let signature = self.key.sign(out.slice(challenge));
                let status_signature = self.key.sign(out.slice(status));
                let signed = AgentEvent::Signed {
                    signature: &signature,
                    status_signature: &status_signature,
                };
                self.step(signed).await;
                self.steps.push(Progress::Challenged);
            }
            AgentEffect::StartJob {
                job,
                build,
                body,
                scope,
            } => {
                let (job, build) = (JobId(job.0), *build);
                let ask = Ask {
                    body: out.slice(body).to_vec(),
                    scope: Scope::new(out.slice(scope)),
                };
                self.asks.insert(job, ask);
                self.events.push_back(SlotsEvent::Asked { job, build });
            }
            AgentEffect::StopJob { job } => self.stop_job(*job).await,
            AgentEffect::Stopped => self.is_stopped = true,
        }
    }

    /// The coordinator wants a model in memory.
    async fn order(&mut self, id: &str) {
        let at = self.offered.iter().position(|one| one.id() == id);
        let Some(build) = at.and_then(|at| u16::try_from(at).ok()).map(BuildIx) else {
            let why = Refusal::Unknown;
            return self
                .step(AgentEvent::ModelLoadFailed { build: id, why })
                .await;
        };
        self.ordered.insert(build);
        let eviction = Eviction::Allowed;
        self.events
            .push_back(SlotsEvent::LoadAsked { build, eviction });
    }

    async fn stop_job(&mut self, job: WireId) {
        if self.asks.remove(&JobId(job.0)).is_some() {
            // It never began.
            let usage = Usage::default();
            self.ended(job, JobEnd::Stopped { usage }).await;
        } else {
            self.engines.stop(job);
        }
    }

    fn abandon(&mut self, session: SessionId) {
        self.sockets.remove(&session);
        if let Some((_, dialling)) = self.dialling.take_if(|(id, _)| *id == session) {
            dialling.abort();
        }
    }

    /// A socket that takes nothing any more is gone.
    async fn sent(&mut self, session: SessionId, sent: Option<std::io::Result<()>>) {
        if let Some(Err(_)) = sent {
            tracing::warn!("the coordinator takes no more frames");
            self.closed(session).await;
        }
    }

    fn noticed(&mut self, notice: Notice) {
        match notice {
            Notice::Joined => {
                tracing::info!("joined the coordinator");
                self.steps.push(Progress::Joined);
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
