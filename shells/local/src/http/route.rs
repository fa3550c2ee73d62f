//! Which request goes where.

use std::sync::Arc;

use cereus_core::api::Envelope;
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};

use super::generate::{self, Endpoint};
use super::reply::{JSON, Reply, complaint, failed, whole};
use super::status;
use crate::app::App;

pub(super) async fn answer(app: Arc<App>, request: Request<Incoming>) -> Reply {
    match dispatch(&app, request).await {
        Ok(reply) => reply,
        Err(envelope) => failed(&envelope),
    }
}

async fn dispatch(app: &Arc<App>, request: Request<Incoming>) -> Result<Reply, Envelope> {
    app.guard.admit(&request)?;
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::POST, "/v1/chat/completions") => {
            generate::answer(app, Endpoint::Chat, request.into_body()).await
        }
        (&Method::POST, "/v1/completions") => {
            generate::answer(app, Endpoint::Text, request.into_body()).await
        }
        (&Method::GET | &Method::HEAD, "/health" | "/v1/health") => Ok(status::health(app)),
        (&Method::GET, "/metrics") => Ok(status::metrics(app)),
        (&Method::GET, "/v1/models") => {
            let list = json!({"object": "list", "data": [model(app)]});
            Ok(whole(StatusCode::OK, JSON, list.to_string()))
        }
        (&Method::GET, path) if path.starts_with("/v1/models/") => {
            // Slashes in ids come raw or escaped.
            let id = path["/v1/models/".len()..]
                .replace("%2F", "/")
                .replace("%2f", "/");
            generate::known(app, Some(&id))?;
            Ok(whole(StatusCode::OK, JSON, model(app).to_string()))
        }
        (&Method::GET, "/v1/status") => Ok(status::status(app)),
        (method, path) => {
            let text = format!("endpoint {method} {path} is not implemented");
            Err(complaint(StatusCode::NOT_FOUND, "not_found", text))
        }
    }
}

fn model(app: &App) -> Value {
    json!({
        "id": app.model_id,
        "object": "model",
        "created": app.started_unix_s,
        "owned_by": "local",
    })
}
