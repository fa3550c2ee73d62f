//! The consumer's side: requests in, answers, streams and errors out.
//!
//! Bytes to values and back, with every limit named and every refusal naming the field at fault. It
//! knows no HTTP types: a status is a number, a header a value that the shell sets. Error texts never
//! repeat what the consumer wrote.

mod answer;
mod envelope;
mod fields;
mod json;
mod lower;
mod members;
mod models;
mod refusal;
mod request;

#[cfg(test)]
mod tests;

pub use self::answer::{
    AnswerUsage, CallPart, Dialect, FinishReason, Logprobs, Malformed, Overfull, Piece, PieceText,
    SIZE_MAX as ANSWER_SIZE_MAX, ScoredToken, Tally, TokenLogprobs, WholeAnswer, Writer,
};
pub use self::envelope::{Envelope, Sizes};
pub use self::fields::{Api, FIELDS, Field, Scope, Verdict, field, fields_page};
pub use self::json::{Quoted, decoded_size, quote};
pub use self::models::{write_model, write_models};
pub use self::refusal::{Fault, Place, Refusal};
pub use self::request::{
    BIASES_MAX, BODY_SIZE_MAX, CALLS_MAX, CHOICES_MAX, CONSTRAINED_STOPS_MAX, MEMBERS_MAX,
    MESSAGES_MAX, MODEL_SIZE_MAX, NESTING_MAX, PARTS_MAX, REGEX_SIZE_MAX, SCHEMA_SIZE_MAX,
    STOP_SIZE_MAX, STOP_TOKENS_MAX, STOPS_MAX, TOOLS_MAX, TOP_LOGPROBS_MAX, UNSUPPORTED_KEYWORDS,
    WORDS_MAX,
};
pub use self::request::{
    Content, Conversation, Echo, Ending, Ends, Form, Input, Message, Parallel, PastCall, Prompt,
    Request, Role, Sampling, TemplateWishes, Tool, ToolChoice, Tools,
};
pub use crate::event::Delivery;
