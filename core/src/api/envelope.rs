//! The error envelope: `{"error":{"message","type","param","code"}}`.

use std::borrow::Cow;

use super::json::quote;
use super::refusal::Refusal;
use crate::denial::Denial;
use crate::event::Ask;

/// One error as HTTP shows it. Status, headers and body are all here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    pub status: u16,
    /// `type`.
    pub kind: &'static str,
    pub code: &'static str,
    pub param: Option<Cow<'static, str>>,
    pub message: Cow<'static, str>,
    /// For the Retry-After header.
    pub retry_after_s: Option<u16>,
    /// For the `x-should-retry` header, where the status alone would mislead a client.
    pub should_retry: Option<bool>,
}

/// How large a request is, and what it must fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub prompt_tokens: u32,
    pub output_tokens_max: u32,
    pub context_tokens: u32,
}

impl Envelope {
    const fn plain(status: u16, kind: &'static str, message: &'static str) -> Self {
        Self {
            status,
            kind,
            code: kind,
            param: None,
            message: Cow::Borrowed(message),
            retry_after_s: None,
            should_retry: None,
        }
    }

    #[must_use]
    pub fn missing_key() -> Self {
        Self {
            code: "invalid_api_key",
            ..Self::plain(
                401,
                "authentication_error",
                "No API key was given. Send it as `Authorization: Bearer KEY`.",
            )
        }
    }

    /// A denial in the words of the request that it is about.
    #[must_use]
    pub fn of(denial: Denial, sizes: Sizes) -> Self {
        let mut envelope = Self::from(denial);
        if denial.is_of_length() {
            let Sizes {
                prompt_tokens,
                output_tokens_max,
                context_tokens,
            } = sizes;
            let bytes = Ask::BYTES_PER_TOKEN;
            envelope.message = Cow::Owned(match denial {
                // A machine counts the prompt alone, and its own model may hold less than is sold.
                Denial::Client(_) => format!(
                    "The machine that had this request counted a prompt longer than its own model's \
                     context, which may be less than the {context_tokens} tokens that are sold and is \
                     not known here. By our estimate, a token for {bytes} bytes of text, the prompt has \
                     {prompt_tokens}. Shorten the prompt."
                ),
                _ => format!(
                    "The model's context is {context_tokens} tokens. By our estimate, a token for \
                     {bytes} bytes of text, the prompt has {prompt_tokens}; up to {output_tokens_max} \
                     more are asked for. Shorten the prompt or lower max_tokens."
                ),
            });
        }
        envelope
    }

    /// Appends the body.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"error\":{\"message\":");
        quote(&self.message, out);
        out.extend_from_slice(b",\"type\":");
        quote(self.kind, out);
        out.extend_from_slice(b",\"param\":");
        match &self.param {
            Some(param) => quote(param, out),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"code\":");
        quote(self.code, out);
        out.extend_from_slice(b"}}");
    }
}

impl From<Refusal> for Envelope {
    fn from(refusal: Refusal) -> Self {
        Self {
            status: refusal.status(),
            kind: "invalid_request_error",
            code: refusal.code(),
            param: refusal.place().map(|place| Cow::Owned(place.to_string())),
            message: Cow::Owned(refusal.to_string()),
            retry_after_s: None,
            should_retry: None,
        }
    }
}

impl From<Denial> for Envelope {
    fn from(denial: Denial) -> Self {
        Self {
            status: denial.status(),
            kind: kind(denial),
            code: denial.code(),
            param: param(denial).map(Cow::Borrowed),
            message: Cow::Borrowed(denial.text()),
            retry_after_s: denial.retry_after_s(),
            should_retry: should_retry(denial),
        }
    }
}

/// `type` of the envelope: the class of error by which clients choose an exception.
const fn kind(denial: Denial) -> &'static str {
    match denial {
        Denial::Broke => "insufficient_funds",
        Denial::Cancelled => "request_cancelled",
        Denial::Client(_) | Denial::TooLong => "invalid_request_error",
        Denial::Draining => "service_unavailable",
        Denial::AnswerTooLarge | Denial::Encryption | Denial::ProviderFailed => "provider_error",
        Denial::HoldOverdue => "service_unavailable",
        Denial::Internal => "server_error",
        Denial::Full { .. }
        | Denial::NoProvider { .. }
        | Denial::NoneLargeEnough { .. }
        | Denial::NoneSuited { .. } => "rate_limit_exceeded",
        Denial::Timeout => "timeout",
        Denial::UnknownAccount => "authentication_error",
        Denial::UnknownModel => "model_not_found",
    }
}

const fn param(denial: Denial) -> Option<&'static str> {
    match denial {
        Denial::Client(Denial::LENGTH_STATUS) | Denial::TooLong => Some("messages"),
        Denial::UnknownModel => Some("model"),
        Denial::AnswerTooLarge
        | Denial::Broke
        | Denial::Cancelled
        | Denial::Client(_)
        | Denial::Draining
        | Denial::Encryption
        | Denial::Full { .. }
        | Denial::HoldOverdue
        | Denial::Internal
        | Denial::NoProvider { .. }
        | Denial::NoneLargeEnough { .. }
        | Denial::NoneSuited { .. }
        | Denial::ProviderFailed
        | Denial::Timeout
        | Denial::UnknownAccount => None,
    }
}

/// Clients repeat every 5xx.
const fn should_retry(denial: Denial) -> Option<bool> {
    match denial {
        // Whoever asks again for the same gets the same.
        Denial::AnswerTooLarge => Some(false),
        Denial::Broke
        | Denial::Cancelled
        | Denial::Client(_)
        | Denial::Draining
        | Denial::Encryption
        | Denial::Full { .. }
        | Denial::HoldOverdue
        | Denial::Internal
        | Denial::NoProvider { .. }
        | Denial::NoneLargeEnough { .. }
        | Denial::NoneSuited { .. }
        | Denial::ProviderFailed
        | Denial::Timeout
        | Denial::TooLong
        | Denial::UnknownAccount
        | Denial::UnknownModel => None,
    }
}
