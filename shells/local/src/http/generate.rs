//! `POST /v1/chat/completions` and `POST /v1/completions`, streamed and plain.

use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::{HeaderValue, StatusCode};
use bytes::Bytes;
use cereus_core::api::{Delivery, Echo, Envelope, Request, Writer};
use cereus_engine::chat::{ChatRequest, Input};
use cereus_http::{Call, Pieces, Reply, aside, events, json};

use super::known;
use crate::answer::{self, Stream};
use crate::app::{App, Waiting, unix_now_s};
use crate::wire::{StreamWriter, UsageChunk, envelope, whole};

const MEMORY_TOKENS: &str = "x-memory-tokens-max";

pub(super) async fn reply(app: &Arc<App>, call: Call) -> Result<Reply, Envelope> {
    let Call { id, endpoint, body } = call;
    let bytes = body.len();
    let request = aside(bytes, || Request::read(endpoint.api(), &body))?;
    known(app, request.model.as_deref())?;
    let refused = |failure| envelope(&failure);
    let permit = app.permit().map_err(refused)?;
    let (mut answers, mut heads) = (vec![], vec![]);
    let asked = aside(bytes, || ChatRequest::each(&request));
    let (choices, echo, api, delivery) =
        (request.choices, request.echo, request.api, request.delivery);
    let include_usage = request.include_usage;
    let place = Waiting::new(permit, body);
    aside(bytes, || {
        for asked in asked {
            for choice in 0..choices {
                heads.push(head(&asked, echo));
                let asked = asked.choice(u64::from(choice));
                let answer = app.ask(asked, Arc::clone(&place));
                answers.push(answer.map_err(refused)?);
            }
        }
        Ok::<_, Envelope>(())
    })?;
    let per_prompt = choices as usize;
    let writer = Writer::direct(api, id, unix_now_s(), &app.model_id).of_answers(heads);
    match delivery {
        Delivery::Streamed => {
            for answer in &mut answers {
                answer.accepted().await.map_err(refused)?;
            }
            let usage = if include_usage {
                UsageChunk::Last
            } else {
                UsageChunk::Absent
            };
            let writer = StreamWriter::new(writer, answers.len(), per_prompt, usage);
            Ok(bounded(app, events(Stream::new(answers, writer))))
        }
        Delivery::Whole => {
            let answers = answer::whole(answers).await.map_err(refused)?;
            let body = whole(&writer, &answers, per_prompt);
            Ok(bounded(app, json(StatusCode::OK, body)))
        }
    }
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

/// What stands before an answer.
fn head(asked: &ChatRequest, echo: Echo) -> String {
    match (echo, &asked.input) {
        (Echo::Prompt, Input::Text(text)) => text.clone(),
        (Echo::Prompt | Echo::Nothing, Input::Conversation(_) | Input::Tokens(_))
        | (Echo::Nothing, Input::Text(_)) => String::new(),
    }
}

impl Pieces for Stream {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.poll_bytes(context)
    }
}
