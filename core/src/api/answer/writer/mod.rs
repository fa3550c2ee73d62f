//! What the consumers of one API are given.

mod chat;
mod text;

use self::chat::{ChatForm, ChatWriter};
use self::text::TextWriter;
use super::{AnswerUsage, FinishReason, Malformed, Piece, WholeAnswer};
use crate::api::envelope::Envelope;
use crate::api::fields::Api;
use crate::ids::RequestId;

/// Writes the answers to one request: as server-sent events or as one object, in the shapes of the
/// API by which they were asked for. Answers are told apart by their position.
#[derive(Clone, Debug, Hash)]
pub enum Writer {
    Chat(ChatWriter),
    Text(TextWriter),
}

impl Writer {
    /// Of what an engine of our own says. `model` is the name that the consumer asked for.
    #[must_use]
    pub fn direct(api: Api, request: RequestId, created_unix_s: u64, model: &str) -> Self {
        Self::new(api, ChatForm::Direct, request, created_unix_s, model)
    }

    /// Of what any provider says.
    #[must_use]
    pub fn relayed(api: Api, request: RequestId, created_unix_s: u64, model: &str) -> Self {
        Self::new(api, ChatForm::Relayed, request, created_unix_s, model)
    }

    fn new(api: Api, form: ChatForm, id: RequestId, created_unix_s: u64, model: &str) -> Self {
        match api {
            Api::Chat => Self::Chat(ChatWriter::new(form, id, created_unix_s, model)),
            Api::Completions => Self::Text(TextWriter::new(id, created_unix_s, model)),
        }
    }

    /// For as many answers as there are heads, in place of one. A head is what stands before a plain
    /// text: an echoed prompt, or nothing.
    #[must_use]
    pub fn of_answers(self, heads: Vec<String>) -> Self {
        match self {
            Self::Chat(writer) => Self::Chat(writer.of_answers(heads.len())),
            Self::Text(writer) => Self::Text(writer.of_answers(heads)),
        }
    }

    /// Back to where nothing was written.
    pub fn restart(&mut self) {
        match self {
            Self::Chat(writer) => writer.restart(),
            Self::Text(writer) => writer.restart(),
        }
    }

    /// Appends the events that come before all pieces.
    pub fn write_open(&mut self, out: &mut Vec<u8>) {
        match self {
            // The role comes with the first piece.
            Self::Chat(_) => {}
            Self::Text(writer) => writer.write_heads(out),
        }
    }

    /// Appends the event of one piece of an answer, all but why it finished.
    ///
    /// # Errors
    /// The piece is malformed: nothing was written.
    pub fn write_piece(
        &mut self,
        answer: usize,
        piece: &Piece<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        match self {
            Self::Chat(writer) => writer.write_piece(answer, piece, out),
            Self::Text(writer) => writer.write_piece(answer, piece, out),
        }
    }

    /// Appends the event that says why an answer ended.
    pub fn write_finish(&mut self, answer: usize, finish: FinishReason, out: &mut Vec<u8>) {
        match self {
            Self::Chat(writer) => writer.write_finish(answer, finish, out),
            Self::Text(writer) => writer.write_finish(answer, finish, out),
        }
    }

    /// Appends the usage event of a stream.
    pub fn write_usage(&self, usage: AnswerUsage, out: &mut Vec<u8>) {
        match self {
            Self::Chat(writer) => writer.write_usage(usage, out),
            Self::Text(writer) => writer.write_usage(usage, out),
        }
    }

    /// Appends the last event of a stream that ended well.
    pub fn write_done(&self, out: &mut Vec<u8>) {
        match self {
            Self::Chat(_) | Self::Text(_) => out.extend_from_slice(b"data: [DONE]\n\n"),
        }
    }

    /// Appends the one error event of a stream that broke. Nothing follows it.
    pub fn write_failed(&self, error: &Envelope, out: &mut Vec<u8>) {
        match self {
            Self::Chat(_) | Self::Text(_) => {
                out.extend_from_slice(b"data: ");
                error.write(out);
                out.extend_from_slice(b"\n\n");
            }
        }
    }

    /// Appends the one object of all answers to a request that is not streamed.
    ///
    /// # Panics
    /// There are more or fewer answers than the writer is for.
    pub fn write_whole(
        &self,
        answers: &[(&WholeAnswer, FinishReason)],
        usage: AnswerUsage,
        out: &mut Vec<u8>,
    ) {
        match self {
            Self::Chat(writer) => writer.write_whole(answers, usage, out),
            Self::Text(writer) => writer.write_whole(answers, usage, out),
        }
    }
}
