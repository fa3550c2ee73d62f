//! A piece of an answer, from whoever computes it into a chunk.

use core::fmt;

use serde_json::Value;

use super::json::quote;
use super::stream::Framing;

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
        self.close_piece(said.logprobs, out);
    }
}

/// A piece of a call.
#[derive(Clone, Copy)]
pub struct SaidCall<'a> {
    pub index: u32,
    /// With the first piece alone.
    pub begun: Option<SaidBegun<'a>>,
    /// All pieces make one JSON object.
    pub arguments: &'a str,
}

/// Which function is called.
#[derive(Clone, Copy)]
pub struct SaidBegun<'a> {
    pub id: &'a str,
    pub name: &'a str,
}

/// Appends one element of `tool_calls`, after a comma where another stands before it.
pub fn write_call(call: &SaidCall<'_>, out: &mut Vec<u8>) {
    if !out.is_empty() {
        out.push(b',');
    }
    out.extend_from_slice(format!("{{\"index\":{}", call.index).as_bytes());
    out.extend_from_slice(match call.begun {
        Some(_) => b",\"id\":".as_slice(),
        None => b",\"function\":{\"arguments\":",
    });
    if let Some(begun) = call.begun {
        quote(begun.id, out);
        out.extend_from_slice(b",\"type\":\"function\",\"function\":{\"name\":");
        quote(begun.name, out);
        out.extend_from_slice(b",\"arguments\":");
    }
    quote(call.arguments, out);
    out.extend_from_slice(b"}}");
}

/// A token of an answer as its bytes, with its log-probability in millionths.
#[derive(Clone, Copy)]
pub struct SaidToken<'a> {
    pub bytes: &'a [u8],
    pub logprob_millionths: i64,
}

impl SaidToken<'_> {
    /// The log-probability as JSON.
    pub(super) fn number(&self) -> Value {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a double holds ten thousand millions exactly"
        )]
        let millionths = self.logprob_millionths as f64;
        Value::from(millionths / 1e6)
    }
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
    use serde_json::json;

    use super::*;
    use crate::api::{Answer, AnswerUsage, FinishReason};
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
    fn whole_answers_stand_side_by_side_with_what_each_said() {
        let framing = Framing::new(RequestId(1), 7, "m");
        let mut first = Answer::default();
        for (content, arguments) in [("c\"", "{\"q\""), ("ä\n", ":1}")] {
            let said = Said {
                reasoning: "r",
                content,
                ..Said::default()
            };
            let begun = content
                .starts_with('c')
                .then_some(SaidBegun { id: "i", name: "f" });
            let call = SaidCall {
                index: 0,
                begun,
                arguments,
            };
            first.say(&said, &[call]);
        }
        let mut out = Vec::new();
        let second = Answer::default();
        let answers = [
            (&first, FinishReason::ToolCalls),
            (&second, FinishReason::Stop),
        ];
        Answer::write_all(
            &framing,
            answers.into_iter(),
            AnswerUsage::default(),
            &mut out,
        );
        let whole: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(whole["object"], "chat.completion");
        let call = json!({"id": "i", "type": "function",
            "function": {"name": "f", "arguments": "{\"q\":1}"}});
        assert_eq!(
            whole["choices"][0],
            json!({"index": 0, "logprobs": null, "finish_reason": "tool_calls", "message":
                {"role": "assistant", "content": "c\"ä\n", "reasoning": "rr",
                "reasoning_content": "rr", "refusal": null, "tool_calls": [call]}})
        );
        assert_eq!(whole["choices"][1]["index"], 1);
        assert_eq!(whole["usage"]["total_tokens"], 0);
        let mut out = Vec::new();
        framing
            .of_choice(1)
            .write_said(Turn::First, &Said::content("x"), &mut out);
        assert!(String::from_utf8(out).unwrap().contains("\"index\":1"));
    }

    #[test]
    fn calls_are_written_as_clients_accumulate_them() {
        let mut calls = Vec::new();
        let pieces = [
            (0, Some(SaidBegun { id: "i", name: "f" }), "{\"q\""),
            (0, None, ":1}"),
            (1, Some(SaidBegun { id: "j", name: "g" }), "{}"),
        ];
        for (index, begun, arguments) in pieces {
            let call = SaidCall {
                index,
                begun,
                arguments,
            };
            write_call(&call, &mut calls);
        }
        let said = Said {
            calls: &calls,
            ..Said::default()
        };
        let chunk = chunk(Turn::Later, &said);
        let call = |index, id, name, arguments| {
            json!({"index": index, "id": id, "type": "function",
                "function": {"name": name, "arguments": arguments}})
        };
        let more = json!({"index": 0, "function": {"arguments": ":1}"}});
        assert_eq!(
            chunk["choices"][0]["delta"],
            json!({"tool_calls": [call(0, "i", "f", "{\"q\""), more, call(1, "j", "g", "{}")]})
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
