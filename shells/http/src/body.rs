//! Reads a request's body within its limits of size and time.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use cereus_core::api::{Envelope, Refusal};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::StatusCode;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::reply::complaint;

/// How much of an oversized body is still read and dropped, so that its sender hears why instead of
/// a broken connection.
const DISCARD_SIZE_MAX: usize = 64 << 20;
/// How long a pause of its sender may be meanwhile.
const DISCARD_PAUSE_MAX: Duration = Duration::from_millis(500);
const BODY_WAIT: Duration = Duration::from_secs(60);
/// How long a pause of its sender may be.
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// Bytes of a body that has not come whole which need no room: most are smaller.
const SMALL: usize = 64 << 10;
/// KiB that all other bodies of the process have together while they come.
const ROOM_KIB: u32 = 256 << 10;
/// How long one waits for room.
const ROOM_WAIT: Duration = Duration::from_secs(5);

/// See [`ROOM_KIB`].
static ROOM: Semaphore = Semaphore::const_new(ROOM_KIB as usize);

/// All of a body of at most `size_max` bytes, after its compression was undone.
///
/// # Errors
/// 413 when it is larger, 408 when it takes or pauses too long, 429 when too many large ones come at
/// once, 400 when it breaks off or is not what its Content-Encoding says.
pub async fn read(body: Body, size_max: usize) -> Result<Bytes, Envelope> {
    match tokio::time::timeout(BODY_WAIT, collect(body, size_max)).await {
        Ok(read) => read,
        Err(_) => {
            let text = format!("the body did not arrive within {} s", BODY_WAIT.as_secs());
            Err(complaint(StatusCode::REQUEST_TIMEOUT, "timeout", text))
        }
    }
}

/// Room for as many bytes as `held` and these.
async fn make_room(
    held: &mut Option<SemaphorePermit<'static>>,
    bytes: usize,
) -> Result<(), Envelope> {
    let kib = u32::try_from(bytes.div_ceil(1_024))
        .unwrap_or(u32::MAX)
        .min(ROOM_KIB);
    let more = tokio::time::timeout(ROOM_WAIT, ROOM.acquire_many(kib)).await;
    let Ok(Ok(more)) = more else {
        let text = "too many large requests come at once: try again in a moment";
        return Err(complaint(
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limit_exceeded",
            text,
        ));
    };
    match held {
        Some(held) => held.merge(more),
        None => *held = Some(more),
    }
    Ok(())
}

async fn collect(mut body: Body, size_max: usize) -> Result<Bytes, Envelope> {
    let expected = body.size_hint().lower();
    let mut is_too_large = expected > size_max as u64;
    let mut read = BytesMut::new();
    // The share of the memory for bodies that this one takes while it comes in. Once whole it is
    // parsed at once and dropped.
    let mut room = None;
    let mut discarded = 0;
    loop {
        let next = body.frame();
        let frame = if is_too_large {
            // The body is refused already and the rest only discarded. A sender that pauses waits
            // for the answer, or has no more to send, so it gets the answer now.
            let Ok(frame) = tokio::time::timeout(DISCARD_PAUSE_MAX, next).await else {
                break;
            };
            frame
        } else {
            let Ok(frame) = tokio::time::timeout(PAUSE_MAX, next).await else {
                let text = format!("the body paused for {} s", PAUSE_MAX.as_secs());
                return Err(complaint(StatusCode::REQUEST_TIMEOUT, "timeout", text));
            };
            frame
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
            if read.len() + piece.len() > SMALL {
                make_room(&mut room, piece.len()).await?;
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
