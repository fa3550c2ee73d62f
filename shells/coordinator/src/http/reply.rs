//! Replies: whole bodies, streams, error envelopes.

use std::borrow::Cow;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use cereus_core::api::Envelope;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use crate::answer::Stream;

/// The body of any reply of this server.
#[derive(Debug)]
pub(crate) enum ReplyBody {
    Stream(Stream),
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

pub(crate) type Reply = Response<ReplyBody>;

pub(super) const JSON: &str = "application/json";

pub(crate) fn whole(
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

/// What HTTP itself finds wrong; all else is worded by the core.
pub(super) fn complaint(
    status: StatusCode,
    kind: &'static str,
    code: &'static str,
    message: impl Into<Cow<'static, str>>,
) -> Envelope {
    Envelope {
        status: status.as_u16(),
        kind,
        code,
        param: None,
        message: message.into(),
        retry_after_s: None,
        should_retry: None,
    }
}

pub(crate) fn failed(envelope: &Envelope) -> Reply {
    let mut body = Vec::with_capacity(256);
    envelope.write(&mut body);
    // 499 and the like are outside the registry, inside the range.
    let status = StatusCode::from_u16(envelope.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut reply = whole(status, JSON, body);
    let headers = reply.headers_mut();
    if let Some(seconds) = envelope.retry_after_s {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(should) = envelope.should_retry {
        let text = if should { "true" } else { "false" };
        headers.insert("x-should-retry", HeaderValue::from_static(text));
    }
    reply
}
