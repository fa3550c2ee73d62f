//! The consumer's side in OpenAI's shapes: requests in, answers, streams and errors out.
//!
//! Bytes to values and back, with every limit named and every refusal naming the field at fault. It
//! knows no HTTP types: a status is a number, a header a value that the shell sets. Error texts never
//! repeat what the consumer wrote.

mod answer;
mod chat;
mod delta;
mod envelope;
mod finish;
mod json;
mod lower;
mod members;
mod message;
mod models;
mod refusal;
mod said;
mod stream;

#[cfg(test)]
mod tests;

pub use self::answer::{Answer, Overfull, SIZE_MAX as ANSWER_SIZE_MAX};
pub use self::chat::{
    BODY_SIZE_MAX, MEMBERS_MAX, MESSAGES_MAX, MODEL_SIZE_MAX, NESTING_MAX, PARTS_MAX,
    STOP_SIZE_MAX, STOPS_MAX,
};
pub use self::chat::{ChatRequest, Sampling};
pub use self::delta::{Delta, Malformed, Tally};
pub use self::envelope::Envelope;
pub use self::finish::FinishReason;
pub(crate) use self::json::Object;
pub use self::json::{decoded_size, quote};
pub use self::models::{write_model, write_models};
pub use self::refusal::{Fault, Place, Refusal};
pub use self::said::{Said, SaidCall, SaidToken, Turn, write_call, write_token};
pub use self::stream::{AnswerUsage, Framing, write_done, write_error};
pub use crate::event::Delivery;
