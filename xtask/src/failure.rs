//! The one error of xtask: what went wrong, and what the reader can do about it.

use std::fmt::Display;

/// The exit status of a failure that no child process has named.
const GENERAL: u8 = 1;

#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) what: String,
    pub(crate) next: String,
    pub(crate) code: u8,
}

impl Failure {
    pub(crate) fn new(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            next: next.into(),
            code: GENERAL,
        }
    }

    #[must_use]
    pub(crate) fn with_code(mut self, code: Option<i32>) -> Self {
        // A child killed by a signal has no code; neither has one beyond a byte.
        self.code = code
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(GENERAL);
        self
    }
}

/// Names what was being done when the system said no.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl Display, next: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E: Display> Doing<T> for Result<T, E> {
    fn doing(self, what: impl Display, next: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(format!("cannot {what}: {error}"), next))
    }
}
