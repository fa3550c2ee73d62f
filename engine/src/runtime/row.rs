//! One job from its acceptance to its end, as the engine's thread knows it.

use std::time::Instant;

use super::event::{Delta, Logprob, TokenLogprob};
use crate::sampling::{Chosen, History, Sample, Sampling};
use crate::text::{Answer, Piece, Stopped, Vocabulary};

/// See the module.
pub(super) struct Row {
    pub(super) prompt: Vec<u32>,
    pub(super) output_tokens_max: u32,
    sampling: Sampling,
    history: History,
    answer: Answer,
    /// Of tokens whose text is held back.
    logprobs: Vec<TokenLogprob>,
    pub(super) generated: u32,
    pub(super) newest: u32,
    pub(super) has_text: bool,
    pub(super) arrived: Instant,
    /// When the first step with its prompt began.
    pub(super) began: Option<Instant>,
    pub(super) first_token: Option<Instant>,
}

impl Row {
    pub(super) fn new(
        prompt: Vec<u32>,
        output_tokens_max: u32,
        sampling: Sampling,
        stops: Vec<String>,
        arrived: Instant,
    ) -> Self {
        Self {
            history: History::new(&sampling, &prompt),
            prompt,
            output_tokens_max,
            sampling,
            answer: Answer::new(stops),
            logprobs: vec![],
            generated: 0,
            newest: 0,
            has_text: false,
            arrived,
            began: None,
            first_token: None,
        }
    }

    pub(super) const fn sample(&self) -> Sample<'_> {
        Sample {
            sampling: &self.sampling,
            history: &self.history,
            allowed: None,
            step: self.generated,
        }
    }

    /// Counts a token of the answer, the end token included.
    pub(super) fn take(&mut self, token: u32) {
        self.generated += 1;
        self.newest = token;
        self.history.push(token);
    }

    /// What the reader may see of the answer with one more token.
    pub(super) fn say(
        &mut self,
        chosen: &Chosen,
        vocabulary: &impl Vocabulary,
    ) -> (Delta, Stopped) {
        if let Some(logprobs) = &chosen.logprobs {
            let named = |token, logprob| Logprob {
                bytes: vocabulary.token_bytes(token),
                logprob,
            };
            let top = logprobs.top.iter();
            self.logprobs.push(TokenLogprob {
                chosen: named(chosen.token, logprobs.chosen),
                top: top.map(|&(token, logprob)| named(token, logprob)).collect(),
            });
        }
        let piece = self.answer.push(chosen.token, vocabulary);
        self.seen(piece)
    }

    /// The answer has no more tokens: what is left of it.
    pub(super) fn say_rest(&mut self, vocabulary: &impl Vocabulary) -> (Delta, Stopped) {
        let piece = self.answer.finish(vocabulary);
        self.seen(piece)
    }

    /// Log-probabilities go out with their text. Those of a stop string never do: they would show it.
    fn seen(&mut self, piece: Piece) -> (Delta, Stopped) {
        if piece.stopped == Stopped::Yes {
            self.logprobs.clear();
        }
        let logprobs = if piece.text.is_empty() {
            vec![]
        } else {
            std::mem::take(&mut self.logprobs)
        };
        let delta = Delta {
            content: piece.text,
            logprobs,
        };
        (delta, piece.stopped)
    }
}
