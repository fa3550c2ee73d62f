//! `cereus local` as a person runs it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

/// A server process; killed if a test fails half-way.
struct Local {
    child: Child,
    out: BufReader<ChildStdout>,
    addr: String,
}

impl Drop for Local {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Local {
    fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cereus"))
            .args(["local", "--listen", "127.0.0.1:0", "--json"])
            .args(args)
            .env_remove("CEREUS_LOCAL_KEY")
            .env("CEREUS_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        let address = said["listening"].as_str().unwrap();
        let addr = address.strip_prefix("http://").unwrap().to_owned();
        Self { child, out, addr }
    }

    fn ask(&self, body: &Value) -> BufReader<TcpStream> {
        let body = body.to_string();
        let mut stream = TcpStream::connect(&self.addr).unwrap();
        write!(
            stream,
            "POST /v1/chat/completions HTTP/1.0\r\nhost: {}\r\nauthorization: Bearer sesame\r\n\
             content-length: {}\r\n\r\n{body}",
            self.addr,
            body.len()
        )
        .unwrap();
        BufReader::new(stream)
    }

    fn interrupt(&self) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-INT", &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Its exit status, and that it said nothing after its one line.
    fn end(mut self) -> Option<i32> {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
        self.child.wait().unwrap().code()
    }
}

fn question(stream: bool) -> Value {
    json!({"messages": [{"role": "user", "content": "What is Cereus?"}], "stream": stream,
        "temperature": 0, "max_tokens": 200})
}

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

#[cfg(feature = "mlx")]
#[test]
fn the_tiny_model_answers_here_as_it_does_in_the_demo() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../engine/models/tiny");
    let local = Local::start(&[folder, "--key", "sesame"]);
    let mut text = String::new();
    local
        .ask(&question(false))
        .read_to_string(&mut text)
        .unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 "), "{head}");
    let answer: Value = serde_json::from_str(body).unwrap();
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
    let mut text = String::new();
    local.ask(&structured).read_to_string(&mut text).unwrap();
    let answer: Value = serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
    let content = answer["choices"][0]["message"]["content"].as_str().unwrap();
    let content: Value = serde_json::from_str(content).unwrap();
    assert!(content["ok"].is_boolean(), "{content}");
    structured["response_format"]["json_schema"]["schema"] = json!({"not": {}});
    let mut text = String::new();
    local.ask(&structured).read_to_string(&mut text).unwrap();
    assert!(text.contains(" 400 ") && text.contains("`not`"), "{text}");

    local.interrupt();
    assert_eq!(local.end(), Some(0));
}

/// What one life of the server answers to one question, and how much of it was found.
#[cfg(feature = "mlx")]
fn life(args: &[&str], question: &Value) -> (String, u64) {
    let local = Local::start(args);
    let mut text = String::new();
    local.ask(question).read_to_string(&mut text).unwrap();
    local.interrupt();
    assert_eq!(local.end(), Some(0));
    let answer: Value = serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
    let cached = &answer["usage"]["prompt_tokens_details"]["cached_tokens"];
    let content = answer["choices"][0]["message"]["content"].as_str();
    (content.unwrap().to_owned(), cached.as_u64().unwrap_or(0))
}

#[cfg(feature = "mlx")]
#[test]
fn a_long_prompt_outlives_a_restart_with_a_cache_folder() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../engine/models/tiny");
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let (cache, data) = (path("cache"), path("data"));
    let args = [
        folder, "--key", "sesame", "--cache", &cache, "--data", &data,
    ];
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
        folder,
        "--key",
        "sesame",
        "--cache",
        &cache,
        "--data",
        &path("other"),
    ];
    assert_eq!(life(&args, &question), (first, 0));
}

#[cfg(feature = "mlx")]
#[test]
fn a_repository_of_the_hubs_cache_is_served_under_its_name() {
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/../../engine/models/tiny");
    let cache = tempfile::tempdir().unwrap();
    let repository = cache.path().join("models--acme--tiny");
    std::fs::create_dir_all(repository.join("snapshots")).unwrap();
    std::os::unix::fs::symlink(tiny, repository.join("snapshots/0a")).unwrap();
    let local = Local::start(&[repository.to_str().unwrap(), "--key", "sesame"]);
    let mut text = String::new();
    local
        .ask(&question(false))
        .read_to_string(&mut text)
        .unwrap();
    let answer: Value = serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(answer["model"], "acme/tiny");
    local.interrupt();
    assert_eq!(local.end(), Some(0));
}
