//! `GET /ws/provider`: turns an HTTP connection into a provider's WebSocket.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{Request, StatusCode};
use cereus_core::api::Envelope;
use cereus_core::denial::Denial;
use cereus_core::envelope::encode_base64;
use cereus_http::{Failed, Guest, Peer, Reply, SentAway, complaint};
use hyper_util::rt::TokioIo;
use sha1::{Digest as _, Sha1};
use tokio::sync::OwnedSemaphorePermit;

use crate::app::App;
use crate::provider;

/// What RFC 6455 appends to a client's key, so that no other server answers it by chance.
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

pub(super) async fn answer(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    request: Request<Body>,
) -> Result<Reply, Failed> {
    let key = key(request.headers())?;
    if app.is_draining() {
        return Err(Envelope::from(Denial::Draining).into());
    }
    let Some(place) = app.provider_place() else {
        return Err(Envelope::from(Denial::Full { retry_after_s: 30 }).into());
    };
    let accept = HeaderValue::from_str(&accept(&key)).expect("base64 is fit for a header");
    let forwarded = request.headers().get_all("x-forwarded-for").iter();
    let forwarded = forwarded.filter_map(|value| value.to_str().ok());
    let origin = app.proxies.origin_of_request(peer.address.ip(), forwarded);
    let (guest, sent_away) = app.unproven.enter(origin);
    let entry = Entry {
        place,
        guest,
        sent_away,
    };
    tokio::spawn(take_over(app, request, entry));
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

/// The proof that the key was read by somebody who speaks the protocol.
fn accept(key: &str) -> String {
    let digest = Sha1::new().chain_update(key).chain_update(KEY_SUFFIX);
    let mut text = String::new();
    encode_base64(&digest.finalize(), &mut text);
    text
}

/// What a provider's socket holds: a place among all, and one among the unproven.
struct Entry {
    place: OwnedSemaphorePermit,
    guest: Guest,
    sent_away: SentAway,
}

async fn take_over(app: Arc<App>, request: Request<Body>, entry: Entry) {
    let Entry {
        place,
        guest,
        sent_away,
    } = entry;
    match hyper::upgrade::on(request).await {
        Ok(upgraded) => provider::serve(app, TokioIo::new(upgraded), guest, sent_away).await,
        Err(error) => tracing::debug!(%error, "a provider's connection ended in its handshake"),
    }
    drop(place);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accepted_key_is_that_of_the_standard() {
        assert_eq!(
            accept("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }
}
