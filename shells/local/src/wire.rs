//! Answers of the engine in the words of the core, which writes them in the shapes of the API.

use cereus_core::api::{AnswerUsage, Envelope, FinishReason, Writer};
use cereus_engine::failure::{Failure, Reason};
use cereus_engine::runtime::{self, Delta, Finished};

use crate::answer::Ended;

/// Seconds after which a full queue is worth another try.
const FULL_RETRY_AFTER_S: u16 = 2;
const DRAIN_RETRY_AFTER_S: u16 = 5;

/// All answers to a request as one object, so many for each prompt.
pub(crate) fn whole(writer: &Writer, answers: &[Ended], per_prompt: usize) -> Vec<u8> {
    let usage = usage_of(answers.iter().map(|ended| &ended.finished), per_prompt);
    let finish = |ended: &Ended| finish_of(&ended.finished);
    let answers: Vec<_> = answers.iter().map(|it| (&it.answer, finish(it))).collect();
    let mut out = Vec::with_capacity(512);
    writer.write_whole(&answers, usage, &mut out);
    out
}

/// Writes server-sent events, and knows when all answers have ended.
#[derive(Debug)]
pub(crate) struct StreamWriter {
    writer: Writer,
    usage: UsageChunk,
    /// Of all answers, once each has ended.
    ends: Vec<Option<Finished>>,
    per_prompt: usize,
}

/// Whether the stream ends with a chunk that carries the usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UsageChunk {
    Absent,
    Last,
}

impl StreamWriter {
    /// For as many answers as `writer` is for, so many for each prompt.
    pub(crate) fn new(
        writer: Writer,
        answers: usize,
        per_prompt: usize,
        usage: UsageChunk,
    ) -> Self {
        Self {
            writer,
            usage,
            ends: vec![None; answers],
            per_prompt,
        }
    }

    /// What stands before all answers.
    pub(crate) fn open(&mut self, out: &mut Vec<u8>) {
        self.writer.write_open(out);
    }

    pub(crate) fn delta(&mut self, answer: usize, delta: &Delta, out: &mut Vec<u8>) {
        self.writer
            .write_piece(answer, &delta.as_piece(), out)
            .expect("log-probabilities of our own are well formed");
    }

    pub(crate) fn finished(&mut self, answer: usize, finished: &Finished, out: &mut Vec<u8>) {
        self.writer.write_finish(answer, finish_of(finished), out);
        self.ends[answer] = Some(*finished);
        if self.ends.iter().all(Option::is_some) {
            self.close(out);
        }
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if self.usage == UsageChunk::Last {
            let usage = usage_of(self.ends.iter().flatten(), self.per_prompt);
            self.writer.write_usage(usage, out);
        }
        self.writer.write_done(out);
    }

    /// The one error event of a stream that broke. Nothing follows it.
    pub(crate) fn failed(&mut self, failure: &Failure, out: &mut Vec<u8>) {
        self.writer.write_failed(&envelope(failure), out);
    }
}

fn finish_of(finished: &Finished) -> FinishReason {
    match finished.reason {
        runtime::FinishReason::Length => FinishReason::Length,
        // Cancelled: nobody reads it.
        runtime::FinishReason::Cancelled | runtime::FinishReason::Stop => FinishReason::Stop,
        runtime::FinishReason::ToolCalls => FinishReason::ToolCalls,
    }
}

/// Of all answers to a request, so many for each prompt: a prompt counts once.
fn usage_of<'a>(ends: impl Iterator<Item = &'a Finished>, per_prompt: usize) -> AnswerUsage {
    let mut all = AnswerUsage::default();
    for (ix, finished) in ends.enumerate() {
        let usage = finished.usage;
        if ix % per_prompt == 0 {
            all.tokens.prompt_tokens += usage.prompt_tokens;
            all.cached_tokens += usage.cached_tokens;
        }
        all.tokens.completion_tokens += usage.completion_tokens;
        all.reasoning_tokens += usage.reasoning_tokens;
    }
    all
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
        param: failure.param.clone(),
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
