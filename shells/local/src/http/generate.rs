//! `POST /v1/chat/completions` and `POST /v1/completions`, streamed and plain.

use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::{HeaderValue, StatusCode};
use bytes::Bytes;
use cereus_core::api::Envelope;
use cereus_http::{Call, Endpoint, Pieces, Reply, complaint, events, json};
use serde::Deserialize;
use serde_json::error::Category;

use super::known;
use crate::answer::Stream;
use crate::app::{App, unix_now_s};
use crate::wire::{Shape, StreamWriter, UsageChunk, envelope};

const MEMORY_TOKENS: &str = "x-memory-tokens-max";

/// What concerns the server and not the engine.
#[derive(Deserialize)]
struct Delivery {
    model: Option<String>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    messages: Option<serde::de::IgnoredAny>,
    prompt: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

pub(super) async fn answer(app: &Arc<App>, call: Call) -> Result<Reply, Envelope> {
    let Call { id, endpoint, body } = call;
    let delivery = delivery(&body)?;
    known(app, delivery.model.as_deref())?;
    let is_right = match endpoint {
        Endpoint::Chat => delivery.messages.is_some() && delivery.prompt.is_none(),
        Endpoint::Completions => delivery.prompt.is_some() && delivery.messages.is_none(),
    };
    if !is_right {
        return Err(invalid(match endpoint {
            Endpoint::Chat => "messages is required here, and prompt has no place",
            Endpoint::Completions => "prompt is required here, and messages has no place",
        }));
    }
    let refused = |failure| envelope(&failure);
    let mut answer = app.submit(body.into()).map_err(refused)?;
    let shape = match endpoint {
        Endpoint::Chat => Shape::chat(id, unix_now_s(), &app.model_id),
        Endpoint::Completions => Shape::text(id, unix_now_s(), &app.model_id),
    };
    if delivery.stream == Some(true) {
        answer.accepted().await.map_err(refused)?;
        let options = delivery.stream_options;
        let usage = match options.and_then(|options| options.include_usage) {
            Some(true) => UsageChunk::Last,
            None | Some(false) => UsageChunk::Absent,
        };
        let stream = Stream::new(answer, StreamWriter::new(shape, usage));
        return Ok(bounded(app, events(stream)));
    }
    let answer = answer.whole().await.map_err(refused)?;
    Ok(bounded(app, json(StatusCode::OK, shape.whole(&answer))))
}

/// Says how many tokens of prompt and answer there is memory for, where these are fewer than the model
/// takes: an answer that reaches them ends with `length` long before its reader expects it.
fn bounded(app: &App, mut reply: Reply) -> Reply {
    let capacity = app.capacity();
    if capacity.row_tokens_max < capacity.context_tokens {
        let tokens = HeaderValue::from(capacity.row_tokens_max);
        reply.headers_mut().insert(MEMORY_TOKENS, tokens);
    }
    reply
}

fn delivery(body: &[u8]) -> Result<Delivery, Envelope> {
    serde_json::from_slice(body).map_err(|cause| {
        let text = match cause.classify() {
            Category::Data => "model must be a string, stream a boolean, stream_options an object",
            Category::Eof | Category::Io | Category::Syntax => "the body is not JSON",
        };
        invalid(text)
    })
}

fn invalid(text: &'static str) -> Envelope {
    complaint(StatusCode::BAD_REQUEST, "invalid_request_error", text)
}

impl Pieces for Stream {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.poll_bytes(context)
    }
}
