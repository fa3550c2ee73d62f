//! From tokens to the text that a reader may see: whole characters only, and never a stop string
//! or the beginning of one. Pure; the vocabulary is an argument.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod answer;
mod detokenise;
mod stop;

pub use answer::{Answer, Piece};
pub use detokenise::{Detokeniser, Vocabulary};
pub use stop::{StopMatcher, Stopped};
