//! A backend that computes nothing: every answer is the same word so many times, at once or with a
//! pause before each step. It shows what everything around the model costs.

use std::time::Duration;

use super::backend::{Backend, Limits, Memory, StepError, StepWork};
use crate::chat::{ChatRequest, Input};
use crate::failure::Failure;
use crate::sampling::Chosen;
use crate::scheduler::RowSlot;
use crate::text::Vocabulary;

const WORD: u32 = 1;
const END: u32 = 0;
/// Bytes of a prompt that count as one token, about as in English text.
const BYTES_PER_TOKEN: usize = 4;

/// See the module.
#[derive(Clone, Debug)]
pub struct EchoBackend {
    words: u32,
    pause: Duration,
}

impl EchoBackend {
    /// Answers with `words` words, one token and one piece of text each, then ends.
    #[must_use]
    pub const fn new(words: u32) -> Self {
        Self {
            words,
            pause: Duration::ZERO,
        }
    }

    /// Pauses before each step, on the engine's own thread, where a real model would compute: for
    /// tests that need an answer to be under way.
    #[must_use]
    pub const fn paced(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }
}

impl Vocabulary for EchoBackend {
    fn decode(&self, tokens: &[u32]) -> String {
        "echo ".repeat(tokens.len())
    }
}

impl Backend for EchoBackend {
    fn limits(&self) -> Limits {
        Limits {
            context_tokens: 131_072,
            kv_bytes_per_token: 1,
            step_tokens_useful: u32::MAX,
        }
    }

    fn prompt(&self, request: &ChatRequest) -> Result<Vec<u32>, Failure> {
        let bytes: usize = match &request.input {
            Input::Conversation(messages) => messages.iter().map(|it| it.content.len()).sum(),
            Input::Text(text) => text.len(),
            Input::Tokens(tokens) => return Ok(tokens.clone()),
        };
        Ok(vec![WORD; bytes / BYTES_PER_TOKEN + 1])
    }

    fn is_end(&self, token: u32) -> bool {
        token == END
    }

    fn step(
        &mut self,
        step: &StepWork<'_>,
        out: &mut Vec<Option<Chosen>>,
    ) -> Result<(), StepError> {
        if !self.pause.is_zero() {
            std::thread::sleep(self.pause);
        }
        let samples = step.rows.iter().filter_map(|row| row.sample);
        out.extend(samples.map(|sample| {
            let token = if sample.step < self.words { WORD } else { END };
            Some(token.into())
        }));
        Ok(())
    }

    fn release(&mut self, _slot: RowSlot) {}

    fn memory(&self) -> Memory {
        Memory::default()
    }
}
