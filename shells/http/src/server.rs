//! Connections in: places, time limits, and an end that lets running answers finish.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::ServiceExt as _;

use crate::phase::{Phase, SharedPhase};
use crate::timed::Timed;

/// Bytes of a request's head.
const HEAD_SIZE_MAX: usize = 64 << 10;
/// Headers of a request.
const HEADERS_MAX: usize = 100;
/// After an accept that failed, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How many connections there may be, and how long each may keep its place in silence.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// Open connections; further ones wait in the system's backlog.
    pub connections_max: usize,
    /// From the first byte of a request's head to its last.
    pub head_wait: Duration,
    /// Between two requests of one connection.
    pub idle_wait: Duration,
}

impl HttpLimits {
    /// Longer than clients and proxies rest by default (60 to 90 s), so that the side which sends
    /// the next request is the one that closes.
    pub const IDLE_WAIT: Duration = Duration::from_secs(120);
    pub const HEAD_WAIT: Duration = Duration::from_secs(15);

    #[must_use]
    pub const fn with_connections(connections_max: usize) -> Self {
        Self {
            connections_max,
            head_wait: Self::HEAD_WAIT,
            idle_wait: Self::IDLE_WAIT,
        }
    }
}

/// Who is at the other end; in the extensions of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// Hears of connections, for metrics.
pub trait Connections: Send + Sync + 'static {
    fn opened(&self) {}
    fn closed(&self) {}
}

impl Connections for () {}

/// Serves until `closing` turns true; returns when every connection has ended.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: HttpLimits,
    connections: Arc<impl Connections>,
    mut closing: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(limits.connections_max));
    loop {
        let place = Arc::clone(&places)
            .acquire_owned()
            .await
            .expect("never closed");
        tokio::select! {
            accepted = accept(&listener) => match accepted {
                Ok((stream, peer)) => {
                    let connections = Arc::clone(&connections);
                    let served = connection(stream, peer, router.clone(), limits, closing.clone());
                    tokio::spawn(async move {
                        connections.opened();
                        served.await;
                        connections.closed();
                        drop::<OwnedSemaphorePermit>(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            () = turned(&mut closing) => break,
        }
    }
    drop(listener);
    let all = u32::try_from(limits.connections_max).unwrap_or(u32::MAX);
    let _ = places.acquire_many(all).await;
}

/// Without the option a first token on a reused connection waits 40 ms for the peer's delayed ACK.
async fn accept(listener: &TcpListener) -> std::io::Result<(TcpStream, Peer)> {
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, Peer(peer)))
}

async fn connection(
    stream: TcpStream,
    peer: Peer,
    router: Router,
    limits: HttpLimits,
    mut closing: watch::Receiver<bool>,
) {
    let phase = SharedPhase::new(Phase::Head);
    let stream = Timed::new(stream, phase.clone(), limits.idle_wait, limits.head_wait);
    let service = service_fn(|mut request: Request<Incoming>| {
        phase.set(Phase::Busy);
        request.extensions_mut().insert(peer);
        let answer = router.clone().oneshot(request.map(Body::new));
        let phase = phase.clone();
        async move {
            let reply = answer.await?;
            // A connection that speaks another protocol from here on has no requests to rest between.
            let resting = (reply.status() != StatusCode::SWITCHING_PROTOCOLS).then_some(phase);
            Ok::<_, Infallible>(reply.map(|body| Tracked { body, resting }))
        }
    });
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(HEAD_SIZE_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = turned(&mut closing) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended badly");
    }
}

/// Returns when the flag is up. Cancel safe.
async fn turned(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|flag| *flag).await;
}

/// The body of an answer. When it is gone the connection rests.
struct Tracked {
    body: Body,
    resting: Option<SharedPhase>,
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        if let Some(phase) = &self.resting {
            phase.rest();
        }
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
