//! Answers of the engine in the words of the core, which writes them in the shapes of the API.

use cereus_core::api::{
    Answer, AnswerUsage, Api, Envelope, FinishReason, Framing, TextChoice, TextFraming,
    TokenChoice, Turn, write_done, write_failed,
};
use cereus_core::ids::RequestId;
use cereus_engine::failure::{Failure, Reason};
use cereus_engine::runtime::{self, Delta, Finished, SaidBuffers, gather, said_token};

use crate::answer::WholeAnswer;

/// Seconds after which a full queue is worth another try.
const FULL_RETRY_AFTER_S: u16 = 2;
const DRAIN_RETRY_AFTER_S: u16 = 5;

/// What every piece of the answers to one request has in common.
#[derive(Debug)]
pub(crate) enum AnswerFraming {
    Chat(Framing),
    Text(TextFraming),
}

impl AnswerFraming {
    pub(crate) fn new(api: Api, id: RequestId, created_unix_s: u64, model: &str) -> Self {
        match api {
            Api::Chat => Self::Chat(Framing::new(id, created_unix_s, model)),
            Api::Completions => Self::Text(TextFraming::new(id, created_unix_s, model)),
        }
    }

    /// `heads` stand before the answers: echoed prompts, or nothing.
    pub(crate) fn whole(
        &self,
        heads: &[String],
        answers: &[WholeAnswer],
        usage: AnswerUsage,
    ) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        match self {
            Self::Chat(framing) => {
                let whole: Vec<Answer> = answers.iter().map(gathered).collect();
                let finishes = answers.iter().map(|answer| finish_of(&answer.finished));
                Answer::write_all(framing, whole.iter().zip(finishes), usage, &mut out);
            }
            Self::Text(framing) => {
                framing.open_whole(&mut out);
                for ((answer, head), index) in answers.iter().zip(heads).zip(0..) {
                    if index > 0 {
                        out.push(b',');
                    }
                    let text = format!("{head}{}", answer.said.content);
                    let tokens = token_choices(&answer.said);
                    let finish = Some(finish_of(&answer.finished));
                    let mut choice = TextChoice::new(index);
                    framing.write_choice(&mut choice, &text, &tokens, finish, &mut out);
                }
                framing.close_whole(usage, &mut out);
            }
        }
        out
    }
}

fn gathered(answer: &WholeAnswer) -> Answer {
    let mut whole = Answer::default();
    gather(&answer.said, &mut whole);
    whole
}

/// Writes server-sent events.
#[derive(Debug)]
pub(crate) struct StreamWriter {
    shape: AnswerFraming,
    usage: UsageChunk,
    choices: Vec<Choice>,
    /// How each answer ended; the usage of all follows once the last has.
    ends: Vec<Option<Finished>>,
    per_prompt: usize,
    buffers: SaidBuffers,
}

/// One of the answers, as far as it has been written.
#[derive(Debug)]
enum Choice {
    Chat {
        framing: Framing,
        turn: Turn,
    },
    /// `head` is still to be written before the answer.
    Text {
        choice: TextChoice,
        head: String,
    },
}

/// Whether the stream ends with a chunk that carries the usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UsageChunk {
    Absent,
    Last,
}

impl StreamWriter {
    /// Of as many answers as there are `heads`, so many for each prompt.
    pub(crate) fn new(
        shape: AnswerFraming,
        heads: Vec<String>,
        per_prompt: usize,
        usage: UsageChunk,
    ) -> Self {
        let choices = (0..).zip(heads).map(|(index, head)| match &shape {
            AnswerFraming::Chat(framing) => Choice::Chat {
                framing: framing.of_choice(index),
                turn: Turn::First,
            },
            AnswerFraming::Text(_) => Choice::Text {
                choice: TextChoice::new(index),
                head,
            },
        });
        let choices: Vec<Choice> = choices.collect();
        Self {
            ends: choices.iter().map(|_| None).collect(),
            choices,
            shape,
            usage,
            per_prompt,
            buffers: SaidBuffers::default(),
        }
    }

    /// Writes what comes before the answers: echoed prompts.
    pub(crate) fn open(&mut self, out: &mut Vec<u8>) {
        let AnswerFraming::Text(framing) = &self.shape else {
            return;
        };
        for choice in &mut self.choices {
            if let Choice::Text { choice, head } = choice
                && !head.is_empty()
            {
                framing.write_piece(choice, head, &[], None, out);
                choice.skip(head);
            }
        }
    }

    pub(crate) fn delta(&mut self, choice: usize, delta: &Delta, out: &mut Vec<u8>) {
        match (&mut self.choices[choice], &self.shape) {
            (Choice::Chat { framing, turn }, _) => {
                let turn = std::mem::replace(turn, Turn::Later);
                framing.write_said(turn, &self.buffers.said(delta), out);
            }
            (Choice::Text { choice, .. }, AnswerFraming::Text(framing)) => {
                let tokens = token_choices(delta);
                framing.write_piece(choice, &delta.content, &tokens, None, out);
            }
            (Choice::Text { .. }, AnswerFraming::Chat(_)) => {
                unreachable!("choices are of their shape")
            }
        }
    }

    pub(crate) fn finished(&mut self, choice: usize, finished: &Finished, out: &mut Vec<u8>) {
        let is_silent = matches!(
            &self.choices[choice],
            Choice::Chat {
                turn: Turn::First,
                ..
            }
        );
        if is_silent {
            // The role comes exactly once, even where nothing was said.
            self.delta(choice, &Delta::default(), out);
        }
        let finish = finish_of(finished);
        match (&mut self.choices[choice], &self.shape) {
            (Choice::Chat { framing, .. }, _) => framing.write_finish(finish, out),
            (Choice::Text { choice, .. }, AnswerFraming::Text(framing)) => {
                framing.write_piece(choice, "", &[], Some(finish), out);
            }
            (Choice::Text { .. }, AnswerFraming::Chat(_)) => {
                unreachable!("choices are of their shape")
            }
        }
        self.ends[choice] = Some(*finished);
        if self.ends.iter().all(Option::is_some) {
            self.close(out);
        }
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if self.usage == UsageChunk::Last {
            let usage = usage_of(self.ends.iter().flatten(), self.per_prompt);
            match &self.shape {
                AnswerFraming::Chat(framing) => framing.write_usage(usage, out),
                AnswerFraming::Text(framing) => framing.write_usage(usage, out),
            }
        }
        write_done(out);
    }

    /// The one error event of a stream that broke. Nothing follows it.
    pub(crate) fn failed(&mut self, failure: &Failure, out: &mut Vec<u8>) {
        write_failed(&envelope(failure), out);
    }
}

/// The tokens of a delta as the core writes them.
fn token_choices(delta: &Delta) -> Vec<TokenChoice<'_>> {
    let tokens = delta.logprobs.iter();
    tokens
        .map(|token| TokenChoice {
            chosen: said_token(&token.chosen),
            top: token.top.iter().map(said_token).collect(),
        })
        .collect()
}

fn finish_of(finished: &Finished) -> FinishReason {
    match finished.reason {
        runtime::FinishReason::Length => FinishReason::Length,
        // A row is cancelled when its reader is gone, so nobody reads what is said of it.
        runtime::FinishReason::Cancelled | runtime::FinishReason::Stop => FinishReason::Stop,
        runtime::FinishReason::ToolCalls => FinishReason::ToolCalls,
    }
}

/// Of all answers to a request, so many for each prompt: a prompt counts once.
pub(crate) fn usage_of<'a>(
    ends: impl Iterator<Item = &'a Finished>,
    per_prompt: usize,
) -> AnswerUsage {
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
        // A coordinator would try a larger machine; here this one is all there is, so the request
        // is at fault.
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
