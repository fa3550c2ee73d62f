//! Several models on one machine, over a real socket: what is loaded, what goes, and what is said.

mod support;

use std::time::Duration;

use cereus_provider::{Preload, ProviderError, serve};
use serde_json::Value;
use support::{World, echo, settings};
use tokio::sync::watch;

const AT_ONCE: Duration = Duration::ZERO;

fn slot<'v>(capacity: &'v Value, model: &str) -> &'v Value {
    let slots = capacity["slots"].as_array().unwrap();
    slots.iter().find(|slot| slot["model"] == *model).unwrap()
}

#[tokio::test]
async fn models_are_loaded_when_asked_for_and_the_longest_idle_one_goes_first() {
    // 7 + 7 + 3 + 1 GiB are below the cap of 21.6; a third model is not.
    let models = ["a", "b", "c"].map(|id| echo(id, 7, AT_ONCE)).to_vec();
    let mut world = World::new(settings(24, models)).await;
    let first = world.capacity(&[]).await;
    assert_eq!(first["slots"], Value::Array(vec![]), "nothing is loaded");
    for model in ["a", "b", "a", "c"] {
        let end = world.answer(model).await;
        assert_eq!(end["type"], "inference_complete", "{end}");
        assert_eq!(end["usage"]["completion_tokens"], 6);
    }
    let states = [("a", "idle"), ("b", "idle_shutdown"), ("c", "idle")];
    let capacity = world.capacity(&states).await;
    assert_eq!(world.moves(), ["+a", "+b", "-b", "+c"]);
    let (a, b) = (slot(&capacity, "a"), slot(&capacity, "b"));
    assert_eq!(
        (&a["admits"], &a["first_tokens_emitted"]),
        (&2.into(), &2.into())
    );
    assert!(a["seconds_since_last_first_token"].as_f64() > Some(0.0));
    assert!(a["active_token_budget_max"].as_u64() > Some(0));
    assert_eq!(a["max_concurrency"], 4);
    assert!(b["admits"].is_null() && b["active_token_budget_max"].is_null());
    world.end().await;
}

#[tokio::test]
async fn a_load_without_room_is_refused_with_the_reason_until_there_is_room() {
    let slow = Duration::from_millis(300);
    let models = vec![echo("a", 5, slow), echo("b", 6, AT_ONCE)];
    let mut world = World::new(settings(16, models)).await;
    let long = world.ask("a").await;
    world.began(&long).await;
    let refused = world.ask("b").await;
    // The first word about it: what is turned away was never accepted.
    let end = world.hear(|frame| frame["request_id"] == *refused).await;
    assert_eq!(
        (&end["status_code"], &end["error_reason"]),
        (&503.into(), &"model_load".into()),
        "{end}"
    );
    let why = "insufficient memory (a cap of 14.0 GB, need 15.0 GB with the reserves) and all \
               loaded models are actively serving";
    assert_eq!(end["error"], why);
    let status = world.order("b").await;
    assert_eq!(
        (&status["status"], &status["error"]),
        (&"failed".into(), &why.into())
    );
    assert_eq!(world.end_of(&long).await["type"], "inference_complete");
    assert_eq!(world.order("b").await["status"], "succeeded");
    world
        .capacity(&[("a", "idle_shutdown"), ("b", "idle")])
        .await;
    assert_eq!(world.moves(), ["+a", "-a", "+b"]);
    world.end().await;
}

#[tokio::test]
async fn a_model_that_nobody_uses_leaves_and_comes_back() {
    let mut settings = settings(16, vec![echo("a", 1, AT_ONCE)]);
    settings.memory.idle_wait = Duration::from_millis(50);
    let mut world = World::new(settings).await;
    for _ in 0..2 {
        assert_eq!(world.answer("a").await["type"], "inference_complete");
        world.capacity(&[("a", "idle_shutdown")]).await;
    }
    // The last one is on its way out when it is told.
    assert_eq!(world.moves()[..3], ["+a", "-a", "+a"]);
    world.end().await;
}

#[tokio::test]
async fn a_request_that_is_cancelled_while_its_model_loads_ends_once() {
    let slow = Duration::from_millis(200);
    let models = vec![echo("a", 5, slow), echo("b", 5, AT_ONCE)];
    let mut world = World::new(settings(16, models)).await;
    let asked = [world.ask("a").await, world.ask("a").await];
    for id in &asked {
        world.cancel(id).await;
    }
    for id in &asked {
        let end = world.end_of(id).await;
        let is_refused = end["status_code"] == 499;
        assert!(is_refused || end["type"] == "inference_complete", "{end}");
    }
    // The slot is free again.
    assert_eq!(world.answer("b").await["type"], "inference_complete");
    world.end().await;
}

#[tokio::test]
async fn what_fits_is_loaded_at_the_start_and_a_machine_for_nothing_does_not_start() {
    let models = vec![echo("a", 5, AT_ONCE), echo("b", 50, AT_ONCE)];
    let mut loading = settings(16, models);
    loading.preload = Preload::Fitting;
    let mut world = World::new(loading).await;
    assert_eq!(world.moves(), ["+a"]);
    let end = world.answer("b").await;
    assert_eq!(end["error_reason"], "model_load");
    // It could never help, so nothing went.
    assert_eq!(world.moves(), [""; 0]);
    world.end().await;

    let data = tempfile::tempdir().unwrap();
    let mut hopeless = settings(16, vec![echo("b", 50, AT_ONCE)]);
    hopeless.preload = Preload::Fitting;
    hopeless.coordinator = "http://127.0.0.1:9".to_owned();
    hopeless.data = data.path().to_owned();
    let (_drain, asked) = watch::channel(false);
    let error = serve(hopeless, asked, |_| {}).await.unwrap_err();
    assert!(matches!(error, ProviderError::NothingLoaded(_)));
    let text = error.to_string();
    assert!(
        text.contains("b: insufficient memory") && text.contains("doctor"),
        "{text}"
    );
}

#[cfg(feature = "mlx")]
mod folders {
    use std::fs;
    use std::path::Path;

    use cereus_provider::{Backend, ModelSource};

    use super::*;

    fn folder(id: &str, folder: &Path) -> ModelSource {
        ModelSource {
            id: id.to_owned(),
            backend: Backend::Model(folder.to_owned()),
        }
    }

    #[tokio::test]
    async fn a_model_whose_template_fails_is_not_offered() {
        let broken = tempfile::tempdir().unwrap();
        let lay = |name: &str, text: &str| fs::write(broken.path().join(name), text).unwrap();
        lay(
            "config.json",
            r#"{"model_type":"llama","hidden_size":64,"intermediate_size":128,
            "num_hidden_layers":2,"num_attention_heads":4,"vocab_size":32,"rms_norm_eps":1e-5}"#,
        );
        lay("model.safetensors", "nobody reads this");
        lay("chat_template.jinja", "{{ messages[0].nothing.at.all }}");
        let models = vec![folder("broken", broken.path()), echo("sound", 1, AT_ONCE)];
        let mut loading = settings(16, models);
        loading.preload = Preload::Fitting;
        let mut world = World::new(loading).await;
        let told = &world.register["models"];
        assert_eq!(told[0]["template_render_ok"], false);
        assert_eq!(told[1]["template_render_ok"], true);
        let moves = world.moves();
        assert!(
            moves[0].starts_with("!broken chat_template.jinja, on a plain chat: "),
            "{moves:?}"
        );
        assert_eq!(moves[1..], ["+sound"]);
        let status = world.order("broken").await;
        assert_eq!(status["status"], "failed");
        assert!(
            status["error"].as_str().unwrap().contains("self-check"),
            "{status}"
        );
        let end = world.answer("broken").await;
        assert_eq!(
            (&end["status_code"], &end["error_reason"]),
            (&500.into(), &"model_load".into())
        );
        assert_eq!(world.answer("sound").await["type"], "inference_complete");
        world.end().await;
    }

    /// A copy that a test may touch.
    fn tiny() -> tempfile::TempDir {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../engine/models/tiny");
        let copy = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(source).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        copy
    }

    #[tokio::test]
    async fn two_real_models_compute_side_by_side_as_each_does_alone() {
        let (one, two) = (tiny(), tiny());
        let models = vec![folder("one", one.path()), folder("two", two.path())];
        let mut loading = settings(16, models);
        loading.preload = Preload::Fitting;
        let mut world = World::new(loading).await;
        let alone = world.answer("one").await["usage"].take();
        assert!(alone["completion_tokens"].as_u64() > Some(4), "{alone}");
        for _ in 0..8 {
            let mut asked = vec![];
            for model in ["one", "two", "two", "one"] {
                asked.push(world.ask(model).await);
            }
            for end in world.ends_of(&asked).await {
                assert_eq!(end["usage"], alone, "{end}");
            }
        }
        let capacity = world.capacity(&[("one", "idle"), ("two", "idle")]).await;
        for model in ["one", "two"] {
            let slot = slot(&capacity, model);
            assert!(slot["observed_decode_tps"].as_f64() > Some(0.0), "{slot}");
            assert!(slot["observed_prefill_tps"].as_f64() > Some(0.0), "{slot}");
            assert!(slot["kv_bytes_per_token"].as_u64() > Some(0), "{slot}");
        }
        world.end().await;
    }

    #[tokio::test]
    async fn a_real_model_is_hashed_when_it_is_loaded_and_refused_when_it_changed() {
        let model = tiny();
        let models = vec![folder("tiny", model.path()), echo("other", 1, AT_ONCE)];
        let mut settings = settings(16, models);
        settings.memory.slots_max = 1;
        let mut world = World::new(settings).await;
        let told = &world.register["models"][0];
        assert!(
            told["weight_hash"].is_null() && told["template_render_ok"] == true,
            "{told}"
        );
        assert!(world.challenge().await["model_hashes"].is_null());
        assert_eq!(world.answer("tiny").await["type"], "inference_complete");
        let hash = cereus_provider::weights::weight_hash(model.path()).unwrap();
        assert_eq!(world.challenge().await["model_hashes"]["tiny"], hash);
        assert_eq!(world.answer("other").await["type"], "inference_complete");
        let config = model.path().join("generation_config.json");
        fs::write(config, "{}").unwrap();
        let end = world.answer("tiny").await;
        assert_eq!(end["status_code"], 500);
        assert!(
            end["error"]
                .as_str()
                .unwrap()
                .contains("restart the provider"),
            "{end}"
        );
        world.end().await;
    }
}

#[tokio::test]
async fn a_request_that_waits_for_its_model_is_accepted() {
    let mut world = World::new(settings(16, vec![echo("a", 1, AT_ONCE)])).await;
    let id = world.ask("a").await;
    let is_accepted =
        |frame: &Value| frame["type"] == "inference_accepted" && frame["request_id"] == *id;
    world.hear(is_accepted).await;
    assert_eq!(world.end_of(&id).await["type"], "inference_complete");
    world.end().await;
}

/// The weights are hashed when they are loaded, which is after the registration.
#[cfg(feature = "mlx")]
#[tokio::test]
async fn the_hash_of_weights_is_told_when_it_is_known() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../engine/models/tiny");
    let model = cereus_provider::ModelSource {
        id: "tiny".to_owned(),
        backend: cereus_provider::Backend::Model(folder.into()),
    };
    let mut world = World::new(settings(16, vec![model, echo("a", 1, AT_ONCE)])).await;
    assert!(world.register["models"][0]["weight_hash"].is_null());
    world.ask("tiny").await;
    let update = world.hear(|frame| frame["type"] == "models_update").await;
    let models = update["models"].as_array().unwrap();
    let ids: Vec<_> = models.iter().map(|model| &model["id"]).collect();
    assert_eq!(ids, ["tiny", "a"]);
    let hash = models[0]["weight_hash"].as_str().unwrap();
    assert!(hash.len() == 64 && hash.bytes().all(|it| it.is_ascii_hexdigit()));
    let answer = world.challenge().await;
    assert_eq!(answer["model_hashes"]["tiny"], hash);
    world.end().await;
}
