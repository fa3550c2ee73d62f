//! One piece of an answer: what a dialect's reader and our own engine yield, and what any API's
//! writer takes.

use core::fmt;
use std::borrow::Cow;

use super::finish::FinishReason;
use super::logprobs::Logprobs;
use crate::api::json::{Quoted, quote};

/// Tokens that leave no text of their own: the marks that open and close reasoning.
const REASONING_MARKS: u64 = 2;
/// The same for one tool call, which counts where it is named.
const TOOL_CALL_MARKS: u64 = 8;

/// See the module. What a provider does not send is absent, and not the same as what it sends empty.
#[derive(Clone, Debug, Default)]
pub struct Piece<'a> {
    pub content: Option<PieceText<'a>>,
    /// Reasoning.
    pub thought: Option<PieceText<'a>>,
    pub refusal: Option<PieceText<'a>>,
    pub calls: Option<Vec<CallPart<'a>>>,
    pub logprobs: Logprobs<'a>,
    /// Why nothing follows, where that is known. Writers are told of it apart, once the end may be
    /// shown.
    pub finish: Option<FinishReason>,
}

/// What one piece amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bytes of all text in it, unescaped.
    pub text_bytes: u64,
    /// The most tokens in it that leave no text.
    pub marks: u64,
}

impl Tally {
    /// False for a preamble that only names a role.
    #[must_use]
    pub const fn is_content(self) -> bool {
        self.text_bytes > 0 || self.marks > 0
    }
}

impl<'a> Piece<'a> {
    #[must_use]
    pub fn content(content: &'a str) -> Self {
        Self {
            content: PieceText::unless_empty(content),
            ..Self::default()
        }
    }

    /// Log-probabilities alone are nothing said.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.content.is_none()
            && self.thought.is_none()
            && self.refusal.is_none()
            && self.calls.is_none()
    }

    #[must_use]
    pub fn tally(&self) -> Tally {
        let size = |text: Option<PieceText<'_>>| text.map_or(0, PieceText::size);
        let thought = size(self.thought);
        let mut tally = Tally {
            text_bytes: size(self.content) + size(self.refusal) + thought,
            marks: if thought > 0 { REASONING_MARKS } else { 0 },
        };
        for call in self.calls.iter().flatten() {
            let is_named = call.id.is_some() || call.name.is_some();
            tally.marks += if is_named { TOOL_CALL_MARKS } else { 0 };
            tally.text_bytes += size(call.id) + size(call.name) + call.arguments.size();
        }
        tally
    }
}

/// A part of a tool call.
#[derive(Clone, Copy, Debug)]
pub struct CallPart<'a> {
    /// Counts the answer's calls from zero.
    pub index: u32,
    /// With the part that begins the call, as is the name.
    pub id: Option<PieceText<'a>>,
    pub name: Option<PieceText<'a>>,
    /// Those of all parts make one JSON object.
    pub arguments: PieceText<'a>,
}

/// Text of a piece, in the form in which it came: nothing that a provider escaped is unescaped on the
/// way through.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PieceText<'a> {
    Escaped(Quoted<'a>),
    Plain(&'a str),
}

/// Prints no text.
impl fmt::Debug for PieceText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PieceText({} bytes)", self.size())
    }
}

impl<'a> PieceText<'a> {
    pub const EMPTY: Self = Self::Plain("");

    #[must_use]
    pub const fn unless_empty(text: &'a str) -> Option<Self> {
        match text.is_empty() {
            true => None,
            false => Some(Self::Plain(text)),
        }
    }

    /// Bytes of the text, unescaped.
    #[must_use]
    pub fn size(self) -> u64 {
        match self {
            Self::Escaped(text) => text.size(),
            Self::Plain(text) => text.len() as u64,
        }
    }

    #[must_use]
    pub fn text(self) -> Cow<'a, str> {
        match self {
            Self::Escaped(text) => text.text(),
            Self::Plain(text) => Cow::Borrowed(text),
        }
    }

    /// Appends a JSON string.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Escaped(text) => out.extend_from_slice(text.as_written().as_bytes()),
            Self::Plain(text) => quote(text, out),
        }
    }

    /// Appends the inside of a JSON string.
    pub(super) fn write_inside(self, out: &mut Vec<u8>) {
        match self {
            Self::Escaped(text) => out.extend_from_slice(text.inside().as_bytes()),
            Self::Plain(text) => {
                let from = out.len();
                quote(text, out);
                out.pop();
                out.remove(from);
            }
        }
    }
}
