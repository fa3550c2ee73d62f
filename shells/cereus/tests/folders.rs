//! `cereus local` on folders that are not as they should be, and on requests that the model lacks
//! something for.
#![cfg(feature = "mlx")]

mod support;

use std::fs;
use std::io::{BufRead as _, Read as _};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::{CHAT, Local, TINY, question};
use tempfile::TempDir;

const COMPLETIONS: &str = "/v1/completions";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

fn parsed(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The tiny model with another chat template, or with none.
fn tiny_with_template(template: Option<&str>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        let file = Path::new(TINY).join(name);
        std::os::unix::fs::symlink(file, folder.path().join(name)).unwrap();
    }
    let mut texts = parsed(&Path::new(TINY).join(TOKENIZER_CONFIG));
    texts["chat_template"] = json!(template);
    fs::write(folder.path().join(TOKENIZER_CONFIG), texts.to_string()).unwrap();
    folder
}

/// A server on the folder, and what it warned of until it served.
fn started(folder: &TempDir) -> (Local, String) {
    let log = folder.path().join("log");
    let named = folder.path().to_str().unwrap();
    let local = Local::start_telling(&[named], fs::File::create(&log).unwrap());
    (local, fs::read_to_string(log).unwrap())
}

#[test]
fn a_folder_without_a_chat_template_serves_completions_and_refuses_chats_in_words() {
    let folder = tiny_with_template(None);
    let (local, warned) = started(&folder);
    assert!(warned.contains("no chat template"), "{warned}");
    let prompt = json!({"prompt": "What is 2 + 3?", "max_tokens": 4, "ignore_eos": true});
    let answer = local.post(COMPLETIONS, &prompt);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["usage"]["completion_tokens"], 4);
    for stream in [false, true] {
        let refused = local.post(CHAT, &question(stream));
        assert_eq!(refused.status, 400, "{}", refused.body);
        let error = &refused.json()["error"];
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("no chat template"), "{message}");
        assert!(message.contains(COMPLETIONS), "{message}");
    }
    local.interrupt();
    assert_eq!(local.end(), Some(0));

    let measured = Command::new(env!("CARGO_BIN_EXE_cereus"))
        .args(["benchmark", "--rows", "1", "--prompt", "8", "--new", "8"])
        .args(["--iterations", "1", "--json"])
        .arg(folder.path())
        .output()
        .unwrap();
    let complained = String::from_utf8_lossy(&measured.stderr);
    assert!(measured.status.success(), "{complained}");
}

#[test]
fn a_template_that_the_doctor_rejects_is_told_at_start() {
    let folder = tiny_with_template(Some("{{ messages[0].nothing.at.all }}"));
    let doctor = Command::new(env!("CARGO_BIN_EXE_cereus"))
        .arg("doctor")
        .arg(folder.path())
        .output()
        .unwrap();
    let found = String::from_utf8_lossy(&doctor.stdout);
    assert!(found.contains("on a plain chat"), "{found}");
    let (local, warned) = started(&folder);
    assert!(warned.contains("fails its self-check"), "{warned}");
    assert!(warned.contains("on a plain chat"), "{warned}");
    drop(local);
    let (_local, warned) = started(&tiny_with_template(Some(
        "{% for message in messages %}{{ message.content }}{% endfor %}",
    )));
    assert_eq!(warned, "");
}

/// What a start on this path ends with.
fn complaint(path: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_cereus"))
        .args(["local", "--listen", "127.0.0.1:0"])
        .arg(path)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(output.stdout, b"", "it never served");
    said
}

#[test]
fn what_is_no_model_for_this_engine_is_named_for_what_it_is() {
    let root = tempfile::tempdir().unwrap();
    let folder = |name: &str, files: &[(&str, &[u8])]| {
        let folder = root.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in files {
            fs::write(folder.join(name), bytes).unwrap();
        }
        folder
    };
    let config = parsed(&Path::new(TINY).join("config.json"));
    let tokenizer = fs::read(Path::new(TINY).join("tokenizer.json")).unwrap();
    let plain = config.to_string();
    for method in ["gptq", "awq"] {
        let mut config = config.clone();
        config["quantization_config"] = json!({"quant_method": method, "bits": 4});
        let config = config.to_string();
        let files = [
            ("config.json", config.as_bytes()),
            ("tokenizer.json", &tokenizer),
            ("model.safetensors", b""),
        ];
        let said = complaint(&folder(method, &files));
        assert!(said.contains(&format!("quant_method {method}")), "{said}");
        assert!(said.contains("converted for MLX"), "{said}");
    }

    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 3483866\n";
    let files = [
        ("config.json", plain.as_bytes()),
        ("tokenizer.json", &tokenizer),
        ("model.safetensors", pointer),
    ];
    let said = complaint(&folder("pointer", &files));
    assert!(said.contains("model.safetensors is a pointer"), "{said}");
    assert!(said.contains("git lfs pull"), "{said}");

    let gguf = folder("foreign", &[("it-Q4_K_M.gguf", b"GGUF")]);
    for path in [gguf.join("it-Q4_K_M.gguf"), gguf] {
        let said = complaint(&path);
        assert!(said.contains("a GGUF file"), "{said}");
        assert!(said.contains("safetensors"), "{said}");
    }

    let said = complaint(&folder("models--acme--absent", &[]));
    assert!(said.contains("without a snapshot"), "{said}");
    assert!(said.contains("hf download"), "{said}");
}

#[test]
fn a_token_that_the_model_lacks_is_refused_by_the_field_that_names_it() {
    let local = Local::start(&[TINY]);
    let vocab_size = parsed(&Path::new(TINY).join("config.json"))["vocab_size"]
        .as_u64()
        .unwrap();
    let asked = |body: &Value, token: u64| {
        let mut body = body.clone();
        body["logit_bias"] = json!({ token.to_string(): 1 });
        body["max_tokens"] = json!(1);
        body
    };
    let prompt = json!({"prompt": "What is 2 + 3?"});
    for (path, body) in [(CHAT, question(false)), (COMPLETIONS, prompt)] {
        let refused = local.post(path, &asked(&body, vocab_size));
        assert_eq!(refused.status, 400, "{}", refused.body);
        let error = &refused.json()["error"];
        assert_eq!(error["param"], "logit_bias", "{error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("logit_bias"), "{message}");
        let taken = local.post(path, &asked(&body, vocab_size - 1));
        assert_eq!(taken.status, 200, "{}", taken.body);
    }
    local.interrupt();
    assert_eq!(local.end(), Some(0));
}

#[test]
fn eight_megabytes_are_refused_and_take_nothing_from_a_stream() {
    let local = Local::start(&[TINY]);
    let mut endless = question(true);
    endless["max_tokens"] = json!(1_900);
    endless["ignore_eos"] = json!(true);
    endless["stream_options"] = json!({"include_usage": true});
    let mut stream = local.ask(&endless);
    let mut text = String::new();
    while !text.contains("data: ") {
        assert_ne!(stream.read_line(&mut text).unwrap(), 0, "{text}");
    }
    let mut long = question(false);
    long["messages"][0]["content"] = json!("word ".repeat((8 << 20) / 5));
    let refused = local.post(CHAT, &long);
    assert_eq!(refused.status, 400, "{}", refused.body);
    let error = &refused.json()["error"];
    assert_eq!(error["code"], "context_length_exceeded", "{error}");
    stream.read_to_string(&mut text).unwrap();
    assert!(text.contains(r#""completion_tokens":1900"#), "cut short");
    assert!(text.trim_end().ends_with("data: [DONE]"), "cut short");
    local.interrupt();
    assert_eq!(local.end(), Some(0));
}

#[test]
fn a_repository_of_the_hubs_cache_is_served_under_its_name() {
    let cache = tempfile::tempdir().unwrap();
    let repository = cache.path().join("models--acme--tiny");
    fs::create_dir_all(repository.join("snapshots")).unwrap();
    std::os::unix::fs::symlink(TINY, repository.join("snapshots/0a")).unwrap();
    let local = Local::start(&[repository.to_str().unwrap(), "--key", "sesame"]);
    let answer = local.post(CHAT, &question(false)).json();
    assert_eq!(answer["model"], "acme/tiny");
    local.interrupt();
    assert_eq!(local.end(), Some(0));
}
