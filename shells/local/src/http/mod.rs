//! The HTTP server: connections in, requests to their routes.

mod body;
mod generate;
mod reply;
mod route;
mod status;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

pub(crate) use reply::complaint;

use crate::app::App;

/// From the first byte of a request's head to its last.
const HEAD_WAIT: Duration = Duration::from_secs(15);
/// Bytes of a request's head.
const HEAD_SIZE_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 100;
/// After an accept that failed, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `closing` turns true; returns when every connection has ended.
pub(crate) async fn serve(
    app: Arc<App>,
    listener: TcpListener,
    connections_max: usize,
    mut closing: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(connections_max));
    let graceful = GracefulShutdown::new();
    loop {
        let place = Arc::clone(&places);
        tokio::select! {
            (stream, place) = accept(&listener, place) => {
                tokio::spawn(connection(Arc::clone(&app), stream, place, graceful.watcher()));
            }
            _ = closing.wait_for(|closing| *closing) => break,
        }
    }
    drop(listener);
    graceful.shutdown().await;
}

/// The next connection, once there is a place for it. Cancel safe.
async fn accept(
    listener: &TcpListener,
    places: Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    let place = places.acquire_owned().await.expect("never closed");
    loop {
        // Without this a first token on a reused connection waits for the peer's delayed ACK.
        let accepted = listener
            .accept()
            .await
            .and_then(|(stream, _)| stream.set_nodelay(true).map(|()| stream));
        match accepted {
            Ok(stream) => return (stream, place),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    app: Arc<App>,
    stream: TcpStream,
    place: OwnedSemaphorePermit,
    watcher: Watcher,
) {
    let service = service_fn(|request| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(route::answer(app, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_buf_size(HEAD_SIZE_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended badly");
    }
    drop(place);
}
