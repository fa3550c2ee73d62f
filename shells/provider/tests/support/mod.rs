//! A provider with echoes for models, and a coordinator that asks it one thing after another.

// Each test binary uses a part of this.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::time::Duration;

use cereus_core::envelope::{EncryptedPayload, PublicKey, SecretKey};
use cereus_core::ids::WireId;
use cereus_core::memory::{GIB, MemoryPolicy};
use cereus_core::schedule::Schedule;
use cereus_core::slots::Strain;
use cereus_core::wire::Frame;
use cereus_core::wire::messages::{
    AttestationChallenge, Cancel, LoadModel, encode_inference_request,
};
use cereus_provider::memory::{FixedMemory, MemoryReading};
use cereus_provider::{
    Backend, Hours, MemorySettings, ModelSource, Preload, Progress, ProviderError, Settings, serve,
};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// Nothing here takes long; a test that waits this long has failed.
pub(crate) const WAIT: Duration = Duration::from_secs(60);

/// A model that says five words and is charged for weights of this size.
pub(crate) fn echo(id: &str, weights_gib: u64, pause: Duration) -> ModelSource {
    ModelSource {
        id: id.to_owned(),
        backend: Backend::Echo {
            words: 5,
            pause,
            weights_bytes: weights_gib * GIB,
        },
    }
}

/// Of a machine that has so much memory and nothing else running.
pub(crate) fn settings(physical_gib: u64, models: Vec<ModelSource>) -> Settings {
    Settings {
        coordinator: String::new(),
        authorities: None,
        data: std::path::PathBuf::new(),
        models,
        earn_key: None,
        rows_max: 4,
        drain_wait_max: WAIT,
        hours: Hours::new(Schedule::default()),
        memory: MemorySettings {
            policy: MemoryPolicy::reference(),
            probe: Box::new(FixedMemory(MemoryReading {
                physical_bytes: physical_gib * GIB,
                available_bytes: physical_gib * GIB,
                strain: Strain::default(),
            })),
            slots_max: 3,
            idle_wait: Duration::ZERO,
        },
        preload: Preload::OnDemand,
    }
}

/// The coordinator's end, and the provider.
pub(crate) struct World {
    socket: WebSocketStream<TcpStream>,
    key: PublicKey,
    pub(crate) register: Value,
    job_last: u128,
    drain: watch::Sender<bool>,
    progress: mpsc::UnboundedReceiver<Progress>,
    ended: JoinHandle<Result<(), ProviderError>>,
    _data: TempDir,
}

impl World {
    pub(crate) async fn new(mut settings: Settings) -> Self {
        let data = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        settings.coordinator = format!("http://{}", listener.local_addr().unwrap());
        settings.data = data.path().to_owned();
        let (drain, asked) = watch::channel(false);
        let (tell, progress) = mpsc::unbounded_channel();
        let ended = tokio::spawn(serve(settings, asked, move |step| {
            let _ = tell.send(step);
        }));
        let (stream, _) = timeout(WAIT, listener.accept()).await.unwrap().unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        let register = next(&mut socket).await;
        assert_eq!(register["type"], "register");
        let key = PublicKey::parse(register["public_key"].as_str().unwrap()).unwrap();
        Self {
            socket,
            key,
            register,
            job_last: 0,
            drain,
            progress,
            ended,
            _data: data,
        }
    }

    async fn send(&mut self, frame: Vec<u8>) {
        let text = String::from_utf8(frame).unwrap();
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// Asks a model something; the id of the request.
    pub(crate) async fn ask(&mut self, model: &str) -> String {
        self.job_last += 1;
        let id = WireId::from_bits(self.job_last);
        let body = json!({"model": model, "stream": true, "temperature": 0, "max_tokens": 48,
            "messages": [{"role": "user", "content": "Well?"}]});
        let session = SecretKey::from_bytes([7; 32]);
        let body = body.to_string();
        let sealed = EncryptedPayload::seal(&session, &self.key, [1; 24], body.as_bytes()).unwrap();
        let mut frame = Vec::new();
        let sealer = sealed.ephemeral_public_key;
        encode_inference_request(
            id,
            sealer.as_str(),
            None,
            &sealed.ciphertext,
            "",
            &mut frame,
        );
        self.send(frame).await;
        id.to_string()
    }

    /// Asks, and hears the answer to its end: how it ended.
    pub(crate) async fn answer(&mut self, model: &str) -> Value {
        let id = self.ask(model).await;
        self.end_of(&id).await
    }

    pub(crate) async fn end_of(&mut self, id: &str) -> Value {
        self.hear(|frame| is_end(frame) && frame["request_id"] == *id)
            .await
    }

    /// The same of several, in whatever order they end.
    pub(crate) async fn ends_of(&mut self, ids: &[String]) -> Vec<Value> {
        let mut open: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
        let mut ends = vec![];
        while !open.is_empty() {
            let end = self.hear(is_end).await;
            assert!(open.remove(end["request_id"].as_str().unwrap()), "{end}");
            ends.push(end);
        }
        ends
    }

    pub(crate) async fn cancel(&mut self, id: &str) {
        let mut frame = Vec::new();
        Cancel {
            request_id: id.into(),
        }
        .encode(&mut frame);
        self.send(frame).await;
    }

    pub(crate) async fn began(&mut self, id: &str) {
        let is_chunk =
            |it: &Value| it["type"] == "inference_response_chunk" && it["request_id"] == *id;
        self.hear(is_chunk).await;
    }

    /// Orders a model into memory; the provider's answer.
    pub(crate) async fn order(&mut self, model: &str) -> Value {
        let mut frame = Vec::new();
        LoadModel {
            model_id: model.into(),
        }
        .encode(&mut frame);
        self.send(frame).await;
        self.hear(|frame| frame["type"] == "load_model_status" && frame["model_id"] == *model)
            .await
    }

    /// What the provider says of itself under its signature.
    pub(crate) async fn challenge(&mut self) -> Value {
        let mut frame = Vec::new();
        AttestationChallenge {
            nonce: "bm9uY2U=".into(),
            timestamp: "2026-01-01T00:00:00Z".into(),
        }
        .encode(&mut frame);
        self.send(frame).await;
        self.hear(|frame| frame["type"] == "attestation_response")
            .await
    }

    /// The capacity record of the first heartbeat in which each of these models has this state.
    pub(crate) async fn capacity(&mut self, states: &[(&str, &str)]) -> Value {
        let has = |beat: &Value, model: &str, state: &str| {
            let slots = beat["backend_capacity"]["slots"].as_array();
            slots
                .into_iter()
                .flatten()
                .any(|slot| slot["model"] == *model && slot["state"] == *state)
        };
        let is_wanted = |frame: &Value| {
            frame["type"] == "heartbeat"
                && states.iter().all(|(model, state)| has(frame, model, state))
        };
        self.hear(is_wanted).await["backend_capacity"].take()
    }

    /// The next frame that is wanted; those before it are dropped.
    pub(crate) async fn hear(&mut self, is_wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let frame = next(&mut self.socket).await;
            if is_wanted(&frame) {
                return frame;
            }
        }
    }

    /// Loads and unloads so far, in order.
    pub(crate) fn moves(&mut self) -> Vec<String> {
        let mut moves = Vec::new();
        while let Ok(step) = self.progress.try_recv() {
            match step {
                Progress::Loaded(model) => moves.push(format!("+{model}")),
                Progress::Unloaded(model) => moves.push(format!("-{model}")),
                Progress::Fenced { model, why } => moves.push(format!("!{model} {why}")),
                Progress::Challenged
                | Progress::Contested
                | Progress::LostAtWork
                | Progress::Earning(_)
                | Progress::Joined
                | Progress::NothingSold
                | Progress::Machine(_)
                | Progress::Resting(_) => {}
            }
        }
        moves
    }

    /// Waits until the provider has let go of the socket and of this many models.
    pub(crate) async fn rested(&mut self, models: usize) -> Vec<Progress> {
        while let Some(Ok(_)) = timeout(WAIT, self.socket.next()).await.unwrap() {}
        let mut steps = Vec::new();
        let is_gone = |step: &&Progress| matches!(step, Progress::Unloaded(_));
        while steps.iter().filter(is_gone).count() < models {
            let step = timeout(WAIT, self.progress.recv()).await.unwrap();
            steps.push(step.expect("it goes on"));
        }
        steps
    }

    pub(crate) async fn end(mut self) {
        self.drain.send_replace(true);
        while let Some(Ok(_)) = timeout(WAIT, self.socket.next()).await.unwrap() {}
        let ended = timeout(WAIT, self.ended).await.expect("a drain ends");
        ended.unwrap().unwrap();
    }
}

fn is_end(frame: &Value) -> bool {
    let kind = frame["type"].as_str().unwrap();
    matches!(kind, "inference_complete" | "inference_error")
}

async fn next(socket: &mut WebSocketStream<TcpStream>) -> Value {
    loop {
        let message = timeout(WAIT, socket.next()).await.expect("it goes on");
        if let Message::Text(text) = message.expect("it is open").unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
}
