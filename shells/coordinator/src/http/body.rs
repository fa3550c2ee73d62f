//! Reads a request's body within its limits of size and time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cereus_core::api::{BODY_SIZE_MAX, Envelope, Refusal};
use http_body_util::BodyExt as _;
use hyper::StatusCode;
use hyper::body::{Body, Incoming};

use super::reply::complaint;

/// How much of an oversized body is still read and dropped, so that its sender hears why instead of
/// a broken connection.
const DISCARD_SIZE_MAX: usize = 64 << 20;
const BODY_WAIT: Duration = Duration::from_secs(60);

pub(super) async fn read(body: Incoming) -> Result<Bytes, Envelope> {
    let too_slow = || {
        let text = format!("the body did not arrive within {} s", BODY_WAIT.as_secs());
        complaint(
            StatusCode::REQUEST_TIMEOUT,
            "invalid_request_error",
            "timeout",
            text,
        )
    };
    tokio::time::timeout(BODY_WAIT, collect(body))
        .await
        .map_err(|_| too_slow())?
}

async fn collect(mut body: Incoming) -> Result<Bytes, Envelope> {
    let expected = body.size_hint().lower();
    let mut is_too_large = expected > BODY_SIZE_MAX as u64;
    let mut read = BytesMut::new();
    let mut discarded = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            let text = "the body ended before its announced length";
            let kind = "invalid_request_error";
            complaint(StatusCode::BAD_REQUEST, kind, kind, text)
        })?;
        let Ok(piece) = frame.into_data() else {
            continue;
        };
        is_too_large |= read.len() + piece.len() > BODY_SIZE_MAX;
        if !is_too_large {
            read.extend_from_slice(&piece);
            continue;
        }
        read.clear();
        discarded += piece.len();
        if discarded > DISCARD_SIZE_MAX {
            break;
        }
    }
    if is_too_large {
        return Err(Refusal::TooLarge {
            size_max: BODY_SIZE_MAX,
        }
        .into());
    }
    Ok(read.freeze())
}
