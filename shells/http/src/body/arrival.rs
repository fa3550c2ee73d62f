//! A body as its sender sends it: how long it may pause, and how slow it may be.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use cereus_core::api::Envelope;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::StatusCode;
use thiserror::Error;
use tokio::time::{Instant, timeout};

use super::{BODY_WAIT, SMALL, not_as_said};
use crate::reply::complaint;

/// How long a pause of its sender may be.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(15);
/// Bytes a second of a body that is no longer small: half a megabit, as the slowest lines have. A
/// slower one would hold its room for long.
const PACE_MIN: usize = 64 << 10;
/// Over how long that is counted; also how long a large body may be slower at first.
pub(super) const PACE_WINDOW: Duration = Duration::from_secs(5);
const WINDOW_SIZE_MIN: usize = PACE_MIN * 5;
const _: () = assert!(PACE_WINDOW.as_secs() == 5, "so many seconds of the pace");

pub(super) struct Arrival {
    body: Body,
    size: usize,
    /// What is left of the time for all of it. Waits of this side, for room, do not count.
    wait_left: Duration,
    /// Of the running window: what has come, and how long its sender was waited for. Waits of this
    /// side do not count.
    window_size: usize,
    waited: Duration,
}

/// Why no more is read, on its way through a decoder.
#[derive(Debug, Error)]
#[error("the body is refused")]
pub(super) struct Refused(pub(super) Envelope);

impl Arrival {
    pub(super) const fn of(body: Body) -> Self {
        Self {
            body,
            size: 0,
            wait_left: BODY_WAIT,
            window_size: 0,
            waited: Duration::ZERO,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.body.is_end_stream()
    }

    /// The next piece; `None` after the last.
    ///
    /// # Errors
    /// 408 when its sender pauses or takes too long or is too slow, 400 when it broke off.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Envelope> {
        loop {
            let is_large = self.size > SMALL;
            let wait_max = match is_large {
                true => PACE_WINDOW.saturating_sub(self.waited),
                false => PAUSE_MAX,
            };
            let begun = Instant::now();
            let frame = timeout(wait_max.min(self.wait_left), self.body.frame()).await;
            let took = begun.elapsed();
            self.waited += took;
            self.wait_left = self.wait_left.saturating_sub(took);
            if frame.is_err() && self.wait_left.is_zero() {
                let text = format!("the body did not arrive within {} s", BODY_WAIT.as_secs());
                return Err(late(text));
            }
            if frame.is_err() && !is_large {
                let text = format!("the body paused for {} s", PAUSE_MAX.as_secs());
                return Err(late(text));
            }
            let piece = match frame {
                Err(_) => None,
                Ok(None) => return Ok(None),
                Ok(Some(frame)) => frame.map_err(|_| not_as_said())?.into_data().ok(),
            };
            let size = piece.as_ref().map_or(0, Bytes::len);
            self.size += size;
            self.window_size += size;
            self.keep_pace(is_large)?;
            if piece.is_some() {
                return Ok(piece);
            }
        }
    }

    fn keep_pace(&mut self, is_large: bool) -> Result<(), Envelope> {
        if is_large && self.waited < PACE_WINDOW {
            return Ok(());
        }
        if is_large && self.window_size < WINDOW_SIZE_MIN {
            let text = format!(
                "the body came too slowly: what is larger than {} KiB has to come with {} KiB a \
                 second",
                SMALL >> 10,
                PACE_MIN >> 10
            );
            return Err(late(text));
        }
        self.window_size = 0;
        self.waited = Duration::ZERO;
        Ok(())
    }
}

fn late(text: String) -> Envelope {
    complaint(StatusCode::REQUEST_TIMEOUT, "timeout", text)
}
