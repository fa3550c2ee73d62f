//! An answer between whoever computes it and whoever asked.
//!
//! A [`Dialect`] reads what a provider streams and an engine of our own says it directly: both give
//! [`Piece`]s, which know no API. A [`Writer`] takes them and writes what one API's consumers are
//! given. So another protocol of providers is one more file under `reader`, another API one more
//! under `writer`.

mod finish;
mod logprobs;
mod piece;
mod reader;
mod usage;
mod whole;
mod writer;

#[cfg(test)]
mod tests;

pub use self::finish::FinishReason;
pub use self::logprobs::{Logprobs, ScoredToken, TokenLogprobs};
pub use self::piece::{CallPart, Piece, PieceText, Tally};
pub use self::reader::Dialect;
pub use self::usage::AnswerUsage;
pub use self::whole::{Overfull, SIZE_MAX, WholeAnswer};
pub use self::writer::Writer;

/// What a provider streams is not what its dialect says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;
