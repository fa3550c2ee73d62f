//! One model behind the API's routes, with the routes that this server alone has.

mod generate;
mod status;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use cereus_core::api::{BODY_SIZE_MAX, Envelope};
use cereus_http::{Backend, Call, Endpoint, Names, OriginRule, Reply, complaint, routes};
use serde_json::{Value, json};

use crate::app::App;

pub(crate) fn router(app: &Arc<App>, names: Names, origins: OriginRule) -> Router {
    let own = Router::new()
        .route("/health", get(status::health))
        .route("/v1/health", get(status::health))
        .route("/metrics", get(status::metrics))
        .route("/v1/status", get(status::status))
        .with_state(Arc::clone(app));
    routes(app, own, names, origins)
}

impl Backend for App {
    /// All who reach this server are one.
    type Caller = ();
    const BODY_SIZE_MAX: usize = BODY_SIZE_MAX;
    const ENDPOINTS: &'static [Endpoint] = &Endpoint::ALL;
    const OWN_PATHS: &'static [&'static str] = &["/v1/status", "/health", "/metrics"];

    async fn caller(&self, _: &HeaderMap) -> Result<(), Envelope> {
        Ok(())
    }

    async fn answer(self: Arc<Self>, (): (), call: Call) -> Result<Reply, Envelope> {
        generate::reply(&self, call).await
    }

    fn models(&self) -> Vec<u8> {
        json!({"object": "list", "data": [model(self)]})
            .to_string()
            .into_bytes()
    }

    fn model(&self, id: &str) -> Result<Vec<u8>, Envelope> {
        known(self, Some(id))?;
        Ok(model(self).to_string().into_bytes())
    }

    fn admit(&self, path: &str, headers: &HeaderMap) -> Result<(), Envelope> {
        self.guard.admit(path, headers)
    }
}

/// The context is what one request may have here: less than the model's own where memory is short.
fn model(app: &App) -> Value {
    let context_tokens = app.capacity().row_tokens_max;
    json!({
        "id": app.model_id,
        "object": "model",
        "created": app.started_unix_s,
        "owned_by": "local",
        "input_modalities": ["text"],
        "output_modalities": ["text"],
        "context_length": context_tokens,
        "max_output_length": context_tokens,
    })
}

/// A request may leave the model out: there is only one.
fn known(app: &App, model: Option<&str>) -> Result<(), Envelope> {
    if model.is_none_or(|model| model == app.model_id) {
        return Ok(());
    }
    let text = format!(
        "this server has one model, `{}`; leave `model` out or name it",
        app.model_id
    );
    Err(Envelope {
        param: Some("model".into()),
        ..complaint(StatusCode::NOT_FOUND, "model_not_found", text)
    })
}
