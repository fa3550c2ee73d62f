//! Chat completions, in OpenAI's shapes.

use super::super::whole::WholeAnswer;
use super::super::{AnswerUsage, CallPart, FinishReason, Malformed, Piece, PieceText};
use crate::api::json::quote;
use crate::ids::RequestId;

/// What every event of one request's answers has in common, and which answers have begun.
#[derive(Clone, Debug, Hash)]
pub struct ChatWriter {
    form: ChatForm,
    /// From `data: ` to the bracket that opens the choices.
    chunk: Vec<u8>,
    /// From the brace to the bracket that opens the choices.
    whole: Vec<u8>,
    /// Of each answer, the event that comes next.
    turns: Vec<Turn>,
}

/// How deltas are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ChatForm {
    /// Thoughts come before what is said, under the one name that our own clients read.
    Direct,
    /// Thoughts come after what is said, under both names that clients know. An answer without a word
    /// has an empty content.
    Relayed,
}

/// Which event of an answer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Turn {
    /// Carries the role, which must come exactly once.
    First,
    Later,
}

impl ChatWriter {
    pub(super) fn new(
        form: ChatForm,
        request: RequestId,
        created_unix_s: u64,
        model: &str,
    ) -> Self {
        let open = |start: &str, object: &str| {
            let mut out = Vec::with_capacity(192 + model.len());
            let head = format!(
                "{start}{{\"id\":\"chatcmpl-{request}\",\"object\":\"{object}\",\"created\":{created_unix_s},\"model\":"
            );
            out.extend_from_slice(head.as_bytes());
            quote(model, &mut out);
            out.extend_from_slice(b",\"choices\":[");
            out
        };
        Self {
            form,
            chunk: open("data: ", "chat.completion.chunk"),
            whole: open("", "chat.completion"),
            turns: vec![Turn::First],
        }
    }

    pub(super) fn of_answers(self, count: usize) -> Self {
        Self {
            turns: vec![Turn::First; count],
            ..self
        }
    }

    pub(super) fn restart(&mut self) {
        self.turns.fill(Turn::First);
    }

    pub(super) fn write_piece(
        &mut self,
        answer: usize,
        piece: &Piece<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        let mut tokens = Vec::new();
        piece.logprobs.write_elements(&mut tokens)?;
        let mut delta = self.open_delta(answer, out);
        match self.form {
            ChatForm::Direct => {
                delta.text("\"reasoning_content\":", piece.thought);
                delta.text("\"content\":", piece.content);
            }
            ChatForm::Relayed => {
                delta.text("\"content\":", piece.content);
                delta.text("\"reasoning\":", piece.thought);
                delta.text("\"reasoning_content\":", piece.thought);
            }
        }
        delta.text("\"refusal\":", piece.refusal);
        if let Some(calls) = &piece.calls {
            write_calls(calls, delta.member("\"tool_calls\":"));
        }
        out.push(b'}');
        if !tokens.is_empty() {
            out.extend_from_slice(b",\"logprobs\":");
            write_logprobs(&tokens, out);
        }
        out.extend_from_slice(b",\"finish_reason\":null}]}\n\n");
        Ok(())
    }

    pub(super) fn write_finish(&mut self, answer: usize, finish: FinishReason, out: &mut Vec<u8>) {
        if self.turns[answer] == Turn::First {
            // An answer without a word still has its role.
            let silence = Piece {
                content: match self.form {
                    ChatForm::Direct => None,
                    ChatForm::Relayed => Some(PieceText::EMPTY),
                },
                ..Piece::default()
            };
            self.write_piece(answer, &silence, out)
                .expect("it has no log-probabilities");
        }
        self.open_delta(answer, out);
        out.extend_from_slice(b"},\"finish_reason\":\"");
        out.extend_from_slice(finish.as_str().as_bytes());
        out.extend_from_slice(b"\"}]}\n\n");
    }

    /// The usage event has no choices.
    pub(super) fn write_usage(&self, usage: AnswerUsage, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.chunk);
        out.extend_from_slice(b"],\"usage\":");
        usage.write(out);
        out.extend_from_slice(b"}\n\n");
    }

    pub(super) fn write_whole(
        &self,
        answers: &[(&WholeAnswer, FinishReason)],
        usage: AnswerUsage,
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(&self.whole);
        for (ix, (answer, finish)) in answers.iter().enumerate() {
            if ix > 0 {
                out.push(b',');
            }
            write_choice(ix, answer, *finish, out);
        }
        out.extend_from_slice(b"],\"usage\":");
        usage.write(out);
        out.push(b'}');
    }

    /// Opens a chunk up to the brace of its delta, or behind the role.
    fn open_delta<'o>(&mut self, answer: usize, out: &'o mut Vec<u8>) -> Delta<'o> {
        out.extend_from_slice(&self.chunk);
        match answer {
            0 => out.extend_from_slice(b"{\"index\":0,\"delta\":{"),
            answer => {
                out.extend_from_slice(format!("{{\"index\":{answer},\"delta\":{{").as_bytes());
            }
        }
        let turn = core::mem::replace(&mut self.turns[answer], Turn::Later);
        let separator = match turn {
            Turn::First => {
                out.extend_from_slice(b"\"role\":\"assistant\"");
                ","
            }
            Turn::Later => "",
        };
        Delta { out, separator }
    }
}

/// A delta whose members are being written.
struct Delta<'o> {
    out: &'o mut Vec<u8>,
    /// What comes before the next member.
    separator: &'static str,
}

impl Delta<'_> {
    fn text(&mut self, name: &str, text: Option<PieceText<'_>>) {
        if let Some(text) = text {
            text.write(self.member(name));
        }
    }

    /// Appends the name; the caller appends the value.
    fn member(&mut self, name: &str) -> &mut Vec<u8> {
        self.out.extend_from_slice(self.separator.as_bytes());
        self.out.extend_from_slice(name.as_bytes());
        self.separator = ",";
        self.out
    }
}

fn write_calls(calls: &[CallPart<'_>], out: &mut Vec<u8>) {
    out.push(b'[');
    for (ix, call) in calls.iter().enumerate() {
        if ix > 0 {
            out.push(b',');
        }
        out.extend_from_slice(format!("{{\"index\":{}", call.index).as_bytes());
        if let Some(id) = call.id {
            out.extend_from_slice(b",\"id\":");
            id.write(out);
        }
        if let Some(name) = call.name {
            out.extend_from_slice(b",\"type\":\"function\",\"function\":{\"name\":");
            name.write(out);
            out.push(b',');
        } else {
            out.extend_from_slice(b",\"function\":{");
        }
        out.extend_from_slice(b"\"arguments\":");
        call.arguments.write(out);
        out.extend_from_slice(b"}}");
    }
    out.push(b']');
}

/// Appends one choice of the object of all answers.
fn write_choice(ix: usize, answer: &WholeAnswer, finish: FinishReason, out: &mut Vec<u8>) {
    let head = format!("{{\"index\":{ix},\"message\":{{\"role\":\"assistant\",\"content\":\"");
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(&answer.content);
    out.push(b'"');
    if !answer.thought.is_empty() {
        for name in ["reasoning", "reasoning_content"] {
            member(name, &answer.thought, out);
        }
    }
    if answer.refusal.is_empty() {
        out.extend_from_slice(b",\"refusal\":null");
    } else {
        member("refusal", &answer.refusal, out);
    }
    if !answer.calls.is_empty() {
        out.extend_from_slice(b",\"tool_calls\":[");
        for (ix, call) in answer.calls.iter().enumerate() {
            if ix > 0 {
                out.push(b',');
            }
            out.extend_from_slice(b"{\"type\":\"function\"");
            member("id", &call.id, out);
            out.extend_from_slice(b",\"function\":{\"name\":\"");
            out.extend_from_slice(&call.name);
            out.push(b'"');
            member("arguments", &call.arguments, out);
            out.extend_from_slice(b"}}");
        }
        out.push(b']');
    }
    out.extend_from_slice(b"},\"logprobs\":");
    write_logprobs(&answer.tokens, out);
    out.extend_from_slice(b",\"finish_reason\":\"");
    out.extend_from_slice(finish.as_str().as_bytes());
    out.extend_from_slice(b"\"}");
}

fn member(name: &str, escaped: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":\"");
    out.extend_from_slice(escaped);
    out.push(b'"');
}

/// Appends the `logprobs` object of these elements of its `content`, or null where there are none.
fn write_logprobs(tokens: &[u8], out: &mut Vec<u8>) {
    if tokens.is_empty() {
        out.extend_from_slice(b"null");
    } else {
        out.extend_from_slice(b"{\"content\":[");
        out.extend_from_slice(tokens);
        out.extend_from_slice(b"],\"refusal\":null}");
    }
}
