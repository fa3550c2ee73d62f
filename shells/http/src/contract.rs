//! What every server of this project keeps, whatever stands behind it. Each server's tests call
//! [`keeps`] on a running instance.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

/// Longer than any reply takes on a loaded machine.
const READ_WAIT: Duration = Duration::from_secs(60);

/// A running server, and what a client needs to be served.
#[derive(Clone, Debug)]
pub struct Server {
    pub addr: SocketAddr,
    /// A key that is good, where one is asked for.
    pub key: Option<String>,
    /// A model that answers any chat.
    pub model: String,
}

/// A reply as a client sees it.
#[derive(Debug)]
pub struct Heard {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

impl Heard {
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// # Panics
    /// The body is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }
}

impl Server {
    /// One request on a connection of its own.
    ///
    /// # Panics
    /// The server does not answer in HTTP.
    #[must_use]
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Heard {
        let host = self.addr.to_string();
        let headers = [&[("host", host.as_str())], headers].concat();
        self.ask_with(method, path, &headers, body)
    }

    /// With no Host but those among the headers.
    fn ask_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Heard {
        let mut stream = TcpStream::connect(self.addr).expect("the server listens");
        stream.set_read_timeout(Some(READ_WAIT)).expect("a time");
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n",
            body.len()
        );
        if let Some(key) = &self.key {
            request += &format!("authorization: Bearer {key}\r\n");
        }
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += "\r\n";
        stream
            .write_all(request.as_bytes())
            .expect("the head is sent");
        // A server may refuse before it has read everything.
        let _ = stream.write_all(body);
        let mut raw = Vec::new();
        let _ = stream.read_to_end(&mut raw);
        let split = raw
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .expect("a reply has a head");
        let head = String::from_utf8(raw[..split].to_vec()).expect("a head is text");
        let status = head[9..12].parse().expect("a status");
        Heard {
            status,
            head,
            body: raw[split + 4..].to_vec(),
        }
    }

    fn chat(&self) -> Vec<u8> {
        json!({"model": self.model, "max_tokens": 4,
               "messages": [{"role": "user", "content": "What is 2 + 3?"}]})
        .to_string()
        .into_bytes()
    }
}

/// Asks the server everything that all servers answer alike. Blocks.
///
/// # Panics
/// The server differs.
pub fn keeps(server: &Server) {
    routes_are_told_apart(server);
    requests_name_one_host(server);
    models_are_found_by_every_spelling(server);
    bodies_have_limits(server);
    refusals_are_heard_amid_a_body(server);
    bodies_come_compressed(server);
    requests_have_ids(server);
    streams_are_not_held_back(server);
    pages_ask_first(server);
}

const CHAT: &str = "/v1/chat/completions";

fn error(heard: &Heard) -> Value {
    let error = heard.json()["error"].clone();
    for member in ["message", "type", "param", "code"] {
        assert!(error.get(member).is_some(), "{member} is missing: {error}");
    }
    error
}

fn routes_are_told_apart(server: &Server) {
    let wrong = server.ask("GET", CHAT, &[], b"");
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("POST")));
    assert_eq!(error(&wrong)["code"], "method_not_allowed");
    let wrong = server.ask("POST", "/v1/models", &[], b"");
    assert_eq!(wrong.status, 405);
    assert!(wrong.header("allow").is_some_and(|it| it.contains("GET")));

    let nowhere = server.ask("POST", "/v1/chat/completion", &[], b"{}");
    assert_eq!(nowhere.status, 404);
    let said = error(&nowhere)["message"].to_string();
    assert!(said.contains(CHAT) && said.contains("/v1/models"), "{said}");

    let slash = server.ask("POST", "/v1/chat/completions/", &[], &server.chat());
    assert_eq!(slash.status, 200, "a slash at the end changes nothing");
    let twice = server.ask("POST", "/v1//chat/completions", &[], &server.chat());
    assert_eq!(twice.status, 200, "nor does one slash too many");
    assert_eq!(server.ask("HEAD", "/health", &[], b"").status, 200);
}

fn requests_name_one_host(server: &Server) {
    let own = server.addr.to_string();
    let elsewhere = "http://there.example/health";
    let here = format!("http://{own}/health");
    let host = ("host", own.as_str());
    for (target, hosts, status) in [
        ("/health", &[][..], 400),
        ("/health", &[host, host], 400),
        (elsewhere, &[host], 400),
        (here.as_str(), &[host], 200),
    ] {
        let heard = server.ask_with("GET", target, hosts, b"");
        assert_eq!(heard.status, status, "{target} with {hosts:?}");
        if status == 400 {
            assert_eq!(error(&heard)["code"], "invalid_host");
        }
    }
}

fn models_are_found_by_every_spelling(server: &Server) {
    let list = server.ask("GET", "/v1/models", &[], b"").json();
    let ids: Vec<&str> = list["data"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|model| model["id"].as_str())
        .collect();
    assert!(ids.contains(&server.model.as_str()), "{ids:?}");
    let escaped = server.model.replace('/', "%2F");
    for id in [server.model.as_str(), escaped.as_str()] {
        let one = server.ask("GET", &format!("/v1/models/{id}"), &[], b"");
        assert_eq!((one.status, &one.json()["id"]), (200, &json!(server.model)));
    }
    let none = server.ask("GET", "/v1/models/no/such", &[], b"");
    assert_eq!(none.status, 404);
    assert_eq!(error(&none)["code"], "model_not_found");
}

fn bodies_have_limits(server: &Server) {
    let broken = server.ask("POST", CHAT, &[], b"{\"messages\": ");
    assert_eq!(broken.status, 400);
    error(&broken);
    let large = vec![b' '; 40 << 20];
    let refused = server.ask("POST", CHAT, &[], &large);
    assert_eq!(refused.status, 413);
    error(&refused);
}

/// The sender writes all before it reads, and nobody reads what it writes.
fn refusals_are_heard_amid_a_body(server: &Server) {
    const ATTEMPTS: usize = 12;
    let large = vec![b' '; 12 << 20];
    let stranger = Server {
        key: Some("no such key".to_owned()),
        ..server.clone()
    };
    for _ in 0..ATTEMPTS {
        assert_eq!(server.ask("POST", "/v1/none", &[], &large).status, 404);
        assert_eq!(server.ask("POST", "/v1/models", &[], &large).status, 405);
        if server.key.is_some() {
            assert_eq!(stranger.ask("POST", CHAT, &[], &large).status, 401);
        }
    }
}

/// `What is 2 + 3?` and so on would need a compressor here; a stored block of deflate needs none.
fn gzip(plain: &[u8]) -> Vec<u8> {
    let size = u16::try_from(plain.len()).expect("one stored block");
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff, 1];
    out.extend_from_slice(&size.to_le_bytes());
    out.extend_from_slice(&(!size).to_le_bytes());
    out.extend_from_slice(plain);
    out.extend_from_slice(&crc32(plain).to_le_bytes());
    out.extend_from_slice(&u32::from(size).to_le_bytes());
    out
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
        })
    })
}

fn bodies_come_compressed(server: &Server) {
    let packed = gzip(&server.chat());
    let heard = server.ask("POST", CHAT, &[("content-encoding", "gzip")], &packed);
    assert_eq!(heard.status, 200, "a body may be gzip");
    let broken = server.ask(
        "POST",
        CHAT,
        &[("content-encoding", "gzip")],
        &server.chat(),
    );
    assert_eq!(broken.status, 400, "what is not gzip is said to be none");
    error(&broken);
    let odd = server.ask("POST", CHAT, &[("content-encoding", "lzma")], &packed);
    assert_eq!(odd.status, 415);
    error(&odd);
}

fn requests_have_ids(server: &Server) {
    let ids = [("x-request-id", "mine-1")];
    let heard = server.ask("GET", "/health", &ids, b"");
    assert_eq!(heard.header("x-request-id"), Some("mine-1"));
    let own = heard.header("x-inference-job-id").expect("an id of ours");
    assert_eq!(own.len(), 36);
    let odd = [("x-request-id", "a b<c>")];
    let heard = server.ask("GET", "/health", &odd, b"");
    assert_eq!(
        heard.header("x-request-id"),
        heard.header("x-inference-job-id"),
        "an odd id is not repeated"
    );
}

fn streams_are_not_held_back(server: &Server) {
    let body = json!({"model": server.model, "max_tokens": 4, "stream": true,
                      "messages": [{"role": "user", "content": "What is 2 + 3?"}]});
    let heard = server.ask("POST", CHAT, &[], body.to_string().as_bytes());
    let said = |name| heard.header(name);
    assert_eq!(heard.status, 200);
    assert_eq!(said("content-type"), Some("text/event-stream"));
    assert_eq!(said("cache-control"), Some("no-cache"));
    assert_eq!(said("x-accel-buffering"), Some("no"), "proxies gather");
}

fn pages_ask_first(server: &Server) {
    let headers = [
        ("origin", "http://localhost:3000"),
        ("access-control-request-method", "POST"),
        (
            "access-control-request-headers",
            "authorization,content-type",
        ),
    ];
    let allowed = server.ask("OPTIONS", CHAT, &headers, b"");
    assert_eq!(allowed.status, 200);
    assert!(allowed.header("access-control-allow-origin").is_some());
    let methods = allowed.header("access-control-allow-methods");
    assert!(methods.is_some_and(|methods| methods.contains("POST")));
}
