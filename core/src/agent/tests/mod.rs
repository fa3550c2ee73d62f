//! Sessions as scripts: what happens on the left of an arrow, what the agent does on its right.

use core::fmt::Write as _;
use std::sync::LazyLock;

use super::*;

use crate::envelope::{EncryptedPayload, KeyText, PublicKey};
use crate::slots::LoadFault;
use crate::wire::messages::{
    AttestationChallenge, Cancel, Capacity, LoadModel, SealedText, TrustStatus,
    encode_inference_request,
};
use crate::wire::{Frame, Text, ToCoordinator};

mod hours;
mod jobs;
mod laws;
mod sessions;

static PROVIDER: LazyLock<SecretKey> = LazyLock::new(|| SecretKey::from_bytes([7; 32]));
static SESSION: LazyLock<SecretKey> = LazyLock::new(|| SecretKey::from_bytes([8; 32]));
static PUBLIC: LazyLock<PublicKey> = LazyLock::new(|| PROVIDER.public());

const REGISTER: &[u8] = br#"{"type":"register"}"#;
const BODY: &str = r#"{"model":"tiny","messages":[{"role":"user","content":"2+2?"}]}"#;

struct Play {
    agent: Agent,
    now: Tick,
    session: SessionId,
    /// Whether each job is taken as soon as it is to start.
    takes_jobs: bool,
    told: String,
    dialled_after: Span,
}

fn config() -> AgentConfig {
    AgentConfig {
        seed: Seed::from_number(5),
        secret: PROVIDER.clone(),
        nonce_prefix: [3; 16],
        builds: vec!["tiny".into()],
        jobs_max: NonZeroU16::new(2).expect("two is not zero"),
        drain_wait_max: Span::secs(60),
        schedule: Schedule::default(),
        facts: Facts {
            binary_hash: "abc".into(),
            ..Facts::default()
        },
    }
}

fn id(number: &str) -> WireId {
    WireId::from_bits(number.parse().expect("jobs have numbers in scripts"))
}

fn number(id: WireId) -> u128 {
    id.0 & 0xffff
}

/// Of all requests here.
const SCOPE: &str = "c2NvcGU=";

fn request(number: &str, body: &str) -> Vec<u8> {
    let payload = EncryptedPayload::seal(&SESSION, &PUBLIC, [1; 24], body.as_bytes())
        .expect("both keys are sound");
    let mut frame = Vec::new();
    let sealer = payload.ephemeral_public_key;
    encode_inference_request(
        id(number),
        sealer.as_str(),
        None,
        &payload.ciphertext,
        SCOPE,
        &mut frame,
    );
    frame
}

fn encoded(message: &impl Frame) -> Vec<u8> {
    let mut frame = Vec::new();
    message.encode(&mut frame);
    frame
}

impl Play {
    fn new() -> Self {
        Self {
            agent: Agent::new(Tick::ZERO, config()),
            now: Tick::ZERO,
            session: SessionId(0),
            takes_jobs: true,
            told: String::new(),
            dialled_after: Span::ZERO,
        }
    }

    /// Connected, and accepted by the coordinator.
    fn joined() -> Self {
        let mut play = Self::new();
        play.run("wake; connect; challenge; signed");
        play.told.clear();
        play
    }

    fn frame(&mut self, frame: &[u8]) {
        let session = self.session;
        self.step(AgentEvent::FrameReceived { session, frame });
    }

    /// Runs commands; answers what was told since the last run.
    fn run(&mut self, script: &str) -> String {
        self.told.clear();
        for command in script.split(';') {
            self.command(command.trim());
        }
        core::mem::take(&mut self.told).trim().into()
    }

    fn command(&mut self, command: &str) {
        let mut words = command.splitn(3, ' ');
        let verb = words.next().unwrap_or_default();
        let (first, rest) = (words.next().unwrap_or_default(), words.next().unwrap_or(""));
        let session = self.session;
        let usage = Usage {
            prompt_tokens: 9,
            completion_tokens: rest.parse().unwrap_or(0),
        };
        match verb {
            "after" => {
                let ms = first.parse().expect("milliseconds");
                self.now = self.now + Span::millis(ms);
                self.step(AgentEvent::Woke);
            }
            "wake" => self.step(AgentEvent::Woke),
            "due" => {
                let (at, _) = self.agent.next_wake().expect("something is due");
                self.dialled_after = at.since(self.now);
                self.now = self.now.max(at);
                self.step(AgentEvent::Woke);
            }
            "connect" => self.step(AgentEvent::Connected {
                session,
                register: REGISTER,
            }),
            "dialfail" => self.step(AgentEvent::DialFailed { session }),
            "closed" => self.step(AgentEvent::SocketClosed { session }),
            "close" => self.step(AgentEvent::CloseReceived {
                session,
                code: first.parse().expect("a code"),
                reason: rest,
            }),
            "challenge" => self.frame(&encoded(&AttestationChallenge {
                nonce: Text::from("n0"),
                timestamp: Text::from("t0"),
            })),
            "trust" => self.frame(&encoded(&TrustStatus {
                trust_level: Text::from("self_signed"),
                status: Text::from("online"),
                reason: Text::from(format!("{first} {rest}").trim_end().to_owned()),
                account_linked: false,
            })),
            "signed" => self.step(AgentEvent::Signed {
                signature: "s1",
                status_signature: "s2",
            }),
            "request" => {
                let body = if rest.is_empty() { BODY } else { rest };
                self.frame(&request(first, body));
            }
            "bare" => {
                let id = id(first);
                let frame = format!(r#"{{"type":"inference_request","request_id":"{id}"}}"#);
                self.frame(frame.as_bytes());
            }
            "cancel" => self.frame(&encoded(&Cancel {
                request_id: Text::from(id(first).to_string()),
            })),
            "load" => self.frame(&encoded(&LoadModel {
                model_id: Text::from(first),
            })),
            "loadfailed" => self.step(AgentEvent::ModelLoadFailed {
                build: first,
                why: Refusal::SlotsBusy { slots: 3 },
            }),
            "taken" => self.step(AgentEvent::JobTaken { job: id(first) }),
            "changed" => self.step(AgentEvent::ModelsChanged {
                update: br#"{"type":"models_update","models":[{"id":"tiny"}]}"#,
            }),
            "unloaded" => self.step(AgentEvent::JobEnded {
                job: id(first),
                end: JobEnd::Failed(JobFault::NotLoaded(Refusal::Fault(LoadFault::Failed))),
            }),
            "hashed" => self.step(AgentEvent::ModelHashed {
                build: first,
                hash: rest,
            }),
            "loaded" => self.step(AgentEvent::ModelLoaded { build: first }),
            "frame" => self.frame(first.as_bytes()),
            "said" => self.step(AgentEvent::JobSaid {
                job: id(first),
                piece: Piece::content(rest),
            }),
            "done" => self.step(AgentEvent::JobEnded {
                job: id(first),
                end: JobEnd::Finished {
                    usage,
                    parts: UsageParts::default(),
                    finish: FinishReason::Stop,
                },
            }),
            "found" => self.step(AgentEvent::JobEnded {
                job: id(first),
                end: JobEnd::Finished {
                    usage: Usage {
                        completion_tokens: 1,
                        ..usage
                    },
                    parts: UsageParts {
                        cached_tokens: rest.parse().expect("a count"),
                        reasoning_tokens: 1,
                    },
                    finish: FinishReason::Stop,
                },
            }),
            "stopped" => self.step(AgentEvent::JobEnded {
                job: id(first),
                end: JobEnd::Stopped { usage },
            }),
            "failed" => self.step(AgentEvent::JobEnded {
                job: id(first),
                end: JobEnd::Failed(JobFault::Memory),
            }),
            "measured" => self.step(AgentEvent::Measured {
                heartbeat: Box::new(Heartbeat {
                    backend_capacity: Some(Capacity::default()),
                    ..Heartbeat::default()
                }),
            }),
            "pong" => self.step(AgentEvent::PongReceived { session }),
            "clock" => self.step(AgentEvent::LocalTimeRead {
                local: hours::wall(first, rest),
            }),
            "drain" => self.step(AgentEvent::DrainBegan),
            other => panic!("unknown command {other}"),
        }
    }

    fn step(&mut self, event: AgentEvent<'_>) {
        let mut out = AgentOut::default();
        self.agent.step(self.now, event, &mut out);
        for effect in &out.list {
            let line = self.rendered(effect);
            if !self.told.is_empty() {
                self.told.push_str("; ");
            }
            self.told.push_str(line.trim_end());
        }
        for effect in &out.list {
            if let AgentEffect::StartJob { job, .. } = effect
                && self.takes_jobs
            {
                self.step(AgentEvent::JobTaken { job: *job });
            }
        }
    }

    fn rendered(&mut self, effect: &AgentEffect) -> String {
        let text = |bytes| core::str::from_utf8(bytes).expect("text").to_owned();
        match effect {
            AgentEffect::Abandon { session } => format!("abandon {}", session.0),
            AgentEffect::Close { session, code, .. } => format!("close {} {code}", session.0),
            AgentEffect::Dial { session } => {
                self.session = *session;
                format!("dial {}", session.0)
            }
            AgentEffect::LoadModel { build } => format!("load {build}"),
            AgentEffect::Measure => "measure".into(),
            AgentEffect::Notice(notice) => format!("{notice:?}"),
            AgentEffect::Ping { .. } => "ping".into(),
            AgentEffect::ReadLocalTime => "read the clock".into(),
            AgentEffect::Rest => "rest".into(),
            AgentEffect::Rise => "rise".into(),
            AgentEffect::Send { session, frame } => {
                assert_eq!(*session, self.session, "frames go to the socket of now");
                message(frame)
            }
            AgentEffect::Sign { challenge, status } => {
                assert!(status.contains(r#""binary_hash":"abc""#));
                format!("sign {}", text(challenge))
            }
            AgentEffect::StartJob {
                job,
                build,
                body,
                scope,
            } => {
                assert_eq!(scope, SCOPE);
                assert_eq!(*build, BuildIx(0), "the one model of the list");
                assert!(text(body.as_ref()).contains("messages"));
                format!("start {}", number(*job))
            }
            AgentEffect::StopJob { job } => format!("stop {}", number(*job)),
            AgentEffect::Stopped => "stopped".into(),
        }
    }
}

/// One frame in few words; chunks are opened as the coordinator would.
fn message(frame: &[u8]) -> String {
    let number = |text: &str| WireId::parse(text).map(number).expect("a wire id");
    match ToCoordinator::decode(frame).expect("the agent writes what the coordinator reads") {
        ToCoordinator::Accepted(accepted) => format!("accepted {}", number(&accepted.request_id)),
        ToCoordinator::AttestationResponse(answer) => {
            let mut line = format!(
                "answer {} {} {}",
                answer.nonce.as_str(),
                answer.signature.as_str(),
                answer.status_signature.as_str()
            );
            for (build, hash) in &answer.model_hashes {
                let _ = write!(line, " {}={}", build.as_str(), hash.as_str());
            }
            line
        }
        ToCoordinator::Chunk(chunk) => {
            let sealed: &SealedText<'_> = chunk.encrypted_data.as_ref().expect("sealed");
            assert_eq!(sealed.ephemeral_public_key.as_str(), key_text().as_str());
            let key = SESSION.agree(&PUBLIC).expect("both keys are sound");
            let mut scratch = Vec::new();
            let plain = key
                .open_text(&sealed.ciphertext, 1 << 20, &mut scratch)
                .expect("the coordinator can open it");
            let text = core::str::from_utf8(plain).expect("text");
            let mut line = format!("chunk {}", number(&chunk.request_id));
            for event in text.split_terminator("\n\n") {
                let payload = event.strip_prefix("data: ").expect("an event");
                let value: serde_json::Value = serde_json::from_str(payload).expect("JSON");
                let choice = &value["choices"][0];
                if let Some(role) = choice["delta"]["role"].as_str() {
                    write!(line, " {role}").expect("a String");
                }
                if let Some(content) = choice["delta"]["content"].as_str() {
                    write!(line, " '{content}'").expect("a String");
                }
                if let Some(reason) = choice["finish_reason"].as_str() {
                    write!(line, " finish={reason}").expect("a String");
                }
            }
            line
        }
        ToCoordinator::Complete(complete) => {
            let mut line = format!(
                "complete {} {}+{}",
                number(&complete.request_id),
                complete.usage.prompt_tokens,
                complete.usage.completion_tokens
            );
            let parts = complete.usage.parts();
            if parts != UsageParts::default() {
                let (cached, thought) = (parts.cached_tokens, parts.reasoning_tokens);
                let _ = write!(line, " cached={cached} thought={thought}");
            }
            line
        }
        ToCoordinator::Error(error) => format!(
            "error {} {} {}",
            number(&error.request_id),
            error.status_code,
            error.error_reason.as_str()
        ),
        ToCoordinator::Heartbeat(heartbeat) => {
            let capacity = heartbeat.backend_capacity.expect("the full record");
            format!(
                "heartbeat {} {}",
                heartbeat.status.as_str(),
                capacity.capacity_seq
            )
        }
        ToCoordinator::LoadModelStatus(status) => {
            format!(
                "load_status {} {}",
                status.status.as_str(),
                status.error.as_str()
            )
        }
        ToCoordinator::ModelsUpdate(update) => format!("update {}", update.models[0].id.as_str()),
        ToCoordinator::Register(_) => "register".into(),
        other => panic!("unexpected {other:?}"),
    }
}

fn key_text() -> KeyText {
    PUBLIC.text()
}

/// Asserts a table of commands and what they tell.
fn plays(play: &mut Play, table: &[(&str, &str)]) {
    for (commands, told) in table {
        assert_eq!(play.run(commands), *told, "after `{commands}`");
    }
}
