//! A piece of an answer, from whoever computes it into a chunk.

use core::fmt;

use super::finish::FinishReason;
use super::json::quote;
use super::stream::{AnswerUsage, Framing};

/// See the module. What is empty is not written.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Said<'a> {
    pub reasoning: &'a str,
    pub content: &'a str,
    /// The elements of `tool_calls`, as [`write_call`] writes them, with commas between.
    pub calls: &'a [u8],
    /// The elements of `logprobs.content`, as [`write_token`] writes them, with commas between.
    pub logprobs: &'a [u8],
}

/// Prints no text.
impl fmt::Debug for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (reasoning, content) = (self.reasoning.len(), self.content.len());
        write!(
            f,
            "Said({reasoning} bytes thought, {content} said, {} called)",
            self.calls.len()
        )
    }
}

impl<'a> Said<'a> {
    #[must_use]
    pub fn content(content: &'a str) -> Self {
        Self {
            content,
            ..Self::default()
        }
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.reasoning.is_empty() && self.content.is_empty() && self.calls.is_empty()
    }
}

/// Which chunk of a stream it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Carries the role, which must come exactly once.
    First,
    Later,
}

impl Framing {
    /// Appends the chunk of one piece.
    pub fn write_said(&self, turn: Turn, said: &Said<'_>, out: &mut Vec<u8>) {
        let mut is_first = match turn {
            Turn::First => {
                self.open_first_delta(out);
                false
            }
            Turn::Later => {
                self.open_delta(out);
                true
            }
        };
        let mut member = |name: &str, out: &mut Vec<u8>| {
            if !is_first {
                out.push(b',');
            }
            is_first = false;
            out.extend_from_slice(name.as_bytes());
        };
        if !said.reasoning.is_empty() {
            member("\"reasoning_content\":", out);
            quote(said.reasoning, out);
        }
        if !said.content.is_empty() {
            member("\"content\":", out);
            quote(said.content, out);
        }
        if !said.calls.is_empty() {
            member("\"tool_calls\":[", out);
            out.extend_from_slice(said.calls);
            out.push(b']');
        }
        if said.logprobs.is_empty() {
            self.close_delta(None, out);
        } else {
            out.extend_from_slice(b"},\"logprobs\":");
            write_logprobs(said.logprobs, out);
            out.extend_from_slice(b",\"finish_reason\":null}]}\n\n");
        }
    }
}

impl Framing {
    /// Appends the `chat.completion` object of an answer that was said at once.
    pub fn write_whole(
        &self,
        said: &Said<'_>,
        finish: FinishReason,
        usage: AnswerUsage,
        out: &mut Vec<u8>,
    ) {
        self.open_whole(out);
        out.extend_from_slice(b"{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":");
        quote(said.content, out);
        if !said.reasoning.is_empty() {
            out.extend_from_slice(b",\"reasoning_content\":");
            quote(said.reasoning, out);
        }
        out.extend_from_slice(b",\"refusal\":null");
        if !said.calls.is_empty() {
            out.extend_from_slice(b",\"tool_calls\":[");
            out.extend_from_slice(said.calls);
            out.push(b']');
        }
        out.extend_from_slice(b"},\"logprobs\":");
        write_logprobs(said.logprobs, out);
        out.extend_from_slice(b",\"finish_reason\":\"");
        out.extend_from_slice(finish.as_str().as_bytes());
        out.extend_from_slice(b"\"}],\"usage\":");
        usage.write(out);
        out.push(b'}');
    }
}

fn write_logprobs(tokens: &[u8], out: &mut Vec<u8>) {
    if tokens.is_empty() {
        out.extend_from_slice(b"null");
    } else {
        out.extend_from_slice(b"{\"content\":[");
        out.extend_from_slice(tokens);
        out.extend_from_slice(b"],\"refusal\":null}");
    }
}

/// A whole call, whose arguments are a JSON object.
#[derive(Clone, Copy)]
pub struct SaidCall<'a> {
    pub index: u32,
    pub id: &'a str,
    pub name: &'a str,
    pub arguments: &'a str,
}

/// Appends one element of `tool_calls`, after a comma where another stands before it.
pub fn write_call(call: &SaidCall<'_>, out: &mut Vec<u8>) {
    if !out.is_empty() {
        out.push(b',');
    }
    out.extend_from_slice(format!("{{\"index\":{},\"id\":", call.index).as_bytes());
    quote(call.id, out);
    out.extend_from_slice(b",\"type\":\"function\",\"function\":{\"name\":");
    quote(call.name, out);
    out.extend_from_slice(b",\"arguments\":");
    quote(call.arguments, out);
    out.extend_from_slice(b"}}");
}

/// A token of an answer as its bytes, with its log-probability in millionths.
#[derive(Clone, Copy)]
pub struct SaidToken<'a> {
    pub bytes: &'a [u8],
    pub logprob_millionths: i64,
}

/// Appends one element of `logprobs.content`, after a comma where another stands before it.
pub fn write_token<'a>(
    chosen: SaidToken<'_>,
    top: impl Iterator<Item = SaidToken<'a>>,
    out: &mut Vec<u8>,
) {
    if !out.is_empty() {
        out.push(b',');
    }
    open_token(chosen, out);
    out.extend_from_slice(b",\"top_logprobs\":[");
    for (ix, token) in top.enumerate() {
        if ix > 0 {
            out.push(b',');
        }
        open_token(token, out);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
}

fn open_token(token: SaidToken<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"token\":");
    // Bytes that are no whole character show as U+FFFD here and as they are below.
    quote(&String::from_utf8_lossy(token.bytes), out);
    let sign = if token.logprob_millionths < 0 {
        "-"
    } else {
        ""
    };
    let size = token.logprob_millionths.unsigned_abs();
    let (whole, part) = (size / 1_000_000, size % 1_000_000);
    out.extend_from_slice(format!(",\"logprob\":{sign}{whole}.{part:06},\"bytes\":[").as_bytes());
    for (ix, byte) in token.bytes.iter().enumerate() {
        if ix > 0 {
            out.push(b',');
        }
        out.extend_from_slice(byte.to_string().as_bytes());
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::ids::RequestId;

    fn chunk(turn: Turn, said: &Said<'_>) -> Value {
        let mut out = Vec::new();
        Framing::new(RequestId(1), 7, "m").write_said(turn, said, &mut out);
        let text = String::from_utf8(out).unwrap();
        let payload = text
            .strip_prefix("data: ")
            .unwrap()
            .strip_suffix("\n\n")
            .unwrap();
        serde_json::from_str(payload).unwrap()
    }

    #[test]
    fn a_chunk_carries_what_is_there_and_its_role_once() {
        let first = chunk(Turn::First, &Said::content("a\"ä\n"));
        assert_eq!(
            first["choices"][0]["delta"],
            json!({"role": "assistant", "content": "a\"ä\n"})
        );
        assert_eq!(first["choices"][0]["finish_reason"], Value::Null);
        let later = Said {
            reasoning: "r",
            content: "c",
            ..Said::default()
        };
        let later = chunk(Turn::Later, &later);
        assert_eq!(
            later["choices"][0]["delta"],
            json!({"reasoning_content": "r", "content": "c"})
        );
    }

    #[test]
    fn a_whole_answer_has_one_message() {
        let usage = AnswerUsage::default();
        let framing = Framing::new(RequestId(1), 7, "m");
        let mut out = Vec::new();
        let said = Said {
            reasoning: "r",
            ..Said::content("c")
        };
        framing.write_whole(&said, FinishReason::Stop, usage, &mut out);
        let whole: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(whole["object"], "chat.completion");
        assert_eq!(
            whole["choices"][0],
            json!({"index": 0, "logprobs": null, "finish_reason": "stop", "message":
                {"role": "assistant", "content": "c", "reasoning_content": "r", "refusal": null}})
        );
        assert_eq!(whole["usage"]["total_tokens"], 0);
    }

    #[test]
    fn calls_are_written_as_clients_accumulate_them() {
        let mut calls = Vec::new();
        for index in 0..2 {
            let call = SaidCall {
                index,
                id: "i",
                name: "f",
                arguments: "{\"q\":1}",
            };
            write_call(&call, &mut calls);
        }
        let said = Said {
            calls: &calls,
            ..Said::default()
        };
        let chunk = chunk(Turn::Later, &said);
        let call = |index| {
            json!({"index": index, "id": "i", "type": "function",
                "function": {"name": "f", "arguments": "{\"q\":1}"}})
        };
        assert_eq!(
            chunk["choices"][0]["delta"],
            json!({"tool_calls": [call(0), call(1)]})
        );
    }

    #[test]
    fn log_probabilities_show_half_characters_by_their_bytes() {
        let token = |bytes, logprob_millionths| SaidToken {
            bytes,
            logprob_millionths,
        };
        let mut logprobs = Vec::new();
        write_token(
            token(b"\xe2\x82", -1_500_001),
            [token(b"a", 0)].into_iter(),
            &mut logprobs,
        );
        write_token(token(b"b", -3), std::iter::empty(), &mut logprobs);
        let said = Said {
            logprobs: &logprobs,
            ..Said::content("x")
        };
        let chunk = chunk(Turn::Later, &said);
        let tokens = &chunk["choices"][0]["logprobs"]["content"];
        assert_eq!(
            tokens[0],
            json!({"token": "\u{fffd}", "logprob": -1.500_001, "bytes": [226, 130],
                "top_logprobs": [{"token": "a", "logprob": 0.0, "bytes": [97]}]})
        );
        assert_eq!(tokens[1]["logprob"], json!(-0.000_003));
    }
}
