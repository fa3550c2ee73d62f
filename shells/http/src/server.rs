//! Connections in: places, time limits, and an end that lets running answers finish. Whoever may ask
//! and whoever has not shown that it may are counted apart, so that the one cannot take the other's
//! room.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use cereus_core::door::Origin;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use crate::body::Bodies;
use crate::door;
use crate::peer::{Callers, Peer, Places};
use crate::phase::{Phase, SharedPhase};
use crate::reply::Failed;
use crate::target::check_host;
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
    /// Open connections of callers; one more waits a little and is told to come back.
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

/// Is told when connections come and go, for metrics.
pub trait Connections: Send + Sync + 'static {
    fn opened(&self) {}
    fn closed(&self) {}

    /// Whose a connection from there is, as far as one owner is likely; `None` behind a proxy.
    fn origin(&self, peer: IpAddr) -> Option<Origin> {
        Some(Origin::of(peer))
    }
}

impl Connections for () {}

/// Serves until `closing` turns true; returns when every connection has ended. Every connection is
/// accepted: where too many show no right to ask, the one that has been silent for longest goes.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: HttpLimits,
    connections: Arc<impl Connections>,
    mut closing: watch::Receiver<bool>,
) {
    let callers = Callers::new(limits.connections_max);
    let strangers = door::strangers(limits.connections_max);
    let bodies = Bodies::new();
    let mut open = JoinSet::new();
    loop {
        // Cancel safe: accepting, joining and waiting for a flag lose nothing.
        tokio::select! {
            accepted = accept(&listener) => match accepted {
                Ok((stream, address)) => {
                    let connections = Arc::clone(&connections);
                    let origin = connections.origin(address.ip());
                    let (place, mut sent_away) = strangers.enter(origin);
                    let places = Places {
                        callers: Arc::clone(&callers),
                        bodies: Arc::clone(&bodies),
                    };
                    let peer = Peer::new(address, origin, places, place);
                    let served =
                        connection(stream, peer.clone(), router.clone(), limits, closing.clone());
                    open.spawn(async move {
                        connections.opened();
                        tokio::select! {
                            () = served => {}
                            () = sent_away.called() => {}
                            () = peer.called() => {}
                        }
                        peer.rests_no_more();
                        connections.closed();
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = open.join_next() => {}
            () = turned(&mut closing) => break,
        }
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

/// Without the option a first token on a reused connection waits 40 ms for the peer's delayed ACK.
async fn accept(listener: &TcpListener) -> std::io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer))
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
        peer.rests_no_more();
        request.extensions_mut().insert(peer.clone());
        let request = request.map(|body| Body::new(Arriving::new(body, phase.clone())));
        let refused = check_host(&request).err();
        let answer = router.clone().oneshot(request);
        let resting = Resting {
            phase: phase.clone(),
            peer: peer.clone(),
        };
        async move {
            let reply = match refused {
                Some(refused) => last(Failed::from(refused).into_response()),
                None => answer.await?,
            };
            // After an upgrade there are no more requests, so there is no rest between two of them
            // to be timed.
            let resting = (reply.status() != StatusCode::SWITCHING_PROTOCOLS).then_some(resting);
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

/// A reply after which the connection ends: what follows on it may be meant for another server.
fn last(mut reply: Response) -> Response {
    let close = HeaderValue::from_static("close");
    reply.headers_mut().insert(CONNECTION, close);
    reply
}

/// Returns when the flag is up. Cancel safe.
async fn turned(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|flag| *flag).await;
}

/// The body of a request. What has not come of it when the connection ends is owed.
struct Arriving {
    body: Incoming,
    phase: SharedPhase,
}

impl Arriving {
    fn new(body: Incoming, phase: SharedPhase) -> Self {
        phase.owes(!body.is_end_stream());
        Self { body, phase }
    }
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if self.body.is_end_stream() || matches!(polled, Poll::Ready(None)) {
            self.phase.owes(false);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer. When it is gone the connection rests.
struct Tracked {
    body: Body,
    resting: Option<Resting>,
}

/// A connection whose answer is over.
struct Resting {
    phase: SharedPhase,
    peer: Peer,
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
        if let Some(resting) = &self.resting {
            resting.phase.rest();
            resting.peer.rests();
        }
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
