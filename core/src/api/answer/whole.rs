//! A whole answer, put together from its pieces.

use core::fmt;

use super::Malformed;
use super::piece::{Piece, PieceText};

/// Largest relayed answer, in bytes of escaped text.
pub const SIZE_MAX: usize = 8 << 20;

/// Most calls of one relayed answer.
const TOOL_CALLS_MAX: usize = 128;

/// Why a piece could not be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overfull {
    Malformed,
    /// The answer would outgrow its bounds.
    TooLarge,
}

impl From<Malformed> for Overfull {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// The pieces so far. Texts are the insides of JSON strings, escaped, so that joining them is
/// appending them.
#[derive(Clone)]
pub struct WholeAnswer {
    pub(super) content: Vec<u8>,
    pub(super) thought: Vec<u8>,
    pub(super) refusal: Vec<u8>,
    pub(super) calls: Vec<Call>,
    /// The elements of `logprobs.content`.
    pub(super) tokens: Vec<u8>,
    size: usize,
    size_max: usize,
    calls_max: usize,
}

#[derive(Clone, Default)]
pub(super) struct Call {
    index: u32,
    pub(super) id: Vec<u8>,
    pub(super) name: Vec<u8>,
    pub(super) arguments: Vec<u8>,
}

impl fmt::Debug for WholeAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WholeAnswer({} bytes)", self.size)
    }
}

impl WholeAnswer {
    /// Of an engine of our own. Its size is bounded by that of its tokens.
    #[must_use]
    pub const fn direct() -> Self {
        Self::bounded(usize::MAX, usize::MAX)
    }

    /// Of a provider that may send what it likes.
    #[must_use]
    pub const fn relayed() -> Self {
        Self::bounded(SIZE_MAX, TOOL_CALLS_MAX)
    }

    const fn bounded(size_max: usize, calls_max: usize) -> Self {
        Self {
            content: vec![],
            thought: vec![],
            refusal: vec![],
            calls: vec![],
            tokens: vec![],
            size: 0,
            size_max,
            calls_max,
        }
    }

    /// # Errors
    /// The piece is malformed or too large. Parts of it may have been added.
    pub fn push(&mut self, piece: &Piece<'_>) -> Result<(), Overfull> {
        let before = self.tokens.len();
        piece.logprobs.write_elements(&mut self.tokens)?;
        grown(before, &mut self.tokens, &mut self.size, self.size_max)?;
        for (text, all) in [
            (piece.content, &mut self.content),
            (piece.thought, &mut self.thought),
            (piece.refusal, &mut self.refusal),
        ] {
            append(text, all, &mut self.size, self.size_max)?;
        }
        for part in piece.calls.iter().flatten() {
            let known = self.calls.iter().position(|call| call.index == part.index);
            let ix = match known {
                Some(ix) => ix,
                None if self.calls.len() < self.calls_max => {
                    self.calls.push(Call {
                        index: part.index,
                        ..Call::default()
                    });
                    self.calls.len() - 1
                }
                None => return Err(Overfull::TooLarge),
            };
            let call = &mut self.calls[ix];
            for (text, all) in [
                (part.id, &mut call.id),
                (part.name, &mut call.name),
                (Some(part.arguments), &mut call.arguments),
            ] {
                append(text, all, &mut self.size, self.size_max)?;
            }
        }
        Ok(())
    }

    /// Forgets everything, as a new attempt begins.
    pub fn clear(&mut self) {
        *self = Self::bounded(self.size_max, self.calls_max);
    }
}

fn append(
    text: Option<PieceText<'_>>,
    all: &mut Vec<u8>,
    size: &mut usize,
    size_max: usize,
) -> Result<(), Overfull> {
    let before = all.len();
    if let Some(text) = text {
        text.write_inside(all);
    }
    grown(before, all, size, size_max)
}

/// Counts what was appended, or takes it back.
fn grown(
    before: usize,
    all: &mut Vec<u8>,
    size: &mut usize,
    size_max: usize,
) -> Result<(), Overfull> {
    let more = all.len() - before;
    if more > size_max - *size {
        all.truncate(before);
        return Err(Overfull::TooLarge);
    }
    *size += more;
    Ok(())
}
