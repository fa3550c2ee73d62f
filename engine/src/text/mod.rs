//! From tokens to the text that a reader may see: whole characters only, and never a stop string
//! or the beginning of one. Pure; the vocabulary is an argument.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod answer;
#[cfg(test)]
mod call_tests;
mod calls;
mod detokenise;
mod dialect;
mod harmony;
mod parser;
#[cfg(test)]
mod parser_tests;
mod scan;
mod section;
mod stop;
mod tagged;

pub use answer::{Answer, Piece};
#[cfg(feature = "mlx")]
pub(crate) use calls::Kind;
pub use calls::{Called, ParameterTypes, WrittenCall};
pub use detokenise::{Detokeniser, Vocabulary};
pub use dialect::{CallFormat, Dialect, Marks};
pub use parser::{AnswerParser, CALL_BYTES_MAX, Calling, Said, TextEnd};
pub use stop::{StopMatcher, Stopped};
