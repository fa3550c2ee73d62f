//! Replies: whole bodies, streams, error envelopes.

use std::borrow::Cow;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use cereus_core::api::Envelope;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use crate::answer::Stream;

pub(super) const JSON: &str = "application/json";

/// The body of any reply of this server.
#[derive(Debug)]
pub(super) enum ReplyBody {
    Stream(Box<Stream>),
    Whole(Full<Bytes>),
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Stream(stream) => stream
                .poll_bytes(context)
                .map(|bytes| bytes.map(|it| Ok(Frame::data(it)))),
            Self::Whole(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Stream(_) => false,
            Self::Whole(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Stream(_) => SizeHint::default(),
            Self::Whole(body) => body.size_hint(),
        }
    }
}

pub(super) type Reply = Response<ReplyBody>;

pub(super) fn whole(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Reply {
    let mut reply = Response::new(ReplyBody::Whole(Full::new(body.into())));
    *reply.status_mut() = status;
    reply
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

pub(super) fn streamed(stream: Stream) -> Reply {
    let mut reply = Response::new(ReplyBody::Stream(Box::new(stream)));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    reply
}

/// What HTTP itself finds wrong; the engine words the rest.
pub(crate) fn complaint(
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

pub(super) fn failed(envelope: &Envelope) -> Reply {
    let mut body = Vec::with_capacity(256);
    envelope.write(&mut body);
    let status = StatusCode::from_u16(envelope.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut reply = whole(status, JSON, body);
    if let Some(seconds) = envelope.retry_after_s {
        let value = HeaderValue::from(seconds);
        reply.headers_mut().insert(RETRY_AFTER, value);
    }
    reply
}
