//! `cereus local` as a person runs it.

mod support;

use std::io::{BufRead as _, Read as _};
use std::net::TcpStream;

#[cfg(feature = "mlx")]
use serde_json::{Value, json};
#[cfg(feature = "mlx")]
use support::{CHAT, TINY};
use support::{Local, question, whole};

#[test]
fn an_interrupt_lets_a_running_answer_finish_and_ends_well() {
    let local = Local::start(&["--echo", "--echo-pieces", "40", "--echo-pause-ms", "10"]);
    let mut reader = local.ask(&question(true));
    let mut text = String::new();
    while !text.contains("echo") {
        assert_ne!(reader.read_line(&mut text).unwrap(), 0, "{text}");
    }
    local.interrupt();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text.matches("echo ").count(), 40);
    assert!(text.trim_end().ends_with("data: [DONE]"), "{text}");
    assert_eq!(local.end(), Some(0));
}

#[test]
fn a_second_interrupt_waits_for_nothing() {
    let local = Local::start(&[
        "--echo",
        "--echo-pieces",
        "1000000",
        "--echo-pause-ms",
        "10",
    ]);
    let mut reader = local.ask(&question(true));
    let mut text = String::new();
    while !text.contains("echo") {
        assert_ne!(reader.read_line(&mut text).unwrap(), 0, "{text}");
    }
    local.interrupt();
    while TcpStream::connect(&local.addr).is_ok() {}
    local.interrupt();
    assert_eq!(local.end(), Some(1));
}

#[test]
fn a_chat_that_wants_a_receipt_hears_that_none_is_kept_here_and_has_its_answer() {
    let local = Local::start(&["--echo", "--echo-pieces", "3"]);
    let address = format!("http://{}", local.addr);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_cereus"))
        .args([
            "chat",
            "--coordinator",
            &address,
            "--key",
            "k",
            "--model",
            "echo",
        ])
        .args(["--max-tokens", "-1", "--receipt", "hi"])
        .output()
        .unwrap();
    let complained = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{complained}");
    assert!(complained.contains("keeps no receipts"), "{complained}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("echo"));
}

/// The status of a look at the health, and whether a page of `origin` may read it.
fn look(local: &Local, host: &str, origin: Option<&str>) -> (u16, bool) {
    let mut headers = vec![format!("host: {host}")];
    headers.extend(origin.map(|origin| format!("origin: {origin}")));
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    let reply = whole(local.send("GET", "/health", &headers, ""));
    let allowed = reply.head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("access-control-allow-origin")
            .then_some(value)
    });
    let may_read = origin.is_some() && allowed.is_some_and(|it| it == "*" || Some(it) == origin);
    (reply.status, may_read)
}

#[test]
fn the_names_and_pages_that_an_option_allows_are_let_in_and_no_others() {
    let (chat, other) = (Some("https://chat.example"), Some("https://other.example"));
    let bare = Local::start(&["--echo"]);
    assert_eq!(look(&bare, "localhost", None), (200, false));
    assert_eq!(look(&bare, "mac.lan", None), (403, false));
    assert_eq!(look(&bare, "localhost", chat), (403, false));
    let options = [
        "--echo",
        "--allow-host",
        "mac.lan",
        "--allow-host",
        "mac.local",
        "--allow-origin",
        "https://chat.example",
    ];
    let told = Local::start(&options);
    for host in ["mac.lan:8080", "mac.local"] {
        assert_eq!(look(&told, host, chat), (200, true), "{host}");
    }
    assert_eq!(look(&told, "evil.example", None), (403, false));
    assert_eq!(look(&told, "localhost", other), (403, false));
    let open = Local::start(&["--echo", "--allow-origin", "*"]);
    assert_eq!(look(&open, "localhost", other), (200, true));
}

#[cfg(feature = "mlx")]
#[test]
fn the_tiny_model_answers_here_as_it_does_in_the_demo() {
    let local = Local::start(&[TINY, "--key", "sesame"]);
    let reply = local.post(CHAT, &question(false));
    assert_eq!(reply.status, 200, "{}", reply.body);
    let answer = reply.json();
    assert_eq!(answer["model"], "tiny");
    let content = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(
        content.starts_with("Cereus is a decentralised private inference network"),
        "{content}"
    );
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");

    let mut structured = question(false);
    structured["response_format"] = json!({"type": "json_schema", "json_schema": {"schema": {
        "type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"],
        "additionalProperties": false}}});
    let answer = local.post(CHAT, &structured).json();
    let content = answer["choices"][0]["message"]["content"].as_str().unwrap();
    let content: Value = serde_json::from_str(content).unwrap();
    assert!(content["ok"].is_boolean(), "{content}");
    structured["response_format"]["json_schema"]["schema"] = json!({"not": {}});
    let refused = local.post(CHAT, &structured);
    assert_eq!(refused.status, 400);
    assert!(refused.body.contains("`not`"), "{}", refused.body);

    local.interrupt();
    assert_eq!(local.end(), Some(0));
}

/// What one life of the server answers to one question, and how much of it was found.
#[cfg(feature = "mlx")]
fn life(args: &[&str], question: &Value) -> (String, u64) {
    let local = Local::start(args);
    let answer = local.post(CHAT, question).json();
    local.interrupt();
    assert_eq!(local.end(), Some(0));
    let cached = &answer["usage"]["prompt_tokens_details"]["cached_tokens"];
    let content = answer["choices"][0]["message"]["content"].as_str();
    (content.unwrap().to_owned(), cached.as_u64().unwrap_or(0))
}

#[cfg(feature = "mlx")]
#[test]
fn a_long_prompt_outlives_a_restart_with_a_cache_folder() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let (cache, data) = (path("cache"), path("data"));
    let args = [TINY, "--key", "sesame", "--cache", &cache, "--data", &data];
    let words = "The lantern was moved to the harbour because the cellar was full. ".repeat(45);
    let mut question = question(false);
    question["messages"][0]["content"] = json!(format!("{words}What is Cereus?"));
    question["max_tokens"] = json!(20);
    let (first, cached) = life(&args, &question);
    assert_eq!(cached, 0);
    let (again, cached) = life(&args, &question);
    assert_eq!(again, first);
    assert!(cached >= 1_024, "{cached}");
    // Without its key a cache is none.
    let args = [
        TINY,
        "--key",
        "sesame",
        "--cache",
        &cache,
        "--data",
        &path("other"),
    ];
    assert_eq!(life(&args, &question), (first, 0));
}
