//! Refusals of the scheduler and of the leases, which are codes, as sentences for whoever
//! asked.

use crate::failure::{Failure, Reason};
use crate::scheduler::Refused;
use crate::scheduler::leases::Cause;

pub(super) fn overdue(cause: Cause) -> Failure {
    let (reason, text) = match cause {
        Cause::AdmissionTimeout => (
            Reason::AdmissionTimeout,
            "the request waited too long for its turn; try again later",
        ),
        Cause::BackpressureTimeout | Cause::Cancelled => return Failure::cancelled(),
        Cause::DecodeStall => (Reason::Stalled, "no token came for too long"),
        Cause::PrefillStall => (Reason::Stalled, "the prompt made no progress for too long"),
        Cause::SafetyDeadline => (
            Reason::SafetyDeadline,
            "the request took longer than any of its size may",
        ),
        Cause::Watchdog => (Reason::Stalled, "a step of the model did not end"),
    };
    Failure::new(reason, text)
}

pub(super) fn refusal(refused: Refused) -> Failure {
    let reason = match refused {
        Refused::Duplicate | Refused::Empty => Reason::ClientError,
        Refused::NeverFits => Reason::RequestExceedsNodeBudget,
        Refused::QueueFull => Reason::QueueFull,
        Refused::TooLong => Reason::RequestExceedsContext,
    };
    Failure::new(reason, refused.to_string())
}
