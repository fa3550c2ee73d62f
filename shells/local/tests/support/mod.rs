//! The local server over real sockets, with an engine that computes nothing.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::net::SocketAddr;
use std::time::Duration;

use cereus_local::{Backend, HttpLimits, Running, Settings, start};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Nothing here takes long; a test that waits this long has failed.
pub(crate) const WAIT: Duration = Duration::from_secs(30);

pub(crate) fn settings(words: u32, pause: Duration) -> Settings {
    Settings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        backend: Backend::Echo { words, pause },
        model_id: "org/echo".to_owned(),
        rows_max: 2,
        waiting_max: 1,
        kv_bytes_max: 1 << 20,
        disk: None,
        key: None,
        allowed_hosts: vec![],
        allowed_origins: vec![],
        limits: HttpLimits::with_connections(16),
        drain_wait_max: Duration::from_secs(20),
    }
}

pub(crate) async fn serve(words: u32, pause: Duration) -> Running {
    start(settings(words, pause)).await.unwrap()
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The payloads of a stream.
    pub(crate) fn events(&self) -> Vec<&str> {
        self.body
            .split("\n\n")
            .filter_map(|event| event.strip_prefix("data: "))
            .collect()
    }
}

/// Sends a request on a connection of its own.
pub(crate) async fn send(addr: SocketAddr, method: &str, path: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

pub(crate) async fn receive(mut stream: TcpStream) -> Reply {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let body = if head.contains("transfer-encoding: chunked") {
        unchunked(body)
    } else {
        body.to_owned()
    };
    Reply {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_owned(),
        body,
    }
}

pub(crate) fn unchunked(mut rest: &str) -> String {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        body.push_str(&after[..size]);
        if size == 0 {
            return body;
        }
        rest = &after[size + 2..];
    }
}

pub(crate) async fn post(running: &Running, path: &str, body: &Value) -> Reply {
    receive(send(running.addr(), "POST", path, &body.to_string()).await).await
}

pub(crate) async fn get(running: &Running, path: &str) -> Reply {
    receive(send(running.addr(), "GET", path, "").await).await
}

pub(crate) async fn end(mut running: Running) {
    running.drain();
    running.ended().await.unwrap();
}

pub(crate) const CHAT: &str = "/v1/chat/completions";

pub(crate) fn ask(extra: &Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "some words"}]});
    body.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    body
}

/// Waits until the server's own figures show it.
pub(crate) async fn until(running: &Running, name: &str, value: f64) {
    for _ in 0..2_000 {
        if get(running, "/v1/status").await.json()[name].as_f64() == Some(value) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{name} never became {value}");
}
