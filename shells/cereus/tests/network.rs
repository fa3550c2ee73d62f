//! Coordinator and provider in one process, over real sockets: with the echo backend, and with the
//! real engine where this build has it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use cereus_client::{ChatStream, Client, ClientError, Piece};
use cereus_coordinator::store;
use cereus_coordinator::{Drainer, Running, Settings, start};
use cereus_core::config::{Catalog, ModelSpec};
use cereus_core::memory::MemoryPolicy;
use cereus_core::money::{MicroUsd, Price};
use cereus_core::schedule::Schedule;
use cereus_core::slots::Strain;
use cereus_provider::memory::{FixedMemory, MemoryReading};
use cereus_provider::{
    Backend, Hours, MemorySettings, ModelSource, Preload, Progress, ProviderError, serve,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

const MODEL: &str = "tiny";
const OTHER: &str = "other";
/// Nothing here takes long; a test that waits this long has failed.
const WAIT: Duration = Duration::from_secs(60);

struct World {
    folder: TempDir,
    running: Running,
    client: Client,
}

struct Machine {
    drain: watch::Sender<bool>,
    progress: mpsc::UnboundedReceiver<Progress>,
    ended: JoinHandle<Result<(), ProviderError>>,
}

fn echo(words: u32, pause_ms: u64) -> Backend {
    Backend::Echo {
        words,
        pause: Duration::from_millis(pause_ms),
        weights_bytes: 5 << 30,
    }
}

/// A machine that has so much memory and nothing else running.
fn memory(physical_gib: u64) -> MemorySettings {
    MemorySettings {
        policy: MemoryPolicy::reference(),
        probe: Box::new(FixedMemory(MemoryReading {
            physical_bytes: physical_gib << 30,
            available_bytes: physical_gib << 30,
            strain: Strain::default(),
        })),
        slots_max: 3,
        idle_wait: Duration::ZERO,
    }
}

fn settings(folder: &Path, port: u16) -> Settings {
    let model = |id: &str| ModelSpec {
        id: id.to_owned(),
        price: Price::DEFAULT,
        context_tokens: 2_048,
        output_tokens_default: 256,
        weights_bytes: 0,
    };
    let listen = SocketAddr::from(([127, 0, 0, 1], port));
    let catalog = Catalog::new(vec![model(MODEL), model(OTHER)]).unwrap();
    Settings::new(listen, folder.to_owned(), catalog)
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store::open(folder.path()).unwrap();
        let key = store.create_key("ada").unwrap();
        let account = store.account("ada").unwrap().unwrap();
        store.deposit(account, MicroUsd(1_000_000)).unwrap();
        drop(store);
        let running = start(settings(folder.path(), 0)).await.unwrap();
        let client = Client::new(&format!("http://{}", running.addr()), key.secret).unwrap();
        Self {
            folder,
            running,
            client,
        }
    }

    /// A machine that has joined and passed its challenge.
    async fn machine(&self, backend: Backend) -> Machine {
        let id = MODEL.to_owned();
        let models = vec![ModelSource { id, backend }];
        let machine = self.start_machine(models, Preload::Fitting);
        self.verified().await;
        machine
    }

    async fn verified(&self) {
        let search = async {
            while self.client.get("/health").await.unwrap()["providers_verified"] != 1 {
                tokio::task::yield_now().await;
            }
        };
        timeout(WAIT, search)
            .await
            .expect("the machine is verified");
    }

    fn start_machine(&self, models: Vec<ModelSource>, preload: Preload) -> Machine {
        let (drain, asked) = watch::channel(false);
        let (tell, progress) = mpsc::unbounded_channel();
        let settings = cereus_provider::Settings {
            authorities: None,
            coordinator: format!("http://{}", self.running.addr()),
            data: self.folder.path().join("machine"),
            models,
            earn_key: None,
            rows_max: 4,
            drain_wait_max: WAIT,
            hours: Hours::new(Schedule::default()),
            memory: memory(16),
            preload,
        };
        let ended = tokio::spawn(serve(settings, asked, move |step| {
            let _ = tell.send(step);
        }));
        Machine {
            drain,
            progress,
            ended,
        }
    }
}

impl Machine {
    async fn said(&mut self, wanted: &Progress) {
        let search = async {
            while let Some(step) = self.progress.recv().await {
                if step == *wanted {
                    return;
                }
            }
            panic!("the provider ended before it said {wanted:?}");
        };
        timeout(WAIT, search).await.expect("the provider says so");
    }

    async fn end(self) {
        self.drain.send_replace(true);
        timeout(WAIT, self.ended)
            .await
            .expect("a drain ends")
            .unwrap()
            .unwrap();
    }
}

async fn end(running: Running) {
    let drainer: Drainer = running.drainer();
    drainer.drain();
    timeout(WAIT, running.ended())
        .await
        .expect("a drain ends")
        .unwrap();
}

fn question(prompt: &str) -> Value {
    question_to(MODEL, prompt)
}

fn question_to(model: &str, prompt: &str) -> Value {
    json!({
        "model": model, "stream": true, "stream_options": {"include_usage": true},
        "max_tokens": 200, "temperature": 0,
        "messages": [{"role": "user", "content": prompt}],
    })
}

async fn rest_of(stream: &mut ChatStream) -> Result<String, ClientError> {
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

async fn first_of(stream: &mut ChatStream) -> String {
    match timeout(WAIT, stream.next())
        .await
        .expect("the stream begins")
        .unwrap()
    {
        Some(Piece::Text(text)) => text,
        other => panic!("a piece of text was due, not {other:?}"),
    }
}

#[tokio::test]
async fn an_answer_travels_sealed_from_the_engine_to_the_client() {
    let world = World::new().await;
    let machine = world.machine(echo(3, 0)).await;
    let mut stream = world
        .client
        .chat_stream(&question("What is 2 + 3?"))
        .await
        .unwrap();
    assert_eq!(rest_of(&mut stream).await.unwrap(), "echo echo echo ");
    let path = format!("/v1/receipts/{}", stream.request_id());
    let receipt = world.client.get(&path).await.unwrap();
    assert_eq!(
        receipt["usage"]["completion_tokens"], 4,
        "three words and the end"
    );
    machine.end().await;
    end(world.running).await;
}

#[tokio::test]
async fn a_machine_with_room_for_one_of_two_models_serves_both_in_turn() {
    let world = World::new().await;
    let models = [MODEL, OTHER].map(|id| ModelSource {
        id: id.to_owned(),
        backend: echo(3, 0),
    });
    let mut machine = world.start_machine(models.to_vec(), Preload::OnDemand);
    world.verified().await;
    for model in [MODEL, OTHER, MODEL] {
        let question = question_to(model, "and you?");
        let mut stream = world.client.chat_stream(&question).await.unwrap();
        assert_eq!(rest_of(&mut stream).await.unwrap(), "echo echo echo ");
        machine.said(&Progress::Loaded(model.to_owned())).await;
    }
    machine.end().await;
    end(world.running).await;
}

#[tokio::test]
async fn many_streams_at_once_are_each_whole() {
    let world = World::new().await;
    let machine = world.machine(echo(50, 0)).await;
    let asked: Vec<_> = (0..16)
        .map(|_| {
            let client = world.client.clone();
            tokio::spawn(async move {
                let mut stream = client.chat_stream(&question("again")).await?;
                rest_of(&mut stream).await
            })
        })
        .collect();
    for answer in asked {
        assert_eq!(answer.await.unwrap().unwrap(), "echo ".repeat(50));
    }
    machine.end().await;
    end(world.running).await;
}

#[tokio::test]
async fn a_provider_that_drains_finishes_what_it_runs() {
    let world = World::new().await;
    let machine = world.machine(echo(40, 5)).await;
    let mut stream = world.client.chat_stream(&question("slowly")).await.unwrap();
    let first = first_of(&mut stream).await;
    machine.drain.send_replace(true);
    assert_eq!(
        first + &rest_of(&mut stream).await.unwrap(),
        "echo ".repeat(40)
    );
    machine.end().await;
    end(world.running).await;
}

#[tokio::test]
async fn a_provider_returns_to_a_coordinator_that_was_restarted() {
    let world = World::new().await;
    let mut machine = world.machine(echo(3, 0)).await;
    let steps = [Progress::Joined, Progress::Challenged];
    for step in &steps {
        machine.said(step).await;
    }
    let World {
        folder,
        running,
        client,
    } = world;
    let port = running.addr().port();
    end(running).await;
    let running = start(settings(folder.path(), port)).await.unwrap();
    for step in &steps {
        machine.said(step).await;
    }
    let world = World {
        folder,
        running,
        client,
    };
    world.verified().await;
    let mut stream = world.client.chat_stream(&question("back?")).await.unwrap();
    assert_eq!(rest_of(&mut stream).await.unwrap(), "echo echo echo ");
    machine.end().await;
    end(world.running).await;
}

#[tokio::test]
async fn a_consumer_who_leaves_frees_the_engine() {
    let world = World::new().await;
    let machine = world.machine(echo(1_000_000, 1)).await;
    let mut stream = world
        .client
        .chat_stream(&question("for ever"))
        .await
        .unwrap();
    first_of(&mut stream).await;
    drop(stream);
    // It could not end in time if the job still ran.
    machine.end().await;
    end(world.running).await;
}

#[cfg(feature = "mlx")]
#[tokio::test]
async fn the_tiny_model_answers_over_real_sockets() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../engine/models/tiny");
    let world = World::new().await;
    let machine = world.machine(Backend::Model(folder)).await;
    let mut stream = world
        .client
        .chat_stream(&question("What is Cereus?"))
        .await
        .unwrap();
    let answer = rest_of(&mut stream).await.unwrap();
    assert!(answer.contains("inference network"), "{answer}");
    machine.end().await;
    end(world.running).await;
}

/// From the pages of the engine to the consumer's usage.
#[cfg(feature = "mlx")]
#[tokio::test]
async fn an_account_is_told_how_much_of_its_prompt_was_found() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../engine/models/tiny");
    let world = World::new().await;
    let machine = world.machine(Backend::Model(folder)).await;
    let mut body = question(&"What is Cereus? ".repeat(12));
    body["stream"] = json!(false);
    body["max_tokens"] = json!(4);
    let mut usages = Vec::new();
    for _ in 0..2 {
        let mut answer = timeout(WAIT, world.client.chat(&body))
            .await
            .unwrap()
            .unwrap();
        usages.push(answer["usage"].take());
    }
    assert!(usages[0]["prompt_tokens_details"].is_null(), "{usages:?}");
    let cached = usages[1]["prompt_tokens_details"]["cached_tokens"].as_u64();
    let prompt = usages[1]["prompt_tokens"].as_u64();
    assert!(cached >= Some(64) && cached < prompt, "{usages:?}");
    machine.end().await;
    end(world.running).await;
}
