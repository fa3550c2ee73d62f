//! An answer's text, told apart into what is thought, what is said and what is called.
//!
//! Streams: a mark that is split over pieces never shows, and how the text is cut changes nothing.

use super::calls::{Called, ParameterTypes};
use super::dialect::{CallFormat, Dialect};
use super::harmony::{self, Harmony};
use super::tagged::Tagged;
use crate::chat::{CALLS_MAX, Parallel, Tools};

/// Bytes of one call; a longer one is text after all.
pub const CALL_BYTES_MAX: usize = 1 << 20;

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextEnd {
    /// The bound of its tokens cut it.
    Cut,
    /// The model ended it, or a stop string did.
    Whole,
}

/// Where the text of a piece belongs.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Said {
    pub reasoning: String,
    pub content: String,
    pub calls: Vec<Called>,
}

impl Said {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reasoning.is_empty() && self.content.is_empty() && self.calls.is_empty()
    }
}

/// Prints no content.
impl std::fmt::Debug for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Said({} bytes thought, {} said, {} calls)",
            self.reasoning.len(),
            self.content.len(),
            self.calls.len()
        )
    }
}

/// Whether the request has tools that the answer may call.
#[derive(Clone, Debug)]
pub enum Calling {
    No,
    Yes {
        types: ParameterTypes,
        parallel: Parallel,
    },
}

impl Calling {
    #[must_use]
    pub fn of(tools: &Tools) -> Self {
        if !tools.may_be_called() {
            return Self::No;
        }
        Self::Yes {
            types: ParameterTypes::from(tools),
            parallel: tools.parallel,
        }
    }

    /// Calls that one answer may hold.
    pub(super) const fn calls_max(&self) -> usize {
        match self {
            Self::No => 0,
            Self::Yes {
                parallel: Parallel::Allowed,
                ..
            } => CALLS_MAX,
            Self::Yes {
                parallel: Parallel::One,
                ..
            } => 1,
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct AnswerParser(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Harmony(Box<Harmony>),
    /// All is content.
    Plain,
    Tagged(Box<Tagged>),
}

impl AnswerParser {
    /// Of an answer that goes on from a plain text.
    #[must_use]
    pub const fn plain() -> Self {
        Self(Kind::Plain)
    }

    /// `prompt_tail` is the text of the prompt's last tokens, marks included.
    #[must_use]
    pub fn new(dialect: Dialect, calling: Calling, prompt_tail: &str) -> Self {
        if dialect.calls == CallFormat::Harmony {
            return Self(Kind::Harmony(Box::new(Harmony::new(calling))));
        }
        if dialect.reasoning.is_none() && matches!(calling, Calling::No) {
            return Self::plain();
        }
        Self(Kind::Tagged(Box::new(Tagged::new(
            dialect,
            calling,
            prompt_tail,
        ))))
    }

    /// Takes the next text and adds to `said` what can no longer be part of a mark.
    pub fn push(&mut self, text: &str, said: &mut Said) {
        match &mut self.0 {
            Kind::Harmony(harmony) => harmony.push(text, said),
            Kind::Plain => said.content.push_str(text),
            Kind::Tagged(tagged) => tagged.push(text, said),
        }
    }

    /// The mark that a text ends with, of those around calls.
    #[must_use]
    pub(super) fn mark_behind(&self, text: &str) -> Option<&'static str> {
        match &self.0 {
            Kind::Harmony(_) => harmony::mark_behind(text),
            Kind::Plain => None,
            Kind::Tagged(tagged) => tagged.mark_behind(text),
        }
    }

    /// Takes a mark that came as a token of its own. No text is written with it, so it counts even
    /// within the texts of a call.
    pub(super) fn push_mark(&mut self, mark: &'static str, said: &mut Said) {
        match &mut self.0 {
            Kind::Harmony(harmony) => harmony.push_mark(mark, said),
            Kind::Plain => said.content.push_str(mark),
            Kind::Tagged(tagged) => tagged.push_mark(mark, said),
        }
    }

    /// The text ended: what was held back belongs to where it stands. The arguments of every call are
    /// then a JSON object, unless the text was cut.
    pub fn finish(&mut self, end: TextEnd, said: &mut Said) {
        match &mut self.0 {
            Kind::Harmony(harmony) => harmony.finish(end, said),
            Kind::Plain => {}
            Kind::Tagged(tagged) => tagged.finish(end, said),
        }
    }

    /// Whether the answer is whole: it held the one call that it may hold.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match &self.0 {
            Kind::Harmony(harmony) => harmony.is_over(),
            Kind::Plain => false,
            Kind::Tagged(tagged) => tagged.is_over(),
        }
    }

    /// Whether what comes next is thought.
    #[must_use]
    pub fn is_reasoning(&self) -> bool {
        match &self.0 {
            Kind::Harmony(harmony) => harmony.is_reasoning(),
            Kind::Plain => false,
            Kind::Tagged(tagged) => tagged.is_reasoning(),
        }
    }
}
