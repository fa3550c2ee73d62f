//! Plain completions: `text_completion` objects, which know no thoughts and no calls.

use serde_json::{Map, Value, json};

use super::super::logprobs::{ReadLogprob, ReadToken, read_elements};
use super::super::whole::WholeAnswer;
use super::super::{AnswerUsage, FinishReason, Malformed, Piece, PieceText};
use crate::api::json::quote;
use crate::ids::RequestId;

/// What every event of one request's answers has in common, and how far each has come.
#[derive(Clone, Debug, Hash)]
pub struct TextWriter {
    /// From the brace to the bracket that opens the choices.
    head: Vec<u8>,
    answers: Vec<Text>,
}

/// One of the answers, as far as it has been written.
#[derive(Clone, Default, Hash)]
struct Text {
    /// What stands before it: an echoed prompt, or nothing.
    head: String,
    chars: Chars,
}

/// Prints no text.
impl core::fmt::Debug for Text {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Text({} bytes before it)", self.head.len())
    }
}

/// Characters that were begun.
#[derive(Clone, Copy, Default, Hash)]
struct Chars(u64);

impl Chars {
    fn skip(&mut self, text: &str) {
        self.0 += text.chars().count() as u64;
    }

    /// Where a token begins in the text. One that goes on within a character begins with it.
    fn place(&mut self, bytes: &[u8]) -> u64 {
        let is_within = |byte: &u8| byte & 0xc0 == 0x80;
        let goes_on = bytes.first().is_some_and(is_within);
        let at = self.0.saturating_sub(u64::from(goes_on));
        let begun = bytes.iter().filter(|byte| !is_within(byte)).count();
        self.0 += begun as u64;
        at
    }
}

impl TextWriter {
    pub(super) fn new(id: RequestId, created_unix_s: u64, model: &str) -> Self {
        let head = format!(
            "{{\"id\":\"cmpl-{id}\",\"object\":\"text_completion\",\"created\":{created_unix_s},\
             \"model\":"
        );
        let mut head = head.into_bytes();
        quote(model, &mut head);
        head.extend_from_slice(b",\"choices\":[");
        Self {
            head,
            answers: vec![Text::default()],
        }
    }

    pub(super) fn of_answers(self, heads: Vec<String>) -> Self {
        let answers = heads.into_iter().map(|head| Text {
            head,
            chars: Chars::default(),
        });
        Self {
            answers: answers.collect(),
            ..self
        }
    }

    pub(super) fn restart(&mut self) {
        for answer in &mut self.answers {
            answer.chars = Chars::default();
        }
    }

    pub(super) fn write_heads(&mut self, out: &mut Vec<u8>) {
        for (ix, answer) in self.answers.iter_mut().enumerate() {
            if answer.head.is_empty() {
                continue;
            }
            open_event(&self.head, out);
            let text = |out: &mut Vec<u8>| quote(&answer.head, out);
            write_choice(ix, text, &[], &mut answer.chars, None, out);
            close_event(out);
            answer.chars.skip(&answer.head);
        }
    }

    pub(super) fn write_piece(
        &mut self,
        answer: usize,
        piece: &Piece<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        let tokens = piece.logprobs.read()?;
        let text = piece.content.unwrap_or(PieceText::EMPTY);
        self.write_event(answer, text, &tokens, None, out);
        Ok(())
    }

    pub(super) fn write_finish(&mut self, answer: usize, finish: FinishReason, out: &mut Vec<u8>) {
        self.write_event(answer, PieceText::EMPTY, &[], Some(finish), out);
    }

    /// The usage event has no choices.
    pub(super) fn write_usage(&self, usage: AnswerUsage, out: &mut Vec<u8>) {
        open_event(&self.head, out);
        close_whole(usage, out);
        out.extend_from_slice(b"\n\n");
    }

    pub(super) fn write_whole(
        &self,
        answers: &[(&WholeAnswer, FinishReason)],
        usage: AnswerUsage,
        out: &mut Vec<u8>,
    ) {
        assert_eq!(answers.len(), self.answers.len(), "one head for each");
        out.extend_from_slice(&self.head);
        for (ix, ((answer, finish), text)) in answers.iter().zip(&self.answers).enumerate() {
            if ix > 0 {
                out.push(b',');
            }
            let mut chars = Chars::default();
            chars.skip(&text.head);
            let tokens = read_elements(&answer.tokens);
            let whole = |out: &mut Vec<u8>| {
                quote(&text.head, out);
                out.pop();
                out.extend_from_slice(&answer.content);
                out.push(b'"');
            };
            write_choice(ix, whole, &tokens, &mut chars, Some(*finish), out);
        }
        close_whole(usage, out);
    }

    fn write_event(
        &mut self,
        answer: usize,
        text: PieceText<'_>,
        tokens: &[ReadToken<'_>],
        finish: Option<FinishReason>,
        out: &mut Vec<u8>,
    ) {
        open_event(&self.head, out);
        let chars = &mut self.answers[answer].chars;
        write_choice(answer, |out| text.write(out), tokens, chars, finish, out);
        close_event(out);
    }
}

fn open_event(head: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(head);
}

fn close_event(out: &mut Vec<u8>) {
    out.extend_from_slice(b"]}\n\n");
}

fn close_whole(usage: AnswerUsage, out: &mut Vec<u8>) {
    out.extend_from_slice(b"],\"usage\":");
    usage.write(out);
    out.push(b'}');
}

fn write_choice(
    ix: usize,
    text: impl FnOnce(&mut Vec<u8>),
    tokens: &[ReadToken<'_>],
    chars: &mut Chars,
    finish: Option<FinishReason>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(format!("{{\"index\":{ix},\"text\":").as_bytes());
    text(out);
    out.extend_from_slice(b",\"logprobs\":");
    write_logprobs(chars, tokens, out);
    out.extend_from_slice(b",\"finish_reason\":");
    match finish {
        None => out.extend_from_slice(b"null"),
        Some(finish) => quote(finish.as_str(), out),
    }
    out.push(b'}');
}

/// Four lists side by side, as plain completions have them.
fn write_logprobs(chars: &mut Chars, tokens: &[ReadToken<'_>], out: &mut Vec<u8>) {
    if tokens.is_empty() {
        out.extend_from_slice(b"null");
        return;
    }
    let offsets = tokens.iter().map(|token| chars.place(&token.chosen.bytes));
    let offsets: Vec<u64> = offsets.collect();
    let names: Vec<String> = tokens.iter().map(|it| name(&it.chosen.bytes)).collect();
    let logprobs: Vec<f64> = tokens.iter().map(|it| it.chosen.logprob).collect();
    let tops: Vec<Map<String, Value>> = tokens.iter().map(top).collect();
    let lists = json!({
        "tokens": names, "token_logprobs": logprobs, "top_logprobs": tops, "text_offset": offsets
    });
    serde_json::to_writer(out, &lists).expect("a vector takes all bytes");
}

/// The likeliest tokens by name, the sampled one among them. Tokens of one name, which only differ by
/// their numbers, are kept apart by what is counted behind it.
fn top(token: &ReadToken<'_>) -> Map<String, Value> {
    let number = |one: &ReadLogprob<'_>| Value::from(one.logprob);
    let mut top = Map::new();
    for one in &token.top {
        let name = name(&one.bytes);
        let mut key = name.clone();
        let mut count = 1;
        while top.contains_key(&key) {
            count += 1;
            key = format!("{name} #{count}");
        }
        top.insert(key, number(one));
    }
    let chosen = name(&token.chosen.bytes);
    top.entry(chosen).or_insert_with(|| number(&token.chosen));
    top
}

/// A token as text, or its bytes in hexadecimal where it is none: tokens that print alike differ.
fn name(bytes: &[u8]) -> String {
    match core::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => {
            let hex = bytes.iter().map(|byte| format!("\\x{byte:02x}"));
            core::iter::once("bytes:".to_owned()).chain(hex).collect()
        }
    }
}
