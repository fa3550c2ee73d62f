//! Answers in the shapes of the API: chat completions by the core, plain completions here.

use cereus_core::api::{AnswerUsage, Envelope, FinishReason, Framing, Turn, quote, write_done};
use cereus_core::event::Usage;
use cereus_core::ids::RequestId;
use cereus_engine::failure::{Failure, Reason};
use cereus_engine::runtime::{self, Delta, Finished, SaidBuffers, TokenLogprob};

use crate::answer::WholeAnswer;

/// Seconds after which a full queue is worth another try.
const FULL_RETRY_AFTER_S: u16 = 2;
const DRAIN_RETRY_AFTER_S: u16 = 5;

/// What every piece of one answer has in common.
#[derive(Debug)]
pub(crate) enum Shape {
    Chat(Framing),
    Text(TextFraming),
}

impl Shape {
    pub(crate) fn chat(id: RequestId, created_unix_s: u64, model: &str) -> Self {
        Self::Chat(Framing::new(id, created_unix_s, model))
    }

    pub(crate) fn text(id: RequestId, created_unix_s: u64, model: &str) -> Self {
        Self::Text(TextFraming::new(id, created_unix_s, model))
    }

    pub(crate) fn whole(&self, answer: &WholeAnswer) -> Vec<u8> {
        let mut out = Vec::with_capacity(512 + answer.said.content.len());
        let finish = finish_of(&answer.finished);
        let usage = usage_of(&answer.finished);
        match self {
            Self::Chat(framing) => {
                let mut buffers = SaidBuffers::default();
                let said = buffers.said(&answer.said);
                framing.write_whole(&said, finish, usage, &mut out);
            }
            Self::Text(framing) => framing.write_whole(&answer.said, finish, usage, &mut out),
        }
        out
    }
}

/// Writes server-sent events.
#[derive(Debug)]
pub(crate) struct StreamWriter {
    shape: Shape,
    usage: UsageChunk,
    turn: Turn,
    buffers: SaidBuffers,
}

/// Whether the stream ends with a chunk that carries the usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UsageChunk {
    Absent,
    Last,
}

impl StreamWriter {
    pub(crate) fn new(shape: Shape, usage: UsageChunk) -> Self {
        Self {
            shape,
            usage,
            turn: Turn::First,
            buffers: SaidBuffers::default(),
        }
    }

    pub(crate) fn delta(&mut self, delta: &Delta, out: &mut Vec<u8>) {
        match &self.shape {
            Shape::Chat(framing) => {
                let turn = std::mem::replace(&mut self.turn, Turn::Later);
                framing.write_said(turn, &self.buffers.said(delta), out);
            }
            Shape::Text(framing) => framing.write_piece(delta, None, out),
        }
    }

    pub(crate) fn finished(&mut self, finished: &Finished, out: &mut Vec<u8>) {
        if self.turn == Turn::First && matches!(self.shape, Shape::Chat(_)) {
            // The role comes exactly once, even where nothing was said.
            self.delta(&Delta::default(), out);
        }
        let finish = finish_of(finished);
        match &self.shape {
            Shape::Chat(framing) => framing.write_finish(finish, out),
            Shape::Text(framing) => framing.write_piece(&Delta::default(), Some(finish), out),
        }
        if self.usage == UsageChunk::Last {
            match &self.shape {
                Shape::Chat(framing) => framing.write_usage(usage_of(finished), out),
                Shape::Text(framing) => framing.write_usage(usage_of(finished), out),
            }
        }
        write_done(out);
    }

    /// The one error event of a stream that broke. Nothing follows it.
    pub(crate) fn failed(&mut self, failure: &Failure, out: &mut Vec<u8>) {
        out.extend_from_slice(b"data: ");
        envelope(failure).write(out);
        out.extend_from_slice(b"\n\n");
    }
}

/// Plain completions: `text_completion` objects.
#[derive(Debug)]
pub(crate) struct TextFraming {
    /// From the brace to the bracket that opens the choices.
    head: Vec<u8>,
}

impl TextFraming {
    fn new(id: RequestId, created_unix_s: u64, model: &str) -> Self {
        let head = format!(
            "{{\"id\":\"cmpl-{id}\",\"object\":\"text_completion\",\"created\":{created_unix_s},\
             \"model\":"
        );
        let mut head = head.into_bytes();
        quote(model, &mut head);
        head.extend_from_slice(b",\"choices\":[");
        Self { head }
    }

    fn write_choice(&self, said: &Delta, finish: Option<FinishReason>, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(b"{\"index\":0,\"text\":");
        quote(&said.content, out);
        out.extend_from_slice(b",\"logprobs\":");
        write_text_logprobs(&said.logprobs, out);
        out.extend_from_slice(b",\"finish_reason\":");
        match finish {
            None => out.extend_from_slice(b"null}"),
            Some(finish) => {
                quote(finish.as_str(), out);
                out.push(b'}');
            }
        }
    }

    fn write_whole(
        &self,
        said: &Delta,
        finish: FinishReason,
        usage: AnswerUsage,
        out: &mut Vec<u8>,
    ) {
        self.write_choice(said, Some(finish), out);
        out.extend_from_slice(b"],\"usage\":");
        usage.write(out);
        out.push(b'}');
    }

    fn write_piece(&self, said: &Delta, finish: Option<FinishReason>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"data: ");
        self.write_choice(said, finish, out);
        out.extend_from_slice(b"]}\n\n");
    }

    fn write_usage(&self, usage: AnswerUsage, out: &mut Vec<u8>) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&self.head);
        out.extend_from_slice(b"],\"usage\":");
        usage.write(out);
        out.extend_from_slice(b"}\n\n");
    }
}

/// Three lists side by side, as plain completions have them.
fn write_text_logprobs(tokens: &[TokenLogprob], out: &mut Vec<u8>) {
    if tokens.is_empty() {
        out.extend_from_slice(b"null");
        return;
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let texts: Vec<String> = tokens.iter().map(|it| text(&it.chosen.bytes)).collect();
    let logprobs: Vec<f32> = tokens.iter().map(|it| it.chosen.logprob).collect();
    let tops: Vec<serde_json::Map<String, serde_json::Value>> = tokens
        .iter()
        .map(|it| {
            let top = it.top.iter();
            top.map(|top| (text(&top.bytes), top.logprob.into()))
                .collect()
        })
        .collect();
    let lists = serde_json::json!({
        "tokens": texts, "token_logprobs": logprobs, "top_logprobs": tops
    });
    serde_json::to_writer(out, &lists).expect("a vector takes all bytes");
}

fn finish_of(finished: &Finished) -> FinishReason {
    match finished.reason {
        runtime::FinishReason::Length => FinishReason::Length,
        // Cancelled: nobody reads it.
        runtime::FinishReason::Cancelled | runtime::FinishReason::Stop => FinishReason::Stop,
        runtime::FinishReason::ToolCalls => FinishReason::ToolCalls,
    }
}

fn usage_of(finished: &Finished) -> AnswerUsage {
    AnswerUsage {
        tokens: Usage {
            prompt_tokens: finished.usage.prompt_tokens,
            completion_tokens: finished.usage.completion_tokens,
        },
        cached_tokens: finished.usage.cached_tokens,
        reasoning_tokens: finished.usage.reasoning_tokens,
    }
}

/// The engine's refusals as HTTP shows them.
pub(crate) fn envelope(failure: &Failure) -> Envelope {
    let (status, kind, code) = match failure.reason {
        Reason::AdmissionTimeout => (503, "service_unavailable", "admission_timeout"),
        Reason::Cancelled => (499, "invalid_request_error", "request_cancelled"),
        Reason::ClientError => (400, "invalid_request_error", "invalid_request_error"),
        Reason::Draining => (503, "service_unavailable", "draining"),
        Reason::JinjaTemplate => (422, "invalid_request_error", "model_capability"),
        Reason::ProviderError => (500, "internal_error", "internal_error"),
        Reason::SafetyDeadline => (504, "timeout", "safety_deadline"),
        Reason::Stalled => (500, "internal_error", "stalled"),
        Reason::QueueFull => (429, "rate_limit_exceeded", "machine_busy"),
        // There is no other machine that could take it.
        Reason::RequestExceedsContext | Reason::RequestExceedsNodeBudget => {
            (400, "invalid_request_error", "context_length_exceeded")
        }
    };
    Envelope {
        status,
        kind,
        code,
        param: None,
        message: failure.text.clone(),
        retry_after_s: match failure.reason {
            Reason::AdmissionTimeout | Reason::QueueFull => Some(FULL_RETRY_AFTER_S),
            Reason::Draining => Some(DRAIN_RETRY_AFTER_S),
            Reason::Cancelled
            | Reason::ClientError
            | Reason::JinjaTemplate
            | Reason::ProviderError
            | Reason::RequestExceedsContext
            | Reason::RequestExceedsNodeBudget
            | Reason::SafetyDeadline
            | Reason::Stalled => None,
        },
        should_retry: None,
    }
}
