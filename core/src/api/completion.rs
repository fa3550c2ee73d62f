//! Plain completions: `text_completion` objects.

use serde_json::{Map, Value, json};

use super::finish::FinishReason;
use super::json::quote;
use super::said::SaidToken;
use super::stream::AnswerUsage;
use crate::ids::RequestId;

/// A token of an answer, and those likeliest in its place.
#[derive(Clone)]
pub struct TokenChoice<'a> {
    pub chosen: SaidToken<'a>,
    pub top: Vec<SaidToken<'a>>,
}

/// What every piece of one answer has in common.
#[derive(Clone, Debug)]
pub struct TextFraming {
    /// From the brace to the bracket that opens the choices.
    head: Vec<u8>,
}

/// One of the answers to a request, as far as it has been written.
#[derive(Clone, Copy, Debug, Default)]
pub struct TextChoice {
    pub index: u32,
    /// Characters that were begun.
    chars: u64,
}

impl TextChoice {
    #[must_use]
    pub const fn new(index: u32) -> Self {
        Self { index, chars: 0 }
    }

    /// Text that stands before the answer's tokens: an echoed prompt.
    pub fn skip(&mut self, text: &str) {
        self.chars += text.chars().count() as u64;
    }

    /// Where a token begins in the text, by characters. One that goes on within a character begins
    /// with it.
    fn place(&mut self, bytes: &[u8]) -> u64 {
        let is_within = |byte: &u8| byte & 0xc0 == 0x80;
        let goes_on = bytes.first().is_some_and(is_within);
        let at = self.chars.saturating_sub(u64::from(goes_on));
        let begun = bytes.iter().filter(|byte| !is_within(byte)).count();
        self.chars += begun as u64;
        at
    }
}

impl TextFraming {
    #[must_use]
    pub fn new(id: RequestId, created_unix_s: u64, model: &str) -> Self {
        let head = format!(
            "{{\"id\":\"cmpl-{id}\",\"object\":\"text_completion\",\"created\":{created_unix_s},\
             \"model\":"
        );
        let mut head = head.into_bytes();
        quote(model, &mut head);
        head.extend_from_slice(b",\"choices\":[");
        Self { head }
    }

    /// Appends everything up to the first choice.
    pub fn open_whole(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
    }

    /// Appends one choice; the caller writes a comma before each but the first.
    pub fn write_choice(
        &self,
        choice: &mut TextChoice,
        text: &str,
        tokens: &[TokenChoice<'_>],
        finish: Option<FinishReason>,
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(format!("{{\"index\":{},\"text\":", choice.index).as_bytes());
        quote(text, out);
        out.extend_from_slice(b",\"logprobs\":");
        write_logprobs(choice, tokens, out);
        out.extend_from_slice(b",\"finish_reason\":");
        match finish {
            None => out.extend_from_slice(b"null"),
            Some(finish) => quote(finish.as_str(), out),
        }
        out.push(b'}');
    }

    /// Appends what follows the last choice.
    pub fn close_whole(&self, usage: AnswerUsage, out: &mut Vec<u8>) {
        out.extend_from_slice(b"],\"usage\":");
        usage.write(out);
        out.push(b'}');
    }

    /// Appends the event of one piece of a choice.
    pub fn write_piece(
        &self,
        choice: &mut TextChoice,
        text: &str,
        tokens: &[TokenChoice<'_>],
        finish: Option<FinishReason>,
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(b"data: ");
        self.open_whole(out);
        self.write_choice(choice, text, tokens, finish, out);
        out.extend_from_slice(b"]}\n\n");
    }

    /// Appends the usage event, which has no choices.
    pub fn write_usage(&self, usage: AnswerUsage, out: &mut Vec<u8>) {
        out.extend_from_slice(b"data: ");
        self.open_whole(out);
        self.close_whole(usage, out);
        out.extend_from_slice(b"\n\n");
    }
}

/// Four lists side by side, as plain completions have them.
fn write_logprobs(choice: &mut TextChoice, tokens: &[TokenChoice<'_>], out: &mut Vec<u8>) {
    if tokens.is_empty() {
        out.extend_from_slice(b"null");
        return;
    }
    let offsets: Vec<u64> = tokens
        .iter()
        .map(|token| choice.place(token.chosen.bytes))
        .collect();
    let names: Vec<String> = tokens.iter().map(|it| name(it.chosen.bytes)).collect();
    let logprobs: Vec<Value> = tokens.iter().map(|it| it.chosen.number()).collect();
    let tops: Vec<Map<String, Value>> = tokens.iter().map(top).collect();
    let lists = json!({
        "tokens": names, "token_logprobs": logprobs, "top_logprobs": tops, "text_offset": offsets
    });
    serde_json::to_writer(out, &lists).expect("a vector takes all bytes");
}

/// The likeliest tokens by name, the sampled one among them. Tokens of one name, which only differ by
/// their numbers, are kept apart by what is counted behind it.
fn top(token: &TokenChoice<'_>) -> Map<String, Value> {
    let mut top = Map::new();
    for one in &token.top {
        let name = name(one.bytes);
        let mut key = name.clone();
        let mut count = 1;
        while top.contains_key(&key) {
            count += 1;
            key = format!("{name} #{count}");
        }
        top.insert(key, one.number());
    }
    let chosen = name(token.chosen.bytes);
    top.entry(chosen).or_insert_with(|| token.chosen.number());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn token(bytes: &[u8], logprob_millionths: i64) -> SaidToken<'_> {
        SaidToken {
            bytes,
            logprob_millionths,
        }
    }

    fn written(choice: &mut TextChoice, tokens: &[TokenChoice<'_>]) -> Value {
        let framing = TextFraming::new(RequestId(1), 7, "m");
        let mut out = vec![];
        framing.write_piece(choice, "x", tokens, None, &mut out);
        let text = String::from_utf8(out).expect("it is text");
        let payload = text.strip_prefix("data: ").expect("an event").trim_end();
        let mut chunk: Value = serde_json::from_str(payload).expect("it is JSON");
        chunk["choices"][0]["logprobs"].take()
    }

    #[test]
    fn tokens_that_print_alike_have_an_entry_each_and_the_sampled_one_is_among_them() {
        let tokens = [TokenChoice {
            chosen: token(b"\xe7", -4_000_000),
            top: vec![
                token(b"\xe4", -700_000),
                token(b"\xe5", -1_204_000),
                token(b"a", -1_609_000),
                token(b"a", -1_700_000),
            ],
        }];
        let lists = written(&mut TextChoice::new(0), &tokens);
        assert_eq!(
            lists["top_logprobs"][0],
            json!({"bytes:\\xe4": -0.7, "bytes:\\xe5": -1.204, "a": -1.609, "a #2": -1.7,
                "bytes:\\xe7": -4.0})
        );
        assert_eq!(lists["tokens"], json!(["bytes:\\xe7"]));
        assert_eq!(lists["token_logprobs"], json!([-4.0]));
    }

    #[test]
    fn offsets_count_characters_over_all_pieces() {
        let one = |bytes| TokenChoice {
            chosen: token(bytes, 0),
            top: vec![],
        };
        let mut choice = TextChoice::new(0);
        choice.skip("é:");
        let first = written(&mut choice, &[one(b"ab"), one(b"\xe2\x82")]);
        assert_eq!(first["text_offset"], json!([2, 4]));
        let second = written(&mut choice, &[one(b"\xac"), one(b"c")]);
        assert_eq!(second["text_offset"], json!([4, 5]));
    }

    #[test]
    fn a_whole_answer_has_its_choices_in_their_order() {
        let framing = TextFraming::new(RequestId(1), 7, "m");
        let mut out = vec![];
        framing.open_whole(&mut out);
        for (index, text) in [(0, "a"), (1, "b")] {
            if index > 0 {
                out.push(b',');
            }
            let mut choice = TextChoice::new(index);
            framing.write_choice(&mut choice, text, &[], Some(FinishReason::Length), &mut out);
        }
        framing.close_whole(AnswerUsage::default(), &mut out);
        let whole: Value = serde_json::from_slice(&out).expect("it is JSON");
        assert_eq!(whole["object"], "text_completion");
        assert_eq!(
            whole["choices"][1],
            json!({"index": 1, "text": "b", "logprobs": null, "finish_reason": "length"})
        );
        assert_eq!(whole["usage"]["total_tokens"], 0);
    }
}
