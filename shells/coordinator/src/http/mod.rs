//! The coordinator behind the API's routes, with the routes that it alone has.

mod chat;
mod upgrade;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use cereus_core::api::{BODY_SIZE_MAX, Envelope, write_model, write_models};
use cereus_core::denial::Denial;
use cereus_core::door::Origin;
use cereus_core::ids::AccountId;
use cereus_http::{
    Backend, Call, Connections, Endpoint, Failed, Names, OriginRule, Reply, complaint, json,
    routes, shown_key,
};
use serde_json::json;

use crate::app::App;
use crate::metrics::Status;
use crate::store::RECEIPT_DAYS_KEPT;

/// Every route. Any page may call them and under any name: who may spend is a question of keys.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let own = Router::new()
        .route("/health", get(health))
        .route("/ws/provider", get(upgrade::answer))
        .route("/v1/receipts/{id}", get(receipt))
        .with_state(Arc::clone(app));
    routes(app, own, Names::Any, OriginRule::Any)
}

/// What the operator's own port shows, and nothing else: the public one has no metrics.
pub(crate) fn metrics_router(app: &Arc<App>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .with_state(Arc::clone(app))
}

impl Backend for App {
    type Caller = AccountId;
    const BODY_SIZE_MAX: usize = BODY_SIZE_MAX;
    const ENDPOINTS: &'static [Endpoint] = &[Endpoint::Chat];
    const OWN_PATHS: &'static [&'static str] = &["/v1/receipts/{id}", "/health", "/ws/provider"];

    async fn caller(&self, headers: &HeaderMap) -> Result<AccountId, Envelope> {
        account(self, headers)
    }

    fn payer(account: &AccountId) -> Option<u64> {
        Some(account.0)
    }

    async fn answer(self: Arc<Self>, account: AccountId, call: Call) -> Result<Reply, Envelope> {
        match call.endpoint {
            Endpoint::Chat => chat::answer(&self, account, call).await,
            Endpoint::Completions => unreachable!("not among this server's endpoints"),
        }
    }

    fn models(&self) -> Vec<u8> {
        let mut body = Vec::new();
        write_models(&self.rules().catalog, self.started_unix_s, &mut body);
        body
    }

    fn model(&self, id: &str) -> Result<Vec<u8>, Envelope> {
        let rules = self.rules();
        let catalog = &rules.catalog;
        let spec = catalog.find(id).and_then(|model| catalog.spec(model));
        let mut body = Vec::new();
        write_model(
            spec.ok_or(Denial::UnknownModel)?,
            self.started_unix_s,
            &mut body,
        );
        Ok(body)
    }

    fn replied(&self, status: StatusCode) {
        let status = Status {
            status: status.as_u16(),
        };
        self.metrics.replies.get_or_create(&status).inc();
    }
}

impl Connections for App {
    fn opened(&self) {
        self.metrics.connections.inc();
    }

    fn closed(&self) {
        self.metrics.connections.dec();
    }

    fn origin(&self, peer: IpAddr) -> Option<Origin> {
        self.proxies.origin(peer)
    }
}

/// The account of the caller's key.
fn account(app: &App, headers: &HeaderMap) -> Result<AccountId, Envelope> {
    let key = shown_key(headers).ok_or_else(Envelope::missing_key)?;
    let account = app.directory.account(key);
    account.ok_or_else(|| Denial::UnknownAccount.into())
}

async fn health(State(app): State<Arc<App>>) -> Reply {
    let mut body = json!({
        "status": "ok",
        "providers": app.metrics.providers.get(),
        "providers_verified": app.metrics.providers_verified.get(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    if app.is_draining() {
        body["draining"] = json!(true);
    }
    if let Some(trouble) = &*app.folder_trouble.borrow() {
        body["status"] = json!("refusing");
        body["reason"] = json!(format!("new requests get 503: {trouble}"));
    }
    json(StatusCode::OK, body.to_string())
}

async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Reply {
    cereus_http::metrics(&headers, app.metrics.page())
}

async fn receipt(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Reply, Failed> {
    let account = account(&app, &headers)?;
    // What is no text names no receipt.
    let id = id.map_or_else(|_| String::new(), |Path(id)| id);
    let receipt = app.receipts.find(&id, account).await.map_err(|error| {
        tracing::error!(%error, "a receipt cannot be read");
        let text = "the receipt cannot be read now";
        Envelope {
            kind: "api_error",
            ..complaint(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", text)
        }
    })?;
    let receipt = receipt.ok_or_else(|| {
        let text = format!("no receipt of that id is kept; they go after {RECEIPT_DAYS_KEPT} days");
        complaint(StatusCode::NOT_FOUND, "not_found", text)
    })?;
    Ok(json(StatusCode::OK, receipt))
}
