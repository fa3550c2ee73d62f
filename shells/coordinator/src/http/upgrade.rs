//! `GET /ws/provider`: turns an HTTP connection into a provider's WebSocket.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{Request, StatusCode};
use cereus_core::api::Envelope;
use cereus_core::denial::Denial;
use cereus_http::{Failed, Reply, complaint};
use hyper_util::rt::TokioIo;
use tokio::sync::OwnedSemaphorePermit;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::app::App;
use crate::provider;

/// A provider's longest message (`spec/wire` 1.2).
const MESSAGE_SIZE_MAX: usize = 10 << 20;

pub(super) async fn answer(
    State(app): State<Arc<App>>,
    request: Request<Body>,
) -> Result<Reply, Failed> {
    let key = key(request.headers())?;
    if app.is_draining() {
        return Err(Envelope::from(Denial::Draining).into());
    }
    let Some(place) = app.provider_place() else {
        return Err(Envelope::from(Denial::Full { retry_after_s: 30 }).into());
    };
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .expect("base64 is fit for a header");
    tokio::spawn(take_over(app, request, place));
    let mut reply = Reply::new(Body::empty());
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = reply.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(reply)
}

fn key(headers: &HeaderMap) -> Result<String, Envelope> {
    let has = |name, word: &str| {
        let value = headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok());
        value.is_some_and(|value| {
            value
                .split(',')
                .any(|part| part.trim().eq_ignore_ascii_case(word))
        })
    };
    let key = headers
        .get(SEC_WEBSOCKET_KEY)
        .and_then(|key| key.to_str().ok());
    match key {
        Some(key)
            if has(UPGRADE, "websocket")
                && has(CONNECTION, "upgrade")
                && has(SEC_WEBSOCKET_VERSION, "13") =>
        {
            Ok(key.to_owned())
        }
        Some(_) | None => Err(complaint(
            StatusCode::UPGRADE_REQUIRED,
            "upgrade_required",
            "this endpoint takes WebSocket connections of providers (version 13)",
        )),
    }
}

async fn take_over(app: Arc<App>, request: Request<Body>, place: OwnedSemaphorePermit) {
    let upgraded = match hyper::upgrade::on(request).await {
        Ok(upgraded) => TokioIo::new(upgraded),
        Err(error) => {
            tracing::debug!(%error, "a provider's connection ended in its handshake");
            return;
        }
    };
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_SIZE_MAX))
        .max_frame_size(Some(MESSAGE_SIZE_MAX));
    let socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, Some(config)).await;
    provider::serve(app, socket).await;
    drop(place);
}
