//! The one task that owns the [`Agent`]: feeds it what happens, does what it says.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cereus_core::agent::{
    Agent, AgentConfig, AgentEffect, AgentEvent, AgentOut, Facts, Notice, SessionId,
};
use cereus_core::draw::Seed;
use cereus_core::envelope::SecretKey;
use cereus_core::time::{Span, Tick};
use cereus_core::wire::proof::MachineKey;
use cereus_engine::runtime::{Event, SaidBuffers};
use secrecy::ExposeSecret as _;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use zeroize::Zeroizing;

use crate::model::{Model, ModelError, Word};
use crate::report::{heartbeat, register_frame};
use crate::socket::{Heard, Socket, dial};
use crate::{Progress, ProviderError, Settings, identity};

/// Frames read ahead of the agent.
const HEARD_MAX: usize = 256;
/// Words of the engine in one turn: they go to the socket together.
const WORDS_MAX: usize = 256;
/// How long the goodbye may take at the very end.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// Serves until `drain` turns true and what runs has finished.
pub async fn serve(
    settings: Settings,
    mut drain: watch::Receiver<bool>,
    mut progress: impl FnMut(Progress),
) -> Result<(), ProviderError> {
    let url = socket_url(&settings.coordinator)?;
    let key = identity::load(&settings.data).map_err(ProviderError::Identity)?;
    progress(Progress::Machine(format!(
        "{:032x}",
        key.attested().machine_id().0
    )));
    let (tell_word, mut words) = mpsc::unbounded_channel();
    let model = load(&settings, tell_word).await?;
    progress(Progress::Loaded(settings.model_id.clone()));
    let (told, mut heard) = mpsc::channel(HEARD_MAX);
    let mut run = Run::new(settings, url, key, model, told)?;
    let mut batch = Vec::with_capacity(WORDS_MAX);
    let mut is_draining = false;
    while !run.is_stopped {
        let wake = run.agent.next_wake().map(|(at, _)| run.instant(at));
        let wake_at = wake.unwrap_or_else(tokio::time::Instant::now);
        // Cancel safe: receiving and sleeping lose nothing.
        tokio::select! {
            Some((session, event)) = heard.recv() => run.heard(session, event).await,
            count = words.recv_many(&mut batch, WORDS_MAX) => {
                if count == 0 {
                    return Err(ProviderError::Model(ModelError::Engine(
                        "the engine's thread ended; its message is above".to_owned(),
                    )));
                }
                for event in batch.drain(..) {
                    run.said(event).await;
                }
            }
            () = raised(&mut drain), if !is_draining => {
                is_draining = true;
                tracing::info!("draining: running jobs finish, nothing more is taken");
                run.step(AgentEvent::DrainBegan).await;
            }
            () = tokio::time::sleep_until(wake_at), if wake.is_some() => {
                run.step(AgentEvent::Woke).await;
            }
        }
        for step in run.steps.drain(..) {
            progress(step);
        }
    }
    let Run { model, .. } = run;
    let _ = tokio::task::spawn_blocking(move || model.end()).await;
    Ok(())
}

async fn raised(flag: &mut watch::Receiver<bool>) {
    if flag.wait_for(|flag| *flag).await.is_err() {
        // Nobody can ask any more.
        std::future::pending::<()>().await;
    }
}

fn socket_url(coordinator: &str) -> Result<String, ProviderError> {
    let rest = coordinator
        .strip_prefix("http://")
        .or_else(|| coordinator.strip_prefix("ws://"))
        .map(|rest| rest.trim_end_matches('/'))
        .filter(|rest| !rest.is_empty() && !rest.contains('/'));
    let rest = rest.ok_or_else(|| ProviderError::Address(coordinator.to_owned()))?;
    Ok(format!("ws://{rest}/ws/provider"))
}

async fn load(
    settings: &Settings,
    words: mpsc::UnboundedSender<Event>,
) -> Result<Model, ProviderError> {
    let (backend, rows_max) = (settings.backend.clone(), settings.rows_max);
    let seed = fresh_seed()?;
    let loading = tokio::task::spawn_blocking(move || Model::load(&backend, rows_max, seed, words));
    match loading.await {
        Ok(model) => model.map_err(ProviderError::Model),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

struct Run {
    settings: Settings,
    url: String,
    key: MachineKey,
    agent: Agent,
    out: AgentOut,
    said: SaidBuffers,
    model: Model,
    told: mpsc::Sender<(SessionId, Heard)>,
    dialling: Option<(SessionId, AbortHandle)>,
    sockets: HashMap<SessionId, Socket>,
    origin: Instant,
    /// News for whoever waits.
    steps: Vec<Progress>,
    is_stopped: bool,
}

impl Run {
    fn new(
        settings: Settings,
        url: String,
        key: MachineKey,
        model: Model,
        told: mpsc::Sender<(SessionId, Heard)>,
    ) -> Result<Self, ProviderError> {
        // Fresh for each process: what was sealed to an earlier one stays sealed.
        let secret = Zeroizing::new(random::<32>()?);
        let jobs_max = NonZeroU16::new(settings.rows_max).unwrap_or(NonZeroU16::MIN);
        let hash = model.weights.hash.clone();
        let has_hash = !hash.is_empty();
        let config = AgentConfig {
            seed: fresh_seed()?,
            secret: SecretKey::from_bytes(*secret),
            nonce_prefix: random()?,
            builds: vec![settings.model_id.clone()],
            jobs_max,
            drain_wait_max: Span(
                u64::try_from(settings.drain_wait_max.as_micros()).unwrap_or(u64::MAX),
            ),
            facts: Facts {
                // A key file says nothing of the system, and this process does not ask it.
                sip_enabled: Some(true),
                rdma_disabled: Some(true),
                secure_boot_enabled: None,
                binary_hash: String::new(),
                model_hashes: has_hash
                    .then(|| (settings.model_id.clone(), hash))
                    .into_iter()
                    .collect(),
            },
        };
        Ok(Self {
            agent: Agent::new(Tick::ZERO, config),
            settings,
            url,
            key,
            out: AgentOut::default(),
            said: SaidBuffers::default(),
            model,
            told,
            dialling: None,
            sockets: HashMap::new(),
            origin: Instant::now(),
            steps: Vec::new(),
            is_stopped: false,
        })
    }

    fn now(&self) -> Tick {
        Tick(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn instant(&self, tick: Tick) -> tokio::time::Instant {
        (self.origin + Duration::from_micros(tick.0)).into()
    }

    async fn heard(&mut self, session: SessionId, heard: Heard) {
        match heard {
            Heard::Connected(socket) => {
                self.sockets.insert(session, socket);
                let register = register_frame(
                    &self.key,
                    self.agent.key_text(),
                    &self.settings.model_id,
                    &self.model.weights,
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

    async fn said(&mut self, event: Event) {
        match self.model.word(event) {
            Some(Word::Said(job, delta)) => {
                let mut buffers = std::mem::take(&mut self.said);
                let said = buffers.said(&delta);
                self.step(AgentEvent::JobSaid { job, said }).await;
                self.said = buffers;
            }
            Some(Word::Ended(job, end)) => self.step(AgentEvent::JobEnded { job, end }).await,
            None => {}
        }
    }

    async fn measured(&mut self) {
        let capacity = self.model.capacity();
        let model_id = self.settings.model_id.clone();
        let heartbeat = Box::new(heartbeat(&model_id, &capacity));
        self.step(AgentEvent::Measured { heartbeat }).await;
    }

    async fn step(&mut self, event: AgentEvent<'_>) {
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
                let dialling = dial(self.url.clone(), *session, self.told.clone());
                self.dialling = Some((*session, dialling));
            }
            AgentEffect::LoadModel { build } => {
                // The one model is in memory from the start.
                let build = String::from_utf8_lossy(out.slice(build)).into_owned();
                if build == self.settings.model_id {
                    self.step(AgentEvent::ModelLoaded { build: &build }).await;
                } else {
                    self.step(AgentEvent::ModelLoadFailed {
                        build: &build,
                        why: cereus_core::slots::Refusal::Unknown,
                    })
                    .await;
                }
            }
            AgentEffect::Measure => self.measured().await,
            AgentEffect::Notice(notice) => self.noticed(*notice),
            AgentEffect::Ping { session } => {
                let sent = self.sockets.get(session).map(Socket::ping);
                self.sent(*session, sent).await;
            }
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
            AgentEffect::StartJob { job, body, .. } => {
                let body = out.slice(body).to_vec();
                if let Some(end) = self.model.start(*job, body) {
                    self.step(AgentEvent::JobEnded { job: *job, end }).await;
                }
            }
            AgentEffect::StopJob { job } => self.model.stop(*job),
            AgentEffect::Stopped => self.is_stopped = true,
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

fn random<const SIZE: usize>() -> Result<[u8; SIZE], ProviderError> {
    let mut bytes = [0; SIZE];
    getrandom::fill(&mut bytes).map_err(|_| ProviderError::NoRandomness)?;
    Ok(bytes)
}

fn fresh_seed() -> Result<Seed, ProviderError> {
    let bytes: [u8; 16] = random()?;
    let (low, high) = bytes.split_at(8);
    let word = |half: &[u8]| u64::from_le_bytes(half.try_into().expect("eight bytes"));
    Ok(Seed([word(low), word(high)]))
}

fn unix_now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_becomes_the_socket_of_its_host_or_is_refused_with_an_example() {
        assert_eq!(socket_url("http://a:1/").unwrap(), "ws://a:1/ws/provider");
        for wrong in ["", "a:1", "https://a", "http://", "http://a/b"] {
            let error = socket_url(wrong).unwrap_err().to_string();
            assert!(error.contains("http://127.0.0.1:8080"), "{wrong}: {error}");
        }
    }
}
