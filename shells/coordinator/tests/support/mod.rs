//! A coordinator on a folder of its own, and a provider that does as it is told.

// Each test binary uses a part of this.
#![allow(dead_code)]

use std::borrow::Cow;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use cereus_client::{ApiError, ChatStream, Client, ClientError, Piece};
use cereus_coordinator::store;
use cereus_coordinator::{CoordinatorError, Running, Settings, start};
use cereus_core::config::{Catalog, ModelSpec};
use cereus_core::envelope::{BoxKey, NONCE_SIZE, PublicKey, SecretKey};
use cereus_core::ids::WireId;
use cereus_core::money::{MicroUsd, Price};
use cereus_core::wire::messages::{
    AttestationResponse, Capacity, Hardware, Heartbeat, InferenceAccepted, InferenceComplete,
    InferenceError, ModelEntry, Register, Slot, SystemMetrics, UsageFrame, Verbatim,
};
use cereus_core::wire::proof::{Blob, MachineKey};
use cereus_core::wire::{Frame, Text, ToProvider, encode_chunk};
use futures_util::{SinkExt as _, StreamExt as _};
use secrecy::SecretString;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

pub(crate) const MODEL: &str = "tiny";
/// Nothing here takes long; a test that waits this long has failed.
pub(crate) const WAIT: Duration = Duration::from_secs(30);

/// A running coordinator and one account with money.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) running: Running,
    pub(crate) client: Client,
}

pub(crate) fn settings(folder: &Path) -> Settings {
    let tiny = ModelSpec {
        id: MODEL.to_owned(),
        price: Price::DEFAULT,
        context_tokens: 8_192,
        output_tokens_default: 256,
        weights_bytes: 0,
    };
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    Settings::new(listen, folder.to_owned(), Catalog::new(vec![tiny]).unwrap())
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = open_account(folder.path(), "ada", 1_000_000);
        let mut settings = settings(folder.path());
        change(&mut settings);
        let running = start(settings).await.unwrap();
        let client = Client::new(&address(&running), key).unwrap();
        Self {
            folder,
            running,
            client,
        }
    }

    pub(crate) fn address(&self) -> String {
        address(&self.running)
    }

    pub(crate) fn client(&self, key: SecretString) -> Client {
        Client::new(&self.address(), key).unwrap()
    }

    pub(crate) async fn provider(&self) -> Provider {
        self.join(1, 8).await
    }

    /// A machine that the coordinator routes to: it has registered and passed its challenge.
    pub(crate) async fn join(&self, machine: u8, concurrency: i64) -> Provider {
        self.join_with(machine, concurrency, &[MODEL]).await
    }

    /// A machine that has these models.
    pub(crate) async fn join_with(
        &self,
        machine: u8,
        concurrency: i64,
        models: &'static [&'static str],
    ) -> Provider {
        let verified = || async {
            let health = self.client.get("/health").await.unwrap();
            health["providers_verified"].as_u64().unwrap()
        };
        let before = verified().await;
        let provider = Provider::join(self.running.addr(), machine, concurrency, models).await;
        let search = async {
            while verified().await == before {
                tokio::task::yield_now().await;
            }
        };
        timeout(WAIT, search)
            .await
            .expect("the machine is verified");
        provider
    }

    /// One whole answer: after it the machine is known to be verified and idle.
    pub(crate) async fn warm(&self, provider: &mut Provider) {
        let mut asked = self.ask();
        let request = tokio::select! {
            request = provider.accept() => request,
            refused = &mut asked => panic!("it was to be served, not {refused:?}"),
        };
        provider.piece(&request, "warm").await;
        provider.complete(&request, 20, 3).await;
        text_of(&mut asked.await.unwrap().unwrap()).await.unwrap();
    }

    /// Starts a streamed chat without waiting for its reply.
    pub(crate) fn ask(&self) -> tokio::task::JoinHandle<Result<ChatStream, ClientError>> {
        let client = self.client.clone();
        tokio::spawn(async move { client.chat_stream(&question()).await })
    }

    pub(crate) async fn drained(self) -> Result<TempDir, CoordinatorError> {
        self.running.drainer().drain();
        timeout(WAIT, self.running.ended())
            .await
            .expect("a drain without streams ends")?;
        Ok(self.folder)
    }
}

pub(crate) fn address(running: &Running) -> String {
    format!("http://{}", running.addr())
}

/// A fresh key of an account that has `micro_usd`.
pub(crate) fn open_account(folder: &Path, name: &str, micro_usd: i64) -> SecretString {
    let mut store = store::open(folder).unwrap();
    let key = store.create_key(name).unwrap();
    if micro_usd > 0 {
        let account = store.account(name).unwrap().unwrap();
        store.deposit(account, MicroUsd(micro_usd)).unwrap();
    }
    key.secret
}

pub(crate) fn question() -> Value {
    json!({
        "model": MODEL, "stream": true, "stream_options": {"include_usage": true},
        "max_tokens": 64, "messages": [{"role": "user", "content": "What is 2 + 3?"}],
    })
}

pub(crate) fn api_error<T: std::fmt::Debug>(result: Result<T, ClientError>) -> ApiError {
    match result {
        Err(ClientError::Api(error)) => error,
        other => panic!("an error of the API was due, not {other:?}"),
    }
}

/// The text of a whole stream.
pub(crate) async fn text_of(stream: &mut ChatStream) -> Result<String, ClientError> {
    let mut text = String::new();
    while let Some(piece) = timeout(WAIT, stream.next())
        .await
        .expect("the stream goes on")?
    {
        if let Piece::Text(piece) = piece {
            text.push_str(&piece);
        }
    }
    Ok(text)
}

/// The provider's end of the wire, by hand.
pub(crate) struct Provider {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    machine: u8,
    key: SecretKey,
    models: &'static [&'static str],
    nonce: u64,
    concurrency: i64,
    seq: u64,
}

/// A request as a provider opened it.
pub(crate) struct Opened {
    pub(crate) wire: WireId,
    pub(crate) body: Value,
    pub(crate) key: BoxKey,
}

impl Provider {
    /// Registers a machine, answers its challenge and reports room.
    async fn join(
        addr: SocketAddr,
        machine: u8,
        concurrency: i64,
        models: &'static [&'static str],
    ) -> Self {
        let mut provider = Self::connect(addr, machine).await;
        provider.models = models;
        provider.concurrency = concurrency;
        let identity = MachineKey::from_bytes([machine; 32]).unwrap();
        provider.send(provider.registration("")).await;
        loop {
            let frame = provider.frame().await;
            if let ToProvider::AttestationChallenge(asked) = ToProvider::decode(&frame).unwrap() {
                let answer = AttestationResponse {
                    nonce: asked.nonce.clone(),
                    signature: identity
                        .sign_challenge(&asked.nonce, &asked.timestamp)
                        .into(),
                    public_key: provider.public().into(),
                    sip_enabled: Some(true),
                    rdma_disabled: Some(true),
                    secure_boot_enabled: Some(true),
                    ..AttestationResponse::default()
                };
                provider.say(&answer).await;
                break;
            }
        }
        provider.report().await;
        provider
    }

    /// A socket on which nothing has been said.
    pub(crate) async fn connect(addr: SocketAddr, machine: u8) -> Self {
        let (socket, _) = connect_async(format!("ws://{addr}/ws/provider"))
            .await
            .unwrap();
        Self {
            socket,
            machine,
            key: SecretKey::from_bytes([machine; 32]),
            models: &[MODEL],
            nonce: 0,
            concurrency: 8,
            seq: 0,
        }
    }

    fn public(&self) -> String {
        self.key.public().text().as_str().to_owned()
    }

    /// The first frame of this machine, which whoever is on the way could record.
    pub(crate) fn registration(&self, earn_key: &str) -> Vec<u8> {
        let identity = MachineKey::from_bytes([self.machine; 32]).unwrap();
        let public = self.public();
        let blob = identity.sign_blob(&Blob {
            chip_name: "Test".into(),
            encryption_public_key: Some(Text::from(public.as_str())),
            hardware_model: "Test1,1".into(),
            os_version: "26.0.0".into(),
            public_key: identity.attested().text().into(),
            rdma_disabled: true,
            secure_boot_enabled: true,
            secure_enclave_available: true,
            sip_enabled: true,
            timestamp: "2026-07-01T00:00:00Z".into(),
            ..Blob::default()
        });
        let entry = |id: &'static str| ModelEntry {
            id: id.into(),
            ..ModelEntry::default()
        };
        let register = Register {
            hardware: Hardware {
                memory_gb: 64,
                ..Hardware::default()
            },
            models: self.models.iter().copied().map(entry).collect(),
            backend: "cereus-mlx".into(),
            version: "0.6.40".into(),
            public_key: Text(Cow::Borrowed(&public)),
            encrypted_response_chunks: true,
            attestation: Some(Verbatim(&blob)),
            auth_token: earn_key.into(),
            ..Register::default()
        };
        let mut frame = Vec::new();
        register.encode(&mut frame);
        frame
    }

    pub(crate) async fn report(&mut self) {
        self.seq += 1;
        let max_concurrency = self.concurrency;
        let slot = |model: &'static str| Slot {
            model: model.into(),
            state: "idle".into(),
            max_concurrency,
            ..Slot::default()
        };
        let heartbeat = Heartbeat {
            status: "idle".into(),
            system_metrics: SystemMetrics {
                thermal_state: "nominal".into(),
                ..SystemMetrics::default()
            },
            backend_capacity: Some(Capacity {
                slots: self.models.iter().copied().map(slot).collect(),
                total_memory_gb: 64.0,
                capacity_seq: self.seq,
                ..Capacity::default()
            }),
            ..Heartbeat::default()
        };
        self.say(&heartbeat).await;
    }

    /// The next request, opened and accepted.
    pub(crate) async fn accept(&mut self) -> Opened {
        loop {
            let frame = self.frame().await;
            let ToProvider::InferenceRequest(request) = ToProvider::decode(&frame).unwrap() else {
                continue;
            };
            let sealed = request.encrypted_body.expect("bodies travel sealed");
            let peer = PublicKey::parse(&sealed.ephemeral_public_key).unwrap();
            let key = self.key.agree(&peer).unwrap();
            let mut scratch = Vec::new();
            let plain = key
                .open_text(&sealed.ciphertext, 1 << 20, &mut scratch)
                .unwrap();
            let opened = Opened {
                wire: WireId::parse(&request.request_id).unwrap(),
                body: serde_json::from_slice(plain).unwrap(),
                key,
            };
            let id = opened.wire.to_string();
            self.say(&InferenceAccepted {
                request_id: id.into(),
            })
            .await;
            return opened;
        }
    }

    /// One sealed piece of content.
    pub(crate) async fn piece(&mut self, request: &Opened, text: &str) {
        self.delta(request, &json!({ "content": text }), None).await;
    }

    pub(crate) async fn delta(&mut self, request: &Opened, delta: &Value, finish: Option<&str>) {
        let chunk = json!({
            "id": "x", "object": "chat.completion.chunk", "created": 0, "model": MODEL,
            "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }],
        });
        let text = format!("data: {chunk}\n\n");
        self.nonce += 1;
        let mut nonce = [0; NONCE_SIZE];
        nonce[..8].copy_from_slice(&self.nonce.to_le_bytes());
        let mut sealed = String::new();
        request
            .key
            .seal_text(nonce, text.as_bytes(), &mut Vec::new(), &mut sealed);
        let mut frame = Vec::new();
        encode_chunk(request.wire, &self.public(), &sealed, &mut frame);
        self.send(frame).await;
    }

    pub(crate) async fn complete(&mut self, request: &Opened, prompt: i64, completion: i64) {
        let usage = UsageFrame {
            prompt_tokens: prompt,
            completion_tokens: completion,
            ..UsageFrame::default()
        };
        self.complete_with(request, usage).await;
    }

    pub(crate) async fn complete_with(&mut self, request: &Opened, usage: UsageFrame<'_>) {
        self.delta(request, &json!({}), Some("stop")).await;
        let complete = InferenceComplete {
            request_id: request.wire.to_string().into(),
            usage,
            ..InferenceComplete::default()
        };
        self.say(&complete).await;
    }

    pub(crate) async fn fail(&mut self, request: &Opened, status_code: i64) {
        let error = InferenceError {
            request_id: request.wire.to_string().into(),
            error: "as told".into(),
            status_code,
            ..InferenceError::default()
        };
        self.say(&error).await;
    }

    /// Waits for the cancel of `request`.
    pub(crate) async fn cancelled(&mut self, request: &Opened) {
        loop {
            let frame = self.frame().await;
            if let ToProvider::Cancel(cancel) = ToProvider::decode(&frame).unwrap()
                && *cancel.request_id == *request.wire.to_string()
            {
                return;
            }
        }
    }

    /// The next frame, unless the connection is closed instead.
    pub(crate) async fn frame_or_close(&mut self) -> Option<Vec<u8>> {
        loop {
            match timeout(WAIT, self.socket.next())
                .await
                .expect("something comes")
            {
                Some(Ok(Message::Text(text))) => return Some(text.as_bytes().to_vec()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                _ => return None,
            }
        }
    }

    /// Waits for the close: its code and reason.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        loop {
            match timeout(WAIT, self.socket.next())
                .await
                .expect("the close comes")
            {
                Some(Ok(Message::Close(Some(frame)))) => {
                    return (frame.code.into(), frame.reason.as_str().to_owned());
                }
                Some(Ok(_)) => {}
                other => panic!("a close was due, not {other:?}"),
            }
        }
    }

    /// Waits for the end of the connection; the code of its close, if one came through. A peer that
    /// stops reading amid a frame may have its close overtaken by the reset.
    pub(crate) async fn gone(&mut self) -> Option<u16> {
        loop {
            match timeout(WAIT, self.socket.next())
                .await
                .expect("the end comes")
            {
                Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }

    pub(crate) async fn say<M: Frame>(&mut self, message: &M) {
        let mut frame = Vec::new();
        message.encode(&mut frame);
        self.send(frame).await;
    }

    pub(crate) async fn send(&mut self, frame: Vec<u8>) {
        let text = String::from_utf8(frame).unwrap();
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// For a frame that the other end may refuse before it has read it.
    pub(crate) async fn send_lossy(&mut self, text: String) {
        let _ = self.socket.send(Message::text(text)).await;
    }

    pub(crate) async fn frame(&mut self) -> Vec<u8> {
        loop {
            match timeout(WAIT, self.socket.next())
                .await
                .expect("a frame comes")
            {
                Some(Ok(Message::Text(text))) => return text.as_bytes().to_vec(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("a frame was due, not {other:?}"),
            }
        }
    }
}
