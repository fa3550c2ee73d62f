//! Reads a request's body within its limits of size, time and room.

mod arrival;
mod packing;
mod room;

use std::io;
use std::time::Duration;

use axum::body::Body;
use bytes::BytesMut;
use cereus_core::api::{Envelope, Refusal};
use http_body::Body as _;
use hyper::StatusCode;
use tokio::io::AsyncReadExt as _;
use tokio::task::coop::consume_budget;

use self::arrival::Arrival;
pub(crate) use self::packing::{PACKINGS, Packing};
pub use self::room::Kept;
pub(crate) use self::room::{Bodies, Place, Whose};
use crate::reply::complaint;

/// How long a sender may be waited for, all in all.
const BODY_WAIT: Duration = Duration::from_secs(60);
/// Bytes of a body that need no room and keep no pace: most are smaller.
const SMALL: usize = 64 << 10;

/// All of a body of at most `size_max` bytes, after its compression was undone, in what it needs of its
/// place.
///
/// # Errors
/// 413 when it is larger, 408 when its sender takes or pauses too long, 429 when too many large ones
/// come at once or are kept, 400 when it breaks off or is not what its Content-Encoding says.
pub(crate) async fn read(
    body: Body,
    packing: Packing,
    size_max: usize,
    place: Place,
) -> Result<Kept, Envelope> {
    match packing {
        Packing::Plain => collect(body, size_max, place).await,
        Packing::Brotli | Packing::Gzip | Packing::Zstd => {
            unpack(body, packing, size_max, place).await
        }
    }
}

async fn collect(body: Body, size_max: usize, mut place: Place) -> Result<Kept, Envelope> {
    let announced = body.size_hint().lower();
    let announced = usize::try_from(announced).unwrap_or(usize::MAX);
    if announced > size_max {
        return Err(Refusal::TooLarge { size_max }.into());
    }
    if announced > SMALL {
        // All of a caller's own share at once: two of its bodies that took it bit by bit could each
        // wait for the other.
        place.promise(announced).await?;
    }
    let mut arrival = Arrival::of(body);
    let mut read = BytesMut::new();
    while let Some(piece) = arrival.next().await? {
        let size = read.len() + piece.len();
        if size > size_max {
            return Err(Refusal::TooLarge { size_max }.into());
        }
        if size > SMALL {
            place.hold(size).await?;
        }
        if read.is_empty() && arrival.is_over() {
            // The usual case: all came at once, and is handed on without a copy.
            return Ok(Kept::of(piece, place));
        }
        read.extend_from_slice(&piece);
    }
    Ok(Kept::of(read.freeze(), place))
}

async fn unpack(
    body: Body,
    packing: Packing,
    size_max: usize,
    mut place: Place,
) -> Result<Kept, Envelope> {
    let mut arrival = Arrival::of(body);
    // Its beginning comes before there is a decoder, so that nobody has one for sending nothing.
    let mut first = BytesMut::new();
    while first.len() <= SMALL {
        let Some(piece) = arrival.next().await? else {
            break;
        };
        first.extend_from_slice(&piece);
    }
    let first = first.freeze();
    if packing.is_forbidden(&first) {
        return Err(not_as_said());
    }
    let decoder_size = packing.decoder_size();
    place.hold(decoder_size + first.len()).await?;
    let mut plain = packing.decoder(first, arrival);
    let mut read = BytesMut::new();
    let mut piece = BytesMut::with_capacity(SMALL);
    while plain.read_buf(&mut piece).await.map_err(envelope_of)? > 0 {
        let size = read.len() + piece.len();
        if size > size_max {
            return Err(Refusal::TooLarge { size_max }.into());
        }
        if size > SMALL {
            // Nobody knows how much there is: all of a share at once, as above.
            place.promise(decoder_size + size_max).await?;
        }
        place.hold(decoder_size + size).await?;
        read.extend_from_slice(&piece);
        piece.clear();
        // A decoder that has its input never waits by itself.
        consume_budget().await;
    }
    drop(plain);
    Ok(Kept::of(read.freeze(), place))
}

/// What a decoder met: what its input was refused for, else that it is none of its own.
fn envelope_of(error: io::Error) -> Envelope {
    match error.downcast::<arrival::Refused>() {
        Ok(refused) => refused.0,
        Err(_) => not_as_said(),
    }
}

fn not_as_said() -> Envelope {
    let text = "the body ended before its announced length, or is not compressed as its \
                Content-Encoding says";
    complaint(StatusCode::BAD_REQUEST, "invalid_request_error", text)
}

#[cfg(test)]
mod tests;
