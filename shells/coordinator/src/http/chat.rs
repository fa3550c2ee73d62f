//! `POST /v1/chat/completions`, streamed and plain.

use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::StatusCode;
use bytes::Bytes;
use cereus_core::api::{Delivery, Envelope, Request, Sizes, Writer};
use cereus_core::denial::Denial;
use cereus_core::ids::AccountId;
use cereus_core::relay::{Relay, Shape};
use cereus_http::{Call, Pieces, Reply, aside, events, json};

use crate::answer::{Answer, Asked, Head, Stream};
use crate::app::App;
use crate::control::Notice;
use crate::ending::About;
use crate::store::unix_now_s;

pub(super) async fn answer(
    app: &Arc<App>,
    account: AccountId,
    call: Call,
) -> Result<Reply, Envelope> {
    let Call { id, body, endpoint } = call;
    if app.folder_trouble.borrow().is_some() {
        return Err(Denial::HoldOverdue.into());
    }
    // Read and lowered in one go: what that takes beside the body is bounded by the turns.
    let turn = app.lowering.acquire().await;
    let chat = aside(body.len(), || Request::read(endpoint.api(), &body))?;
    chat.one_answer()?;
    let model = chat.named_model()?;
    let rules = app.rules();
    let catalog = &rules.catalog;
    let mut ask = chat.ask(id, account, catalog)?;
    let spec = catalog.spec(ask.model).ok_or(Denial::UnknownModel)?;
    let mut lowered = Vec::with_capacity(body.len() + 64);
    aside(body.len(), || {
        ask.prefix = chat.prefix(&app.prefix_secret, account, ask.model);
        chat.lower(&spec.id, ask.output_tokens_max, &mut lowered);
        // Withheld members may have been most of it.
        lowered.shrink_to_fit();
    });
    let created = u64::try_from(unix_now_s()).unwrap_or_default();
    let writer = Writer::relayed(chat.api, id, created, model);
    let relay = Relay::new(writer, Shape::of(&chat, ask.output_tokens_max));
    let delivery = chat.delivery;
    let sizes = Sizes {
        prompt_tokens: ask.prompt_tokens,
        output_tokens_max: ask.output_tokens_max,
        context_tokens: spec.context_tokens,
    };
    let about = About {
        account,
        model: spec.id.clone(),
        prompt_tokens: ask.prompt_tokens,
    };
    drop((rules, chat));
    // The body is freed, and its room as far as it is not needed for what takes its place.
    let body = Bytes::from(body.replaced_by(lowered));
    drop(turn);
    let scope = app.scope_key.scope(account);
    let asked = Asked {
        id,
        about,
        body,
        scope,
    };
    let answer = Answer::new(app.clock.now(), asked, relay);

    // From here on, dropping `stream` is the consumer leaving.
    let stream = Stream::new(Arc::clone(app), id, Arc::clone(&answer));
    let arrived = Notice::Arrived { ask, answer };
    app.control
        .send(arrived)
        .await
        .map_err(|_| Denial::Draining)?;
    match stream.head().await {
        Head::Refused(denial) => Err(Envelope::of(denial, sizes)),
        Head::Open => Ok(match delivery {
            Delivery::Whole => json(StatusCode::OK, stream.whole().await),
            Delivery::Streamed => events(stream),
        }),
    }
}

impl Pieces for Stream {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.poll_bytes(context)
    }
}
