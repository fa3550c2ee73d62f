//! What is sold changes while requests run and machines stay.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use cereus_client::{ChatStream, ClientError};
use cereus_coordinator::questions::{PROVIDERS, RELOAD};
use cereus_coordinator::settings::CatalogSource;
use cereus_coordinator::store::ask_coordinator;
use cereus_core::coordinator::Coordinator;
use cereus_core::journal::{Ending, Reader, replay};
use serde_json::{Value, json};
use support::{MODEL, WAIT, World, api_error, question, settings, text_of};
use tokio::task::JoinHandle;
use tokio::time::timeout;

const OTHER: &str = "other";

fn write_catalog(path: &Path, models: &[Value]) {
    fs::write(path, json!({ "models": models }).to_string()).unwrap();
}

fn ware(id: &str, input: i64) -> Value {
    json!({
        "id": id, "input_micro_usd_per_mtok": input, "output_micro_usd_per_mtok": 200_000,
        "context_tokens": 8_192,
    })
}

/// A coordinator that sells what stands in a file: at first [`MODEL`] alone.
async fn world() -> (World, PathBuf) {
    let mut file = PathBuf::new();
    let world = World::with(|settings| {
        file = settings.data.join("models.json");
        settings.source = CatalogSource {
            models: Vec::new(),
            file: Some(file.clone()),
        };
    })
    .await;
    (world, file)
}

async fn told(world: &World, question: &'static str) -> Value {
    let folder = world.folder.path().to_owned();
    let asked = tokio::task::spawn_blocking(move || ask_coordinator(&folder, question));
    let answer = timeout(WAIT, asked).await.expect("it answers").unwrap();
    let answer = answer.unwrap().expect("a coordinator runs");
    serde_json::from_str(&answer).unwrap()
}

/// What has happened, and to whom.
fn words(answer: &Value) -> Vec<(&str, &str)> {
    let changes = answer["changes"].as_array().expect("nothing is refused");
    let words = changes.iter().map(|change| {
        let text = |field: &str| change[field].as_str().unwrap();
        (text("change"), text("id"))
    });
    words.collect()
}

/// Waits until exactly these models are offered by the one machine.
async fn offers(world: &World, models: &[&str]) {
    let search = async {
        loop {
            let fleet = told(world, PROVIDERS).await;
            let offers = fleet["machines"][0]["models"].as_array().unwrap();
            let names: Vec<&str> = offers.iter().map(|it| it["id"].as_str().unwrap()).collect();
            if names == models {
                return;
            }
        }
    };
    timeout(WAIT, search)
        .await
        .expect("the machine is known to have them");
}

fn ask(world: &World, model: &str) -> JoinHandle<Result<ChatStream, ClientError>> {
    let client = world.client.clone();
    let mut body = question();
    body["model"] = json!(model);
    tokio::spawn(async move { client.chat_stream(&body).await })
}

async fn sold(world: &World) -> Vec<String> {
    let listed = world.client.get("/v1/models").await.unwrap();
    let models = listed["data"].as_array().unwrap().iter();
    models
        .map(|it| it["id"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn models_come_and_go_without_a_reconnect_and_the_journal_replays() {
    let (world, file) = world().await;
    let mut provider = world.join_with(1, 8, &[MODEL, OTHER]).await;
    world.warm(&mut provider).await;
    let error = api_error(ask(&world, OTHER).await.unwrap());
    assert_eq!(error.status, 404, "not sold yet");
    let asked = ask(&world, MODEL);
    let running = provider.accept().await;
    provider.piece(&running, "before").await;
    let mut stream = asked.await.unwrap().unwrap();

    write_catalog(&file, &[ware(MODEL, 50_000), ware(OTHER, 70_000)]);
    let answer = told(&world, RELOAD).await;
    assert!(words(&answer).contains(&("listed", OTHER)), "{answer}");
    assert_eq!(sold(&world).await, [OTHER, MODEL]);
    offers(&world, &[MODEL, OTHER]).await;
    provider.report().await;
    let asked = ask(&world, OTHER);
    let request = provider.accept().await;
    assert_eq!(request.body["model"], OTHER);
    provider.piece(&request, "new").await;
    provider.complete(&request, 20, 3).await;
    let mut new = asked.await.unwrap().unwrap();
    assert_eq!(text_of(&mut new).await.unwrap(), "new");
    let path = format!("/v1/receipts/{}", new.request_id());
    let receipt = world.client.get(&path).await.unwrap();
    assert_eq!(receipt["model"], OTHER);
    assert_eq!(receipt["price_micro_usd_per_mtok"]["input"], 70_000);

    write_catalog(&file, &[ware(OTHER, 90_000)]);
    let answer = told(&world, RELOAD).await;
    assert_eq!(words(&answer), [("retired", MODEL), ("priced", OTHER)]);
    assert_eq!(sold(&world).await, [OTHER]);
    let error = api_error(ask(&world, MODEL).await.unwrap());
    assert_eq!(error.status, 404);
    provider.piece(&running, " and after").await;
    provider.complete(&running, 20, 3).await;
    assert_eq!(text_of(&mut stream).await.unwrap(), "before and after");
    let path = format!("/v1/receipts/{}", stream.request_id());
    let receipt = world.client.get(&path).await.unwrap();
    assert_eq!(receipt["model"], MODEL, "it keeps its name");
    // What is withdrawn is gone with the first report after its last answer.
    provider.report().await;
    offers(&world, &[OTHER]).await;

    let answer = told(&world, RELOAD).await;
    assert_eq!(words(&answer), []);

    let journal = world.running.journal().to_owned();
    let _folder = world.drained().await.unwrap();
    let bytes = fs::read(&journal).unwrap();
    let mut reader = Reader::open(&bytes).unwrap();
    let mut coordinator = Coordinator::new(reader.config().clone());
    let report = replay(&mut reader, &mut coordinator);
    assert!(report.is_faithful(), "{report:?}");
    assert_eq!(report.ending, Ending::Closed);
    assert!(coordinator.catalog().find(MODEL).is_none());
    assert!(coordinator.catalog().find(OTHER).is_some());
}

#[tokio::test]
async fn a_file_that_is_not_right_changes_nothing_and_is_told_why() {
    let (world, file) = world().await;
    let cases = [
        ("{", "is not right"),
        (r#"{"models":[]}"#, "lists no model"),
        (
            r#"{"models":[{"id":"tiny","input_micro_usd_per_mtok":-1,"output_micro_usd_per_mtok":1}]}"#,
            "below zero",
        ),
    ];
    let refused = |answer: &Value| answer["refused"].as_str().unwrap().to_owned();
    let answer = told(&world, RELOAD).await;
    assert!(refused(&answer).contains("cannot read"), "{answer}");
    for (text, part) in cases {
        fs::write(&file, text).unwrap();
        let answer = told(&world, RELOAD).await;
        assert!(refused(&answer).contains(part), "{answer}");
    }
    write_catalog(&file, &[ware(OTHER, 1), ware(OTHER, 2)]);
    let answer = told(&world, RELOAD).await;
    assert!(refused(&answer).contains("listed twice"), "{answer}");
    assert_eq!(sold(&world).await, [MODEL]);
}

#[tokio::test]
async fn models_of_the_command_line_stay_and_without_a_file_there_is_nothing_to_read() {
    let mut file = PathBuf::new();
    let world = World::with(|settings| {
        file = settings.data.join("models.json");
        settings.source.file = Some(file.clone());
    })
    .await;
    write_catalog(&file, &[ware(OTHER, 1)]);
    let answer = told(&world, RELOAD).await;
    assert_eq!(words(&answer), [("listed", OTHER)]);
    write_catalog(&file, &[]);
    let answer = told(&world, RELOAD).await;
    assert_eq!(words(&answer), [("retired", OTHER)]);
    assert_eq!(sold(&world).await, [MODEL]);

    let world = World::new().await;
    assert!(settings(world.folder.path()).source.file.is_none());
    let answer = told(&world, RELOAD).await;
    let why = answer["refused"].as_str().unwrap();
    assert!(why.contains("--model-catalog FILE"), "{why}");
}
