//! Reads a request's body within its limits of size and time.

use std::time::Duration;

use cereus_core::api::Envelope;
use cereus_engine::chat::BODY_BYTES_MAX;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::StatusCode;
use hyper::body::{Body as _, Incoming};

use super::reply::complaint;

const BODY_WAIT: Duration = Duration::from_secs(60);

pub(super) async fn read(body: Incoming) -> Result<Vec<u8>, Envelope> {
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let limited = Limited::new(body, BODY_BYTES_MAX);
    let collected = tokio::time::timeout(BODY_WAIT, limited.collect()).await;
    let Ok(collected) = collected else {
        let text = format!("the body did not arrive within {} s", BODY_WAIT.as_secs());
        return Err(complaint(StatusCode::REQUEST_TIMEOUT, "timeout", text));
    };
    match collected {
        Ok(body) => Ok(body.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(_) => {
            let text = "the body ended before its announced length";
            Err(complaint(
                StatusCode::BAD_REQUEST,
                "invalid_request_error",
                text,
            ))
        }
    }
}

fn too_large() -> Envelope {
    let text = format!("the body exceeds {BODY_BYTES_MAX} bytes");
    complaint(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", text)
}
