//! Why a request was not served: a word, a status like HTTP's, and a text for people. `cereus local`
//! shows all three; a provider translates the word for its coordinator ("Errors" in
//! `docs/protocol.md`). The text never holds a part of a prompt.

use std::borrow::Cow;

use cereus_core::api::Refusal;
use thiserror::Error;

/// The closed vocabulary of `error_reason`, as far as an engine uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It waited too long for its turn.
    AdmissionTimeout,
    Cancelled,
    ClientError,
    Draining,
    JinjaTemplate,
    ProviderError,
    QueueFull,
    RequestExceedsContext,
    RequestExceedsNodeBudget,
    /// It took longer than any honest run of its size.
    SafetyDeadline,
    /// It made no progress for too long.
    Stalled,
}

impl Reason {
    pub const ALL: [Self; 11] = [
        Self::AdmissionTimeout,
        Self::Cancelled,
        Self::ClientError,
        Self::Draining,
        Self::JinjaTemplate,
        Self::ProviderError,
        Self::QueueFull,
        Self::RequestExceedsContext,
        Self::RequestExceedsNodeBudget,
        Self::SafetyDeadline,
        Self::Stalled,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AdmissionTimeout => "admission_timeout",
            Self::Cancelled => "cancelled",
            Self::ClientError => "client_error",
            Self::Draining => "draining",
            Self::JinjaTemplate => "jinja_template",
            Self::ProviderError => "provider_error",
            Self::QueueFull => "queue_full",
            Self::RequestExceedsContext => "request_exceeds_context",
            Self::RequestExceedsNodeBudget => "request_exceeds_node_budget",
            Self::SafetyDeadline => "safety_deadline",
            Self::Stalled => "provider_error",
        }
    }

    /// The HTTP-like status that goes with it.
    #[must_use]
    pub const fn status_code(self) -> u16 {
        match self {
            Self::ClientError | Self::RequestExceedsContext => 400,
            Self::JinjaTemplate => 422,
            Self::QueueFull => 429,
            Self::Cancelled => 499,
            Self::ProviderError | Self::Stalled => 500,
            Self::AdmissionTimeout | Self::Draining | Self::RequestExceedsNodeBudget => 503,
            Self::SafetyDeadline => 504,
        }
    }
}

/// A request that ended without an answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text}")]
pub struct Failure {
    pub reason: Reason,
    /// For people. Says what the reader can do where there is something to do.
    pub text: Cow<'static, str>,
    /// The field of the request that it is about.
    pub param: Option<Cow<'static, str>>,
}

impl Failure {
    #[must_use]
    pub fn new(reason: Reason, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            text: text.into(),
            param: None,
        }
    }

    #[must_use]
    pub fn cancelled() -> Self {
        Self::new(Reason::Cancelled, "request cancelled")
    }

    pub(crate) fn client(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Reason::ClientError, text)
    }

    /// A fault of one field, which the text names.
    pub(crate) fn field(param: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            param: Some(Cow::Borrowed(param)),
            ..Self::client(text)
        }
    }

    #[must_use]
    pub const fn status_code(&self) -> u16 {
        self.reason.status_code()
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self {
            param: refusal.place().map(|place| Cow::Owned(place.to_string())),
            ..Self::client(refusal.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_status_and_its_word() {
        let table = [
            (Reason::AdmissionTimeout, 503, "admission_timeout"),
            (Reason::Cancelled, 499, "cancelled"),
            (Reason::ClientError, 400, "client_error"),
            (Reason::Draining, 503, "draining"),
            (Reason::JinjaTemplate, 422, "jinja_template"),
            (Reason::ProviderError, 500, "provider_error"),
            (Reason::QueueFull, 429, "queue_full"),
            (
                Reason::RequestExceedsContext,
                400,
                "request_exceeds_context",
            ),
            (
                Reason::RequestExceedsNodeBudget,
                503,
                "request_exceeds_node_budget",
            ),
            (Reason::SafetyDeadline, 504, "safety_deadline"),
            (Reason::Stalled, 500, "provider_error"),
        ];
        assert_eq!(table.map(|(reason, _, _)| reason), Reason::ALL);
        for (reason, status, word) in table {
            assert_eq!((reason.status_code(), reason.as_str()), (status, word));
        }
    }
}
