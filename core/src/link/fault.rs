//! A provider's error as routing understands it: the table under "Errors" in `docs/protocol.md`.

use crate::denial::Denial;
use crate::event::AttemptFault;
use crate::wire::messages::InferenceError;

/// Whether we had given the attempt up before its error came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    ByItself,
    Cancelled,
}

/// First match wins: the reason, then the status. The free text is never read.
#[must_use]
pub fn fault_of(error: &InferenceError<'_>, ended: Ended) -> AttemptFault {
    match error.error_reason.as_str() {
        "jinja_channel_tags" | "jinja_null_bridge" | "jinja_template" => AttemptFault::Client(422),
        "model_load" => match error.status_code {
            404 => AttemptFault::ModelUnavailable,
            503 => AttemptFault::Busy,
            _ => AttemptFault::Internal,
        },
        "capacity_timeout" | "queue_full" | "token_budget_exhausted" => AttemptFault::Busy,
        "cancelled" => cancelled(ended),
        "client_error" => AttemptFault::Client(400),
        "request_exceeds_context" => AttemptFault::Client(Denial::LENGTH_STATUS),
        "tool_noncompliance" => AttemptFault::Internal,
        _ => by_status(error.status_code, ended),
    }
}

fn by_status(status: i64, ended: Ended) -> AttemptFault {
    match status {
        400 => AttemptFault::Client(400),
        404 => AttemptFault::ModelUnavailable,
        413 => AttemptFault::Client(413),
        415 => AttemptFault::Client(415),
        429 | 503 => AttemptFault::Busy,
        499 => cancelled(ended),
        _ => AttemptFault::Internal,
    }
}

/// A provider that cancels what nobody cancelled has failed: the request may go elsewhere.
const fn cancelled(ended: Ended) -> AttemptFault {
    match ended {
        Ended::ByItself => AttemptFault::Internal,
        Ended::Cancelled => AttemptFault::Cancelled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Text;

    #[test]
    fn the_error_vocabulary_maps_as_a_table() {
        use AttemptFault::{Busy, Cancelled, Client, Internal, ModelUnavailable};
        let table = [
            (422, "jinja_template", Client(422)),
            (500, "jinja_null_bridge", Client(422)),
            (500, "jinja_channel_tags", Client(422)),
            (404, "model_load", ModelUnavailable),
            (503, "model_load", Busy),
            (500, "model_load", Internal),
            (503, "capacity_timeout", Busy),
            (429, "queue_full", Busy),
            (500, "token_budget_exhausted", Busy),
            (499, "cancelled", Cancelled),
            (500, "client_error", Client(400)),
            (400, "request_exceeds_context", Client(413)),
            (422, "tool_noncompliance", Internal),
            (400, "", Client(400)),
            (404, "", ModelUnavailable),
            (413, "", Client(413)),
            (415, "", Client(415)),
            (422, "", Internal),
            (429, "", Busy),
            (499, "", Cancelled),
            (500, "", Internal),
            (501, "", Internal),
            (503, "", Busy),
            (0, "", Internal),
            (-1, "unheard_of", Internal),
            (503, "unheard_of", Busy),
            (500, "provider_error", Internal),
            (503, "unknown", Busy),
        ];
        for (status_code, reason, fault) in table {
            let error = InferenceError {
                status_code,
                error_reason: Text::from(reason),
                ..InferenceError::default()
            };
            assert_eq!(
                fault_of(&error, Ended::Cancelled),
                fault,
                "{status_code} {reason}"
            );
            let unasked = fault_of(&error, Ended::ByItself);
            let expected = if fault == Cancelled { Internal } else { fault };
            assert_eq!(unasked, expected, "{status_code} {reason}");
        }
    }
}
