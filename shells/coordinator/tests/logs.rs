//! What the log says of requests, and what it never says. The log is the whole process's, so this is a
//! binary of its own.

mod support;

use std::io;
use std::sync::{LazyLock, Mutex};

use cereus_coordinator::store::{self, RequestState};
use cereus_core::money::MicroUsd;
use serde_json::json;
use support::{World, question, text_of};
use tracing_subscriber::fmt::MakeWriter;

/// Everything that any thread has logged.
static LOG: Mutex<String> = Mutex::new(String::new());

static LISTENING: LazyLock<()> = LazyLock::new(|| {
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(Listener)
        .init();
});

struct Listener;

impl io::Write for Listener {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        *LOG.lock().unwrap() += &String::from_utf8_lossy(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Listener {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

/// Words that stand in prompts and answers alone.
const SECRETS: [&str; 2] = ["parsley", "rosemary"];

async fn world() -> World {
    LazyLock::force(&LISTENING);
    World::new().await
}

/// The one line that says `message` of a request. All of them are there once the coordinator has
/// drained.
fn line(request: &str, message: &str) -> String {
    let log = LOG.lock().unwrap();
    for secret in SECRETS {
        assert!(!log.contains(secret), "the log holds what was said");
    }
    let says = |line: &&str| line.contains(request) && line.contains(message);
    let found: Vec<&str> = log.lines().filter(says).collect();
    assert_eq!(found.len(), 1, "`{message}` of {request} in:\n{log}");
    found[0].to_owned()
}

fn holds(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "`{part}` is missing: {line}");
    }
}

fn ask(world: &World) -> tokio::task::JoinHandle<cereus_client::ChatStream> {
    let client = world.client.clone();
    let mut body = question();
    body["messages"] = json!([{ "role": "user", "content": SECRETS[0] }]);
    tokio::spawn(async move { client.chat_stream(&body).await.unwrap() })
}

#[tokio::test]
async fn a_request_that_finished_has_a_line_with_its_model_tokens_charge_and_outcome() {
    let world = world().await;
    let mut provider = world.provider().await;
    let asked = ask(&world);
    let request = provider.accept().await;
    provider.piece(&request, SECRETS[1]).await;
    provider.complete(&request, 20, 3).await;
    let mut stream = asked.await.unwrap();
    assert_eq!(text_of(&mut stream).await.unwrap(), SECRETS[1]);
    let id = stream.request_id().to_owned();
    let receipt = world
        .client
        .get(&format!("/v1/receipts/{id}"))
        .await
        .unwrap();
    let charged = format!("charged_micro_usd={}", receipt["micro_usd"]["charged"]);
    drop(provider);
    world.drained().await.unwrap();
    let parts = [
        "model=\"tiny\"",
        "prompt_tokens=20",
        "completion_tokens=3",
        &charged,
        "status=200",
        "outcome=\"finished\"",
    ];
    holds(&line(&id, "request finished"), &parts);
}

#[tokio::test]
async fn an_answer_that_broke_off_is_named_so_with_its_model_and_tokens() {
    let world = world().await;
    let mut provider = world.provider().await;
    let asked = ask(&world);
    let request = provider.accept().await;
    provider.piece(&request, SECRETS[1]).await;
    provider.piece(&request, SECRETS[1]).await;
    let mut stream = asked.await.unwrap();
    let id = stream.request_id().to_owned();
    drop(provider);
    text_of(&mut stream).await.unwrap_err();
    let folder = world.drained().await.unwrap();
    let parts = [
        "model=\"tiny\"",
        "prompt_tokens=",
        "completion_tokens=2",
        "status=200",
        "outcome=\"broken\"",
        "why=\"provider_error\"",
    ];
    holds(&line(&id, "request broken"), &parts);

    let store = store::open(folder.path()).unwrap();
    let kept = store.requests(None, 1).unwrap().remove(0);
    assert_eq!(kept.state, RequestState::Voided);
    assert_eq!(kept.charged, MicroUsd::ZERO);
    assert_eq!(kept.model.as_deref(), Some("tiny"));
    assert_eq!(kept.completion_tokens, Some(2));
    assert!(kept.prompt_tokens > Some(0));
    let receipt = store.receipt(kept.request).unwrap().unwrap();
    assert!(
        receipt.body.contains("\"outcome\":\"broken\""),
        "{}",
        receipt.body
    );
}

#[tokio::test]
async fn a_consumer_who_left_is_named_so_and_so_is_its_charge() {
    let world = world().await;
    let mut provider = world.provider().await;
    let asked = ask(&world);
    let request = provider.accept().await;
    provider.piece(&request, SECRETS[1]).await;
    let stream = asked.await.unwrap();
    let id = stream.request_id().to_owned();
    drop(stream);
    provider.cancelled(&request).await;
    provider.complete(&request, 20, 1).await;
    drop(provider);
    world.drained().await.unwrap();
    holds(
        &line(&id, "request left"),
        &[
            "model=\"tiny\"",
            "outcome=\"left\"",
            "why=\"request_cancelled\"",
        ],
    );
    holds(
        &line(&id, "request finished"),
        &["completion_tokens=1", "status=200", "outcome=\"left\""],
    );
}
