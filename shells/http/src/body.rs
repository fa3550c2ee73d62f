//! Reads a request's body within its limits of size and time.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use cereus_core::api::{Envelope, Refusal};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::StatusCode;

use crate::reply::complaint;

/// How much of an oversized body is still read and dropped, so that its sender hears why instead of
/// a broken connection.
const DISCARD_SIZE_MAX: usize = 64 << 20;
/// How long a pause of its sender may be meanwhile.
const DISCARD_PAUSE_MAX: Duration = Duration::from_millis(500);
const BODY_WAIT: Duration = Duration::from_secs(60);

/// All of a body of at most `size_max` bytes, after its compression was undone.
///
/// # Errors
/// 413 when it is larger, 408 when it takes too long, 400 when it breaks off or is not what its
/// Content-Encoding says.
pub async fn read(body: Body, size_max: usize) -> Result<Bytes, Envelope> {
    match tokio::time::timeout(BODY_WAIT, collect(body, size_max)).await {
        Ok(read) => read,
        Err(_) => {
            let text = format!("the body did not arrive within {} s", BODY_WAIT.as_secs());
            Err(complaint(StatusCode::REQUEST_TIMEOUT, "timeout", text))
        }
    }
}

async fn collect(mut body: Body, size_max: usize) -> Result<Bytes, Envelope> {
    let expected = body.size_hint().lower();
    let mut is_too_large = expected > size_max as u64;
    let mut read = BytesMut::new();
    let mut discarded = 0;
    loop {
        let next = body.frame();
        let frame = if is_too_large {
            // A sender that waits for the verdict, or has none of what it announced, gets it now.
            let Ok(frame) = tokio::time::timeout(DISCARD_PAUSE_MAX, next).await else {
                break;
            };
            frame
        } else {
            next.await
        };
        let Some(frame) = frame else {
            break;
        };
        let frame = frame.map_err(|_| {
            let text = "the body ended before its announced length, or is not compressed as its \
                        Content-Encoding says";
            complaint(StatusCode::BAD_REQUEST, "invalid_request_error", text)
        })?;
        let Ok(piece) = frame.into_data() else {
            continue;
        };
        is_too_large |= read.len() + piece.len() > size_max;
        if !is_too_large {
            if read.is_empty() && body.is_end_stream() {
                // The usual case: all came at once, and is handed on without a copy.
                return Ok(piece);
            }
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
        return Err(Refusal::TooLarge { size_max }.into());
    }
    Ok(read.freeze())
}
