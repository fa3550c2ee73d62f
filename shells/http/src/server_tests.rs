//! Over loopback, with limits of a few hundredths of a second where a test waits for one.

use std::io::{Read as _, Write as _};
use std::net::TcpStream as Peer;

use axum::routing::{get, post};

use super::*;

struct Served {
    addr: SocketAddr,
    closing: watch::Sender<bool>,
    ended: tokio::task::JoinHandle<()>,
}

async fn served(limits: HttpLimits) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (closing, closed) = watch::channel(false);
    let router = Router::new()
        .route("/", get(|| async { "here" }))
        .route("/{status}", post(refuse));
    let ended = tokio::spawn(serve(listener, router, limits, Arc::new(()), closed));
    Served {
        addr,
        closing,
        ended,
    }
}

/// Answers as the path says, and reads nothing of the body.
async fn refuse(status: axum::extract::Path<u16>) -> StatusCode {
    StatusCode::from_u16(*status).unwrap()
}

/// Long enough that no slow machine meets it.
const NEVER: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_millis(50);
const ASK: &[u8] = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n";

/// What comes until the server closes or one whole reply has come.
fn reply(peer: &mut Peer) -> String {
    let mut read = Vec::new();
    let mut piece = [0; 1024];
    while !read.ends_with(b"here") {
        match peer.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(count) => read.extend_from_slice(&piece[..count]),
        }
    }
    String::from_utf8(read).unwrap()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_may_rest_longer_than_a_head_may_take() {
    let limits = HttpLimits {
        connections_max: 4,
        head_wait: SOON,
        idle_wait: NEVER,
    };
    let server = served(limits).await;
    let mut peer = Peer::connect(server.addr).unwrap();
    blocking(move || {
        for _ in 0..2 {
            peer.write_all(ASK).unwrap();
            assert!(reply(&mut peer).starts_with("HTTP/1.1 200"));
            std::thread::sleep(SOON * 6);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_does_not_end_costs_its_place() {
    let limits = HttpLimits {
        connections_max: 4,
        head_wait: SOON,
        idle_wait: NEVER,
    };
    let server = served(limits).await;
    for (first, rest) in [(&b""[..], &b"GET /"[..]), (ASK, b"GET / HT")] {
        let mut peer = Peer::connect(server.addr).unwrap();
        blocking(move || {
            if !first.is_empty() {
                peer.write_all(first).unwrap();
                assert!(reply(&mut peer).ends_with("here"));
            }
            peer.write_all(rest).unwrap();
            // Nothing more is sent: only the server can end this read.
            assert_eq!(reply(&mut peer), "");
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_rests_too_long_is_closed() {
    let limits = HttpLimits {
        connections_max: 4,
        head_wait: NEVER,
        idle_wait: SOON,
    };
    let server = served(limits).await;
    let mut peer = Peer::connect(server.addr).unwrap();
    blocking(move || {
        peer.write_all(ASK).unwrap();
        assert!(reply(&mut peer).ends_with("here"));
        assert_eq!(reply(&mut peer), "");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_ends_connections_that_rest() {
    let server = served(HttpLimits::with_connections(4)).await;
    let mut peer = Peer::connect(server.addr).unwrap();
    let mut peer = blocking(move || {
        peer.write_all(ASK).unwrap();
        assert!(reply(&mut peer).ends_with("here"));
        peer
    })
    .await;
    server.closing.send_replace(true);
    server.ended.await.unwrap();
    assert_eq!(blocking(move || reply(&mut peer)).await, "");
}

#[tokio::test]
async fn every_connection_writes_without_delay() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _peer = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (accepted, _) = accept(&listener).await.unwrap();
    assert!(accepted.nodelay().unwrap());
}

/// Each ends while its sender writes. More than any buffer of the system holds, and the sender reads
/// only when it has written all.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_still_sends_when_it_is_refused_hears_why() {
    const ATTEMPTS: usize = 40;
    const SIZE: usize = 12 << 20;
    let server = served(HttpLimits::with_connections(4)).await;
    let addr = server.addr;
    blocking(move || {
        let body = vec![b' '; SIZE];
        for status in [401, 402, 403, 404, 405, 413, 429] {
            let head =
                format!("POST /{status} HTTP/1.1\r\nhost: here\r\ncontent-length: {SIZE}\r\n\r\n");
            for attempt in 0..ATTEMPTS {
                let mut peer = Peer::connect(addr).unwrap();
                peer.write_all(head.as_bytes()).unwrap();
                peer.write_all(&body).unwrap();
                let mut heard = String::new();
                peer.read_to_string(&mut heard).unwrap();
                assert!(
                    heard.starts_with(&format!("HTTP/1.1 {status}")),
                    "attempt {attempt}: {heard}"
                );
            }
        }
    })
    .await;
}
