//! Server-sent events of a streamed answer.

use serde_json::value::RawValue;

use super::delta::Malformed;
use super::envelope::Envelope;
use super::finish::FinishReason;
use super::json::quote;
use super::logprobs::write_tokens;
use crate::denial::Denial;
use crate::event::Usage;
use crate::ids::RequestId;

/// Tokens as the consumer is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AnswerUsage {
    pub tokens: Usage,
    /// Part of the prompt tokens: those that were not computed anew. Not told when zero.
    pub cached_tokens: u32,
    /// Part of the completion tokens.
    pub reasoning_tokens: u32,
}

impl AnswerUsage {
    /// Appends the `usage` object.
    pub fn write(self, out: &mut Vec<u8>) {
        let prompt = u64::from(self.tokens.prompt_tokens);
        let completion = u64::from(self.tokens.completion_tokens);
        let total = prompt + completion;
        let text = format!(
            concat!(
                "{{\"prompt_tokens\":{},\"completion_tokens\":{},\"total_tokens\":{},",
                "\"completion_tokens_details\":{{\"reasoning_tokens\":{}}}}}"
            ),
            prompt, completion, total, self.reasoning_tokens
        );
        out.extend_from_slice(text.as_bytes());
        if self.cached_tokens > 0 {
            out.pop();
            let cached = self.cached_tokens;
            let text = format!(",\"prompt_tokens_details\":{{\"cached_tokens\":{cached}}}}}");
            out.extend_from_slice(text.as_bytes());
        }
    }
}

/// What every frame of one answer has in common, written once.
#[derive(Clone, Debug)]
pub struct Framing {
    /// From `data: ` to the bracket that opens the choices.
    chunk: Vec<u8>,
    /// From the brace to the bracket that opens the choices.
    whole: Vec<u8>,
    /// Which of the answers to its request.
    choice: u32,
}

impl Framing {
    /// `model` is the name that the consumer asked for.
    #[must_use]
    pub fn new(request: RequestId, created_unix_s: u64, model: &str) -> Self {
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
            chunk: open("data: ", "chat.completion.chunk"),
            whole: open("", "chat.completion"),
            choice: 0,
        }
    }

    /// The same for another answer to the same request.
    #[must_use]
    pub fn of_choice(&self, choice: u32) -> Self {
        Self {
            choice,
            ..self.clone()
        }
    }

    fn open_choice(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.chunk);
        match self.choice {
            0 => out.extend_from_slice(b"{\"index\":0,\"delta\":{"),
            choice => {
                out.extend_from_slice(format!("{{\"index\":{choice},\"delta\":{{").as_bytes());
            }
        }
    }

    /// Opens the first chunk up to the role in its delta, which must come exactly once.
    pub fn open_first_delta(&self, out: &mut Vec<u8>) {
        self.open_delta(out);
        out.extend_from_slice(b"\"role\":\"assistant\"");
    }

    /// Opens a chunk up to the brace of its delta.
    pub fn open_delta(&self, out: &mut Vec<u8>) {
        self.open_choice(out);
    }

    /// Closes what [`Self::open_delta`] opened. `logprobs` are as a provider sent them.
    pub fn close_delta(
        &self,
        logprobs: Option<&RawValue>,
        out: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        let mut tokens = Vec::new();
        if let Some(logprobs) = logprobs {
            write_tokens(logprobs, &mut tokens)?;
        }
        self.close_piece(&tokens, out);
        Ok(())
    }

    /// Closes what [`Self::open_delta`] opened; `tokens` are the elements of `logprobs.content`.
    pub(crate) fn close_piece(&self, tokens: &[u8], out: &mut Vec<u8>) {
        out.push(b'}');
        if !tokens.is_empty() {
            out.extend_from_slice(b",\"logprobs\":");
            write_logprobs(tokens, out);
        }
        out.extend_from_slice(b",\"finish_reason\":null}]}\n\n");
    }

    /// Appends the chunk that carries the finish reason.
    pub fn write_finish(&self, finish: FinishReason, out: &mut Vec<u8>) {
        self.open_choice(out);
        out.extend_from_slice(b"},\"finish_reason\":\"");
        out.extend_from_slice(finish.as_str().as_bytes());
        out.extend_from_slice(b"\"}]}\n\n");
    }

    /// Appends the usage chunk, which has no choices.
    pub fn write_usage(&self, usage: AnswerUsage, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.chunk);
        out.extend_from_slice(b"],\"usage\":");
        usage.write(out);
        out.extend_from_slice(b"}\n\n");
    }

    pub(super) fn open_whole(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.whole);
    }
}

/// Appends the last event of a stream that ended well.
pub fn write_done(out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: [DONE]\n\n");
}

/// Appends the one error event of a stream that broke. Nothing follows it.
pub fn write_error(denial: Denial, out: &mut Vec<u8>) {
    write_failed(&Envelope::from(denial), out);
}

/// The same, in other words than a denial's.
pub fn write_failed(envelope: &Envelope, out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    envelope.write(out);
    out.extend_from_slice(b"\n\n");
}

/// Appends the `logprobs` object of these elements of its `content`, or null where there are none.
pub(super) fn write_logprobs(tokens: &[u8], out: &mut Vec<u8>) {
    if tokens.is_empty() {
        out.extend_from_slice(b"null");
    } else {
        out.extend_from_slice(b"{\"content\":[");
        out.extend_from_slice(tokens);
        out.extend_from_slice(b"],\"refusal\":null}");
    }
}
