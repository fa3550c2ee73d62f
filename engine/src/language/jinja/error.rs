//! Why a template gave no text. Messages name types and places, never values: a value may be a prompt.

use super::text::Text;

pub(in crate::language) type Result<T> = std::result::Result<T, Error>;

#[derive(Debug)]
pub(in crate::language) struct Error {
    pub(in crate::language) cause: Cause,
    /// Where in the template, once it is known.
    pub(in crate::language) line: Option<u32>,
}

#[derive(Debug)]
pub(in crate::language) enum Cause {
    /// It broke.
    Failed(String),
    /// It says so itself, by `raise_exception`.
    Raised(Text),
}

impl Error {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self {
            cause: Cause::Failed(text.into()),
            line: None,
        }
    }

    pub(super) const fn raised(text: Text) -> Self {
        Self {
            cause: Cause::Raised(text),
            line: None,
        }
    }

    /// The innermost place that is known stays.
    pub(super) const fn at(mut self, line: u32) -> Self {
        if self.line.is_none() {
            self.line = Some(line);
        }
        self
    }
}
