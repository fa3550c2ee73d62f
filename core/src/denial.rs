//! Every way in which a request can be turned down, and what HTTP says of each.
//!
//! Shells convert a [`Denial`] at one place; status, type, code and text are functions of it and are
//! tested as a table.

use serde::{Deserialize, Serialize};

/// Why a request ended without an answer, or with half of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Denial {
    /// The account cannot cover the hold.
    Broke,
    /// The client went away.
    Cancelled,
    /// The provider said that the request itself is wrong, with this status.
    Client(u16),
    /// The coordinator is shutting down.
    // Digests hash the number of each: 3 was one that is gone.
    Draining = 4,
    /// The provider broke the encryption contract.
    Encryption,
    /// Every machine is busy and the queue is full, or the wait ran out.
    Full {
        retry_after_s: u16,
    },
    /// Nobody serves the model at present.
    NoProvider {
        retry_after_s: u16,
    },
    /// Machines serve the model, and none of them could hold this request even when idle.
    NoneLargeEnough {
        retry_after_s: u16,
    },
    /// Every attempt failed.
    ProviderFailed,
    /// Nobody answered in time.
    Timeout,
    /// Prompt and answer together are more than the model's context holds.
    TooLong,
    /// The account is not known to the core.
    UnknownAccount,
    UnknownModel,
    // The order is part of the digests of effects: what is newer stands below.
    /// A plain answer outgrew what one reply may hold. Nothing of it was shown, or costs anything.
    AnswerTooLarge,
    /// So much of a stream was held back, because its charge was not yet on disk, that it was given
    /// up. Nothing of it was shown, or costs anything.
    HoldOverdue,
    /// A mistake of our own.
    Internal,
    /// Machines serve the model, and none of them is what the request demands.
    NoneSuited {
        retry_after_s: u16,
    },
}

impl Denial {
    /// Every [`Denial::code`].
    pub const CODES: [&'static str; 17] = [
        "answer_too_large",
        "context_length_exceeded",
        "draining",
        "encryption_failure",
        "insufficient_quota",
        "internal_error",
        "invalid_api_key",
        "invalid_request",
        "ledger_busy",
        "machine_busy",
        "model_not_found",
        "no_provider",
        "no_provider_large_enough",
        "no_provider_suited",
        "provider_error",
        "request_cancelled",
        "timeout",
    ];

    /// The place of its code among [`Denial::CODES`].
    ///
    /// # Panics
    /// A code is missing there, which a test would find.
    #[must_use]
    pub fn code_ix(self) -> usize {
        let found = Self::CODES.binary_search(&self.code());
        found.expect("every code is listed, in order")
    }

    /// By this status a machine says that the prompt is longer than the model's context.
    pub const LENGTH_STATUS: u16 = 413;

    /// Whether the request is more than the model's context holds, by our word or a machine's.
    #[must_use]
    pub const fn is_of_length(self) -> bool {
        matches!(self, Self::TooLong | Self::Client(Self::LENGTH_STATUS))
    }

    /// HTTP status before the first byte. Being busy is 429 and not 503: those who resell the API count
    /// each 5xx as a failure of the service.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Broke => 402,
            Self::Cancelled => 499,
            Self::Client(Self::LENGTH_STATUS) => 400,
            Self::Client(status) => status,
            Self::HoldOverdue => 503,
            Self::Internal => 500,
            Self::Draining => 503,
            Self::AnswerTooLarge | Self::Encryption | Self::ProviderFailed => 502,
            Self::Full { .. }
            | Self::NoProvider { .. }
            | Self::NoneLargeEnough { .. }
            | Self::NoneSuited { .. } => 429,
            Self::Timeout => 504,
            Self::TooLong => 400,
            Self::UnknownAccount => 401,
            Self::UnknownModel => 404,
        }
    }

    /// Seconds for the Retry-After header.
    #[must_use]
    pub const fn retry_after_s(self) -> Option<u16> {
        match self {
            Self::Full { retry_after_s }
            | Self::NoProvider { retry_after_s }
            | Self::NoneLargeEnough { retry_after_s }
            | Self::NoneSuited { retry_after_s } => Some(retry_after_s),
            Self::Draining | Self::HoldOverdue => Some(5),
            Self::AnswerTooLarge
            | Self::Broke
            | Self::Cancelled
            | Self::Client(_)
            | Self::Encryption
            | Self::Internal
            | Self::ProviderFailed
            | Self::Timeout
            | Self::TooLong
            | Self::UnknownAccount
            | Self::UnknownModel => None,
        }
    }

    /// The `code` of the error envelope.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::AnswerTooLarge => "answer_too_large",
            Self::Broke => "insufficient_quota",
            Self::Cancelled => "request_cancelled",
            Self::Client(Self::LENGTH_STATUS) => "context_length_exceeded",
            Self::Client(_) => "invalid_request",
            Self::Draining => "draining",
            Self::Encryption => "encryption_failure",
            Self::Full { .. } => "machine_busy",
            Self::HoldOverdue => "ledger_busy",
            Self::Internal => "internal_error",
            Self::NoProvider { .. } => "no_provider",
            Self::NoneLargeEnough { .. } => "no_provider_large_enough",
            Self::NoneSuited { .. } => "no_provider_suited",
            Self::ProviderFailed => "provider_error",
            Self::Timeout => "timeout",
            Self::TooLong => "context_length_exceeded",
            Self::UnknownAccount => "invalid_api_key",
            Self::UnknownModel => "model_not_found",
        }
    }

    /// What a person reads, with what to do about it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::AnswerTooLarge => {
                "The answer is larger than one reply may be; nothing was charged. Ask with stream set \
                 to true, or lower max_tokens."
            }
            Self::Broke => {
                "The balance does not cover this request. Add credit or lower max_tokens."
            }
            Self::Cancelled => "The request was cancelled.",
            Self::Client(Self::LENGTH_STATUS) => {
                "The machine that had this request counted a prompt longer than its own context. \
                 Shorten the prompt."
            }
            Self::Client(_) => {
                "The provider cannot serve this request as it is written. Look for tools where the \
                 model's template takes none, a token number beyond its vocabulary, a pattern that \
                 does not compile, or a schema that is not valid; `cereus local` on the same model says which."
            }
            Self::Draining => {
                "The coordinator is shutting down or restarting. Try again in a few seconds."
            }
            Self::Encryption => "The provider broke the encryption contract and was excluded.",
            Self::Full { .. } => "Every machine that serves this model is busy. Try again later.",
            Self::HoldOverdue => {
                "The ledger could not note the charge in time, so nothing was shown or charged. Try \
                 again in a few seconds."
            }
            Self::Internal => "The coordinator made a mistake with this request. Try again.",
            Self::NoProvider { .. } => "No machine serves this model at present. Try again later.",
            Self::NoneLargeEnough { .. } => {
                "No machine that serves this model at present can hold prompt and max_tokens together. Lower max_tokens or try again later."
            }
            Self::NoneSuited { .. } => {
                "No machine that serves this model at present is what this request demands. Demand less or try again later."
            }
            Self::ProviderFailed => "The providers that tried this request failed.",
            Self::Timeout => "No provider answered in time.",
            Self::TooLong => "Prompt and max_tokens together exceed the model's context.",
            Self::UnknownAccount => "The API key is not valid.",
            Self::UnknownModel => "The model does not exist. GET /v1/models lists what does.",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_place_in_the_list() {
        let retry_after_s = 1;
        for denial in [
            Denial::AnswerTooLarge,
            Denial::Broke,
            Denial::Cancelled,
            Denial::Client(413),
            Denial::Client(422),
            Denial::Draining,
            Denial::Encryption,
            Denial::Full { retry_after_s },
            Denial::HoldOverdue,
            Denial::Internal,
            Denial::NoProvider { retry_after_s },
            Denial::NoneLargeEnough { retry_after_s },
            Denial::NoneSuited { retry_after_s },
            Denial::ProviderFailed,
            Denial::Timeout,
            Denial::TooLong,
            Denial::UnknownAccount,
            Denial::UnknownModel,
        ] {
            assert_eq!(Denial::CODES[denial.code_ix()], denial.code());
        }
    }
}
