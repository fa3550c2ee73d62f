//! A network as its operator runs it: every program a process of its own, as README.md says.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Nothing here takes long; a test that waits this long has failed.
const WAIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cereus"));
    command.args(args).env_remove("CEREUS_API_KEY");
    command
        .env_remove("CEREUS_EARN_KEY")
        .env("CEREUS_LOG", "info");
    command
}

/// What a command that ends says; it must end well.
fn said(args: &[&str]) -> String {
    let output = command(args).output().unwrap();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {complained}");
    String::from_utf8(output.stdout).unwrap()
}

fn lines(args: &[&str]) -> Vec<Value> {
    let said = said(args);
    said.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A program that runs until it is dropped.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
    log: Arc<Mutex<String>>,
}

impl Running {
    fn start(args: &[&str]) -> Self {
        let mut child = command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let errors = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&log);
        thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                *shared.lock().unwrap() += &(line + "\n");
            }
        });
        Self { child, out, log }
    }

    /// The rest of the first line that begins so.
    fn line(&mut self, start: &str) -> String {
        loop {
            let mut line = String::new();
            let count = self.out.read_line(&mut line).unwrap();
            assert!(count > 0, "it ended without `{start}`:\n{}", self.log());
            if let Some(rest) = line.trim_end().strip_prefix(start) {
                return rest.to_owned();
            }
        }
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    fn logs(&self, part: &str) {
        let log = until(|| Some(self.log()).filter(|log| log.contains(part)));
        assert!(log.is_some(), "`{part}` is missing in:\n{}", self.log());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until<T>(mut found: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    while begun.elapsed() < WAIT {
        if let Some(found) = found() {
            return Some(found);
        }
        thread::sleep(PAUSE);
    }
    None
}

/// A coordinator with a folder, and an account `me` with five dollars.
struct Network {
    folder: TempDir,
    coordinator: Running,
    address: String,
    key: String,
}

impl Network {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let data = data.to_str().unwrap();
        let key = said(&[
            "key",
            "create",
            "--data",
            data,
            "--account",
            "me",
            "--credit",
            "5",
            "--quiet",
        ]);
        let mut coordinator = Running::start(&[
            "coordinator",
            "--data",
            data,
            "--model",
            "tiny:50000:200000:2048",
            "--listen",
            "0",
            "--metrics-listen",
            "0",
        ]);
        let address = coordinator.line("listening on ");
        Self {
            key: key.trim().to_owned(),
            folder,
            coordinator,
            address,
        }
    }

    fn at(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        path.to_str().unwrap().to_owned()
    }

    fn provider(&self, name: &str, more: &[&str]) -> Running {
        let data = self.at(name);
        let base = ["provider", "--coordinator", &self.address, "--data", &data];
        Running::start(&[&base, more].concat())
    }

    /// The machine of that name, once it is as wanted.
    fn machine(&self, machine: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let data = self.at("data");
        let list = ["providers", "--data", &data, "--json"];
        let found = until(|| {
            let mut listed = lines(&list).into_iter();
            listed.find(|one| one["machine"] == machine && is_wanted(one))
        });
        found.unwrap_or_else(|| panic!("not among {:?}", lines(&list)))
    }
}

#[test]
fn an_operator_sees_each_machine_and_why_one_gets_nothing() {
    let network = Network::new();
    let data = network.at("data");
    let nobody = said(&["providers", "--data", &data]);
    assert!(nobody.contains("cereus provider --coordinator"), "{nobody}");

    let earn = ["--earn-key", &network.key];
    let echo = ["--echo", "--model-id", "tiny", "--concurrency", "3"];
    let mut works = network.provider("works", &[&echo[..], &earn].concat());
    let mut idle = network.provider("idle", &["--echo", "--model-id", "acme/tiny"]);
    let machine = works.line("machine ");
    let working = network.machine(&machine, |one| one["models"][0]["why_nothing"].is_null());
    assert_eq!(working["account"], "me");
    assert_eq!(working["trust"], "self_signed");
    assert_eq!(working["verified"], true);
    assert_eq!(working["serves"], "everybody");
    assert_eq!(working["requests"], 0);
    assert_eq!(working["models"][0]["id"], "tiny");
    assert_eq!(working["models"][0]["rows_max"], 3);

    let why = "none of the models that it can serve is sold here";
    let machine = idle.line("machine ");
    let idling = network.machine(&machine, |_| true);
    assert_eq!(idling["why_nothing"], why);
    assert_eq!(idling["account"], "unlinked-machines");
    assert_eq!(idling["models"], Value::Array(Vec::new()));
    idle.line("idle: ");
    idle.logs("acme/tiny");
    network.coordinator.logs(why);
    network.coordinator.logs("acme/tiny");

    let table = said(&["providers", "--data", &data]);
    assert!(table.starts_with("MACHINE"), "{table}");
    assert!(table.contains("0/3"), "{table}");
    assert!(table.contains("open, "), "{table}");
    assert!(table.contains(why), "{table}");
}

#[test]
fn an_operator_sees_what_is_sold_while_a_coordinator_runs() {
    let network = Network::new();
    let data = network.at("data");
    let prices = lines(&["prices", "--data", &data, "--json"]);
    assert_eq!(prices.len(), 1);
    assert_eq!(prices[0]["id"], "tiny");
    assert_eq!(prices[0]["input_micro_usd_per_mtok"], 50_000);
    assert_eq!(prices[0]["output_micro_usd_per_mtok"], 200_000);
    assert_eq!(prices[0]["context_tokens"], 2_048);
    let reload = ["prices", "reload", "--data", &data];
    let output = command(&reload).output().unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(complaint.contains("--model-catalog FILE"), "{complaint}");
    let table = said(&["prices", "--data", &data]);
    assert!(table.contains("$0.050000"), "{table}");
    assert_eq!(prices[0]["least_micro_usd"], 100);
    assert!(table.contains("$0.000100"), "{table}");
    assert!(table.contains("ANSWER") && table.contains("512"), "{table}");

    drop(network.coordinator);
    let output = command(&["prices", "--data", &data]).output().unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    let hint = format!("--data {data}`");
    assert!(complaint.contains("`cereus coordinator"), "{complaint}");
    assert!(complaint.contains(&hint), "{complaint}");
}

#[test]
fn prices_are_read_anew_while_a_coordinator_runs() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (data, file) = (at("data"), at("models.json"));
    let write = |models: &[(&str, u32)]| {
        let model = |(id, input): &(&str, u32)| {
            serde_json::json!({
                "id": id, "input_micro_usd_per_mtok": input, "output_micro_usd_per_mtok": 200_000,
            })
        };
        let models: Vec<Value> = models.iter().map(model).collect();
        std::fs::write(&file, serde_json::json!({ "models": models }).to_string()).unwrap();
    };
    write(&[("a", 1), ("b", 50_000)]);
    let fixed = [
        "--model",
        "tiny:50000:200000:2048",
        "--model-catalog",
        &file,
    ];
    let start = ["coordinator", "--data", &data, "--listen", "0"];
    let mut coordinator = Running::start(&[&start[..], &fixed].concat());
    coordinator.line("listening on ");
    let reload = ["prices", "reload", "--data", &data];
    assert_eq!(said(&reload), "nothing changed\n");

    write(&[("b", 70_000), ("c", 50_000)]);
    let expected = "retired a\n\
        listed c: $0.050000 for a million tokens in, $0.200000 out, context 8192, \
        output_tokens_default 512\n\
        priced b: $0.070000 for a million tokens in, $0.200000 out, context 8192, \
        output_tokens_default 512\n";
    assert_eq!(said(&reload), expected);
    let prices = lines(&["prices", "--data", &data, "--json"]);
    let names: Vec<&str> = prices.iter().map(|it| it["id"].as_str().unwrap()).collect();
    assert_eq!(names, ["b", "c", "tiny"]);

    write(&[("b", 70_000)]);
    let changes = lines(&[&reload[..], &["--json"]].concat());
    assert_eq!(
        changes,
        [serde_json::json!({ "change": "retired", "id": "c" })]
    );

    for (text, part) in [
        ("{", "is not right"),
        (
            r#"{"models":[{"id":"tiny","input_micro_usd_per_mtok":1,"output_micro_usd_per_mtok":1}]}"#,
            "`tiny` is listed twice",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = command(&reload).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(complaint.contains("nothing changed"), "{complaint}");
        assert!(complaint.contains(part), "{complaint}");
    }
    let same = lines(&["prices", "--data", &data, "--json"]);
    assert_eq!(same.len(), 2, "b and tiny");
}

#[test]
fn a_denial_is_logged_with_the_id_that_the_caller_was_given() {
    let network = Network::new();
    let body = r#"{"model":"tiny","messages":[{"role":"user","content":"2 + 3"}]}"#;
    let reply = post(&network.address, &network.key, body);
    assert!(reply.starts_with("HTTP/1.1 429"), "{reply}");
    let header = reply
        .lines()
        .find_map(|line| line.strip_prefix("x-inference-job-id: "));
    let id = header.expect("each reply has an id");
    network.coordinator.logs(&format!("request={id}"));
}

#[test]
fn an_owner_gets_what_a_machine_earned_without_an_account_by_a_proof_and_once() {
    let network = Network::new();
    let data = network.at("data");
    let mut provider = network.provider("machine", &["--echo", "--model-id", "tiny"]);
    let machine = provider.line("machine ");
    network.machine(&machine, |one| one["models"][0]["why_nothing"].is_null());
    let body = r#"{"model":"tiny","messages":[{"role":"user","content":"2 + 3"}]}"#;
    let reply = post(&network.address, &network.key, body);
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    let earned = |account: &str| {
        let listed = lines(&["earnings", "--data", &data, "--json"]);
        let row = listed.iter().find(|row| row["account"] == account);
        row.map_or(0, |row| row["earned_micro_usd"].as_i64().unwrap())
    };
    // A receipt is written a moment after its payment.
    let requests = ["requests", "--data", &data, "--json"];
    let kept = until(|| lines(&requests).pop().filter(|it| it["model"] == "tiny"));
    assert_eq!(kept.expect("a receipt")["state"], "settled");
    let amount = earned("unlinked-machines");
    assert!(amount > 0);

    let made = lines(&[
        "key",
        "create",
        "--data",
        &data,
        "--account",
        "owner",
        "--json",
    ]);
    let id = made[0]["id"].as_str().unwrap();
    let folder = network.at("machine");
    let proof = said(&["earnings", "prove", "--provider", &folder, id]);
    let moved = ["earnings", "move", "--data", &data, "--json", proof.trim()];
    let done = lines(&moved);
    assert_eq!(done[0]["machine"], machine);
    assert_eq!(done[0]["moved_micro_usd"], amount);
    assert_eq!((earned("unlinked-machines"), earned("owner")), (0, amount));
    lines(&["audit", "--data", &data, "--json"]);

    let again = command(&moved).output().unwrap();
    assert!(!again.status.success());
    let complaint = String::from_utf8(again.stderr).unwrap();
    assert!(complaint.contains("not moved before"), "{complaint}");
    assert_eq!(earned("owner"), amount);
}

#[test]
fn an_answer_that_was_cut_is_told_with_the_bound_that_cut_it() {
    let network = Network::new();
    let echo = ["--echo", "--model-id", "tiny", "--echo-pieces", "5"];
    let mut provider = network.provider("machine", &echo);
    let machine = provider.line("machine ");
    network.machine(&machine, |one| one["models"][0]["why_nothing"].is_null());
    let complained = |bound: &str| {
        let chat = ["chat", "--coordinator", &network.address, "--key"];
        let more = [&network.key, "--model", "tiny", "--max-tokens", bound, "hi"];
        let output = command(&[&chat[..], &more].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stderr).unwrap()
    };
    let cut = complained("2");
    assert!(cut.contains("cut at --max-tokens 2;"), "{cut}");
    assert!(cut.contains("--max-tokens 8"), "{cut}");
    assert_eq!(complained("100"), "");
}

#[test]
fn a_provider_says_for_whom_it_earns_also_when_its_key_is_refused() {
    let network = Network::new();
    let echo = ["--echo", "--model-id", "tiny"];
    let file = network.at("earn-key");
    std::fs::write(&file, format!("{}\n", network.key)).unwrap();
    let with_file = ["--earn-key-file", &file];
    let mut earns = network.provider("earns", &[&echo[..], &with_file].concat());
    assert_eq!(
        earns.line("earning for the account of "),
        with_file.join(" ")
    );
    earns.logs("what this machine earns goes to the account of its earning key");

    let mut nobody = network.provider("nobody", &echo);
    nobody.line("earning for no account");
    nobody.logs("no earning key (--earn-key)");

    let wrong = &format!("sk-cereus-{}", "0".repeat(64));
    let with_key = ["--earn-key", wrong];
    let mut refused = network.provider("refused", &[&echo[..], &with_key].concat());
    refused.line("not taken: the coordinator does not know the key of --earn-key");
    refused.logs("the coordinator does not know the earning key");

    for (running, key) in [(&earns, network.key.as_str()), (&refused, wrong.as_str())] {
        assert!(!running.log().contains(key), "{}", running.log());
    }
    assert!(!network.coordinator.log().contains(&network.key));
}

/// Answers one request with these bytes.
fn answering(reply: String) -> (String, thread::JoinHandle<()>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let served = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(&stream).lines();
        let mut body_size = 0;
        loop {
            let line = lines.next().unwrap().unwrap().to_ascii_lowercase();
            if let Some(size) = line.strip_prefix("content-length: ") {
                body_size = size.parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        // The body is one line of JSON without an end of the line.
        assert!(body_size > 0, "a chat has a body");
        std::io::Write::write_all(&mut &stream, reply.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = std::io::copy(&mut &stream, &mut std::io::sink());
    });
    (address, served)
}

#[test]
fn what_a_provider_says_to_a_terminal_is_shown_and_not_obeyed() {
    // A title, a colour, a clipboard; one of them cut in two by the stream.
    let pieces = [
        "he\u{1b}]0;owned\u{7}l",
        "l\u{1b}[3",
        "1mo\u{1b}]52;c;aGk=\u{1b}\\ there",
    ];
    let mut reply = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\
                     x-request-id: a\r\n\r\n"
        .to_owned();
    for piece in pieces {
        let choices = [serde_json::json!({"index": 0, "delta": {"content": piece}})];
        reply += &format!("data: {}\n\n", serde_json::json!({"choices": choices}));
    }
    reply += "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    reply += "data: [DONE]\n\n";
    let (address, served) = answering(reply);
    let chat = [
        "chat",
        "--coordinator",
        &address,
        "--key",
        "k",
        "--model",
        "tiny",
        "hi",
    ];
    let shown = said(&chat);
    served.join().unwrap();
    let is_obeyed = |c: char| c.is_control() && c != '\n';
    assert!(!shown.contains(is_obeyed), "{shown:?}");
    assert!(
        shown.starts_with("he") && shown.contains(" there"),
        "{shown:?}"
    );
}

fn post(address: &str, key: &str, body: &str) -> String {
    use std::io::{Read as _, Write as _};
    let place = address.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(place).unwrap();
    write!(
        stream,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {place}\r\nAuthorization: Bearer {key}\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
}

#[test]
fn who_reads_a_chat_no_further_ends_it_quietly_and_finds_what_was_paid_for() {
    let network = Network::new();
    let slow = ["--echo-pieces", "200", "--echo-pause-ms", "50"];
    let echo = ["--echo", "--model-id", "tiny"];
    let mut provider = network.provider("machine", &[&echo[..], &slow].concat());
    let machine = provider.line("machine ");
    network.machine(&machine, |one| one["models"][0]["why_nothing"].is_null());
    let data = network.at("data");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let chat = ["chat", "--coordinator", &network.address, "--key"];
    let chat = [&chat[..], &[&network.key, "--model", "tiny", "hello"]].concat();
    let output = command(&chat).stdout(writer).output().unwrap();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{complained}");
    assert_eq!(complained, "");
    let list = ["requests", "--data", &data, "--json"];
    let paid = until(|| {
        let mut listed = lines(&list).into_iter();
        listed.find(|one| one["charged_micro_usd"].as_i64() > Some(0))
    });
    let paid = paid.unwrap_or_else(|| panic!("{:?}", lines(&list)));
    let paid = until(|| {
        let id = &paid["request"];
        let mut listed = lines(&list).into_iter();
        listed.find(|one| one["request"] == *id && one["model"] == "tiny")
    });
    let paid = paid.unwrap_or_else(|| panic!("{:?}", lines(&list)));
    let told = paid["completion_tokens"].as_i64().unwrap();
    assert!((1..200).contains(&told), "{paid}");
}

#[cfg(feature = "mlx")]
#[test]
fn an_answer_of_the_tiny_model_is_asked_for_and_paid_as_the_readme_says() {
    let network = Network::new();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../engine/models/tiny");
    let model = format!("tiny={}", folder.display());
    let mut provider = network.provider("machine", &["--model", &model]);
    let machine = provider.line("machine ");
    network.machine(&machine, |one| one["models"][0]["why_nothing"].is_null());
    let output = command(&[
        "chat",
        "--coordinator",
        &network.address,
        "--key",
        &network.key,
    ])
    .args(["--model", "tiny", "--receipt", "What is 2 + 3?"])
    .output()
    .unwrap();
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{answer}\n{complained}");
    assert!(answer.contains("2 + 3 = 5"), "{answer}");
    assert!((answer + &complained).contains(&machine));
    let data = network.at("data");
    let requests = lines(&["requests", "--data", &data, "--json"]);
    assert_eq!(requests[0]["state"], "settled");
    let earnings = lines(&["earnings", "--data", &data, "--json"]);
    assert!(earnings[0]["earned_micro_usd"].as_i64() > Some(0));
}

#[test]
fn money_that_came_in_is_told_as_applied_or_as_waiting_for_a_coordinator() {
    let network = Network::new();
    let data = network.at("data");
    let credit = [
        "credit",
        "--data",
        &data,
        "--account",
        "me",
        "--amount",
        "1",
    ];
    let in_json = [&credit[..], &["--json"]].concat();
    let key = [
        "key",
        "create",
        "--data",
        &data,
        "--account",
        "me",
        "--credit",
        "1",
    ];
    let key_in_json = [&key[..], &["--json"]].concat();
    let given = lines(&in_json).remove(0);
    assert_eq!(given["state"], "applied");
    assert_eq!(lines(&key_in_json)[0]["credit"]["state"], "applied");
    let id = given["id"].to_string();
    let back = lines(&["credit", "reverse", "--data", &data, "--json", &id]);
    assert_eq!(back[0]["state"], "applied");
    assert!(!said(&credit).contains("waits"));

    drop(network.coordinator);
    let given = lines(&in_json).remove(0);
    assert_eq!(given["state"], "waiting");
    assert_eq!(lines(&key_in_json)[0]["credit"]["state"], "waiting");
    for words in [&credit[..], &key[..]] {
        let said = said(words);
        assert!(said.contains("no coordinator runs: it waits"), "{said}");
    }
}

#[test]
fn a_request_that_ended_with_its_coordinator_is_told_as_unfinished() {
    let mut network = Network::new();
    let slow = ["--echo-pieces", "2000", "--echo-pause-ms", "50"];
    let echo = ["--echo", "--model-id", "tiny"];
    let mut provider = network.provider("machine", &[&echo[..], &slow].concat());
    let machine = provider.line("machine ");
    network.machine(&machine, |one| one["models"][0]["why_nothing"].is_null());
    let data = network.at("data");
    let asked = [
        "chat",
        "--coordinator",
        &network.address,
        "--key",
        &network.key,
    ];
    let mut asking = Running::start(&[&asked[..], &["--model", "tiny", "hello"]].concat());
    let mut byte = [0];
    std::io::Read::read_exact(&mut asking.out, &mut byte).unwrap();
    let list = ["requests", "--data", &data, "--json"];
    assert_eq!(lines(&list)[0]["state"], "running");
    network.coordinator.child.kill().unwrap();
    network.coordinator.child.wait().unwrap();
    let open = lines(&list).remove(0);
    assert_eq!(open["state"], "unfinished");
    let table = said(&["requests", "--data", &data]);
    assert!(table.contains("unfinished: no coordinator runs"), "{table}");
}
