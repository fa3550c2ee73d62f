//! Replies: whole bodies, streams of events, error envelopes.

use std::borrow::Cow;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use cereus_core::api::Envelope;
use http_body::Frame;
use hyper::StatusCode;
use hyper::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};

use crate::body::PACKINGS;

pub type Reply = Response;

const JSON: &str = "application/json";

/// A whole body of JSON.
#[must_use]
pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    bytes(status, JSON, body)
}

/// A whole body of any type.
#[must_use]
pub fn bytes(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Body::from(body.into()));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// What a stream of server-sent events is made of.
pub trait Pieces: Send + Unpin + 'static {
    /// Everything that has gathered since the last time, as one piece; `None` after the last.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>>;
}

/// By this nginx and its kin pass pieces on as they come; by default they gather them.
const ACCEL_BUFFERING: &str = "x-accel-buffering";

/// A stream of server-sent events. Dropping it is its reader leaving.
#[must_use]
pub fn events(pieces: impl Pieces) -> Reply {
    let mut reply = Response::new(Body::new(Stream(pieces)));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    reply
}

struct Stream<P>(P);

impl<P: Pieces> http_body::Body for Stream<P> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.get_mut().0.poll_piece(context);
        piece.map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// What HTTP itself finds wrong with a request; all else is worded by the core or the engine.
#[must_use]
pub fn complaint(
    status: StatusCode,
    code: &'static str,
    message: impl Into<Cow<'static, str>>,
) -> Envelope {
    Envelope {
        status: status.as_u16(),
        kind: "invalid_request_error",
        code,
        param: None,
        message: message.into(),
        retry_after_s: None,
        should_retry: None,
    }
}

/// An error envelope as a reply.
#[derive(Clone, Debug)]
pub struct Failed(pub Envelope);

impl From<Envelope> for Failed {
    fn from(envelope: Envelope) -> Self {
        Self(envelope)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let Self(envelope) = self;
        let mut body = Vec::with_capacity(256);
        envelope.write(&mut body);
        // 499 and the like are outside the registry, inside the range.
        let status =
            StatusCode::from_u16(envelope.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut reply = json(status, body);
        let headers = reply.headers_mut();
        if status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(PACKINGS));
        }
        if let Some(seconds) = envelope.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(should) = envelope.should_retry {
            let text = if should { "true" } else { "false" };
            headers.insert("x-should-retry", HeaderValue::from_static(text));
        }
        reply
    }
}
