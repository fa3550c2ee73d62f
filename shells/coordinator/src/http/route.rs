//! Which request goes where, and who may ask.

use std::sync::Arc;

use cereus_core::api::{Envelope, write_model, write_models};
use cereus_core::denial::Denial;
use cereus_core::ids::{AccountId, RequestId};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode};
use orion::util::secure_rand_bytes;
use serde_json::json;

use super::reply::{JSON, Reply, complaint, failed, whole};
use super::{chat, upgrade};
use crate::app::App;
use crate::metrics::Status;

/// Longest request id of a caller that is echoed.
const REQUEST_ID_CHARS_MAX: usize = 128;

pub(super) async fn answer(app: Arc<App>, request: Request<Incoming>) -> Reply {
    let id = RequestId(random_bits());
    let echoed = echoed_id(request.headers());
    let mut reply = match dispatch(&app, id, request).await {
        Ok(reply) => reply,
        Err(envelope) => failed(&envelope),
    };
    let shown = echoed.or_else(|| HeaderValue::from_str(&id.to_string()).ok());
    if let Some(shown) = shown {
        reply.headers_mut().insert("x-request-id", shown);
    }
    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        // The name under which a receipt is found, whatever id the caller chose.
        reply.headers_mut().insert("x-inference-job-id", id);
    }
    let status = Status {
        status: reply.status().as_u16(),
    };
    app.metrics.replies.get_or_create(&status).inc();
    reply
}

async fn dispatch(
    app: &Arc<App>,
    id: RequestId,
    request: Request<Incoming>,
) -> Result<Reply, Envelope> {
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::GET | &Method::HEAD, "/health") => Ok(health(app)),
        (&Method::GET, "/metrics") => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            Ok(whole(StatusCode::OK, kind, app.metrics.page()))
        }
        (&Method::GET, "/ws/provider") => upgrade::answer(app, request),
        (&Method::POST, "/v1/chat/completions") => {
            let account = account(app, request.headers()).await?;
            chat::answer(app, id, account, request).await
        }
        (&Method::GET, "/v1/models") => Ok(models(app)),
        (&Method::GET, path) if path.starts_with("/v1/models/") => {
            model(app, &path["/v1/models/".len()..])
        }
        (&Method::GET, path) if path.starts_with("/v1/receipts/") => {
            let account = account(app, request.headers()).await?;
            receipt(app, account, &path["/v1/receipts/".len()..])
        }
        (method, path) => {
            let text = format!("endpoint {method} {path} is not implemented");
            let (kind, code) = ("invalid_request_error", "not_found");
            Err(complaint(StatusCode::NOT_FOUND, kind, code, text))
        }
    }
}

/// The account of the caller's key: `Authorization: Bearer`, else `X-Api-Key` (`spec/api` 2.1).
async fn account(app: &App, headers: &HeaderMap) -> Result<AccountId, Envelope> {
    let key = bearer(headers)
        .or_else(|| headers.get("x-api-key")?.to_str().ok())
        .filter(|key| !key.is_empty())
        .ok_or_else(Envelope::missing_key)?;
    let account = app.directory.account(key).await;
    account.ok_or_else(|| Denial::UnknownAccount.into())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn health(app: &App) -> Reply {
    let mut body = json!({
        "status": "ok",
        "providers": app.metrics.providers.get(),
        "providers_verified": app.metrics.providers_verified.get(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    if app.is_draining() {
        body["draining"] = json!(true);
    }
    whole(StatusCode::OK, JSON, body.to_string())
}

fn models(app: &App) -> Reply {
    let mut body = Vec::new();
    write_models(&app.config.catalog, app.started_unix_s, &mut body);
    whole(StatusCode::OK, JSON, body)
}

/// Slashes in ids come raw or as `%2F` (`spec/api` 11.1).
fn model(app: &App, id: &str) -> Result<Reply, Envelope> {
    let id = id.replace("%2F", "/").replace("%2f", "/");
    let spec = app
        .config
        .catalog
        .find(&id)
        .and_then(|model| app.config.catalog.spec(model));
    let spec = spec.ok_or(Denial::UnknownModel)?;
    let mut body = Vec::new();
    write_model(spec, app.started_unix_s, &mut body);
    Ok(whole(StatusCode::OK, JSON, body))
}

fn receipt(app: &App, account: AccountId, id: &str) -> Result<Reply, Envelope> {
    let receipt = app.receipts.find(id, account, &app.config.catalog);
    let receipt = receipt.ok_or_else(|| {
        let text = "no receipt of that id is kept; only the newest are";
        complaint(StatusCode::NOT_FOUND, "not_found", "not_found", text)
    })?;
    Ok(whole(StatusCode::OK, JSON, receipt.to_string()))
}

/// An id that the caller chose, if it is fit to be repeated in a header.
fn echoed_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get("x-request-id")?;
    let text = value.to_str().ok()?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    let is_fit = (1..=REQUEST_ID_CHARS_MAX).contains(&text.len()) && text.chars().all(is_plain);
    is_fit.then(|| value.clone())
}

fn random_bits() -> u128 {
    let mut bytes = [0; 16];
    secure_rand_bytes(&mut bytes).expect("the system gives randomness");
    u128::from_le_bytes(bytes)
}
