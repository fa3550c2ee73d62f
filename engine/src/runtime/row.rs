//! One job from its acceptance to its end, as the engine's thread knows it.

use std::time::Instant;

use cereus_core::draw::{Purpose, Seed};

use super::event::{BegunCall, CallPiece, Delta, FinishReason, Logprob, TokenLogprob, Usage};
use crate::chat::Ends;
use crate::failure::{Failure, Reason};
use crate::grammar::{Constraint, Place};
use crate::kv::{BlockHash, Chain};
use crate::sampling::{Chosen, History, Sample, Sampling};
use crate::scheduler::{RowId, RowRequest};
use crate::text::{Answer, Called, Piece, Stopped, TextEnd, Vocabulary};

/// See the module.
pub(super) struct Row {
    id: RowId,
    /// The prompt and what was generated.
    pub(super) tokens: Vec<u32>,
    pub(super) prompt_tokens: u32,
    /// Those of the prompt that its first admission found.
    pub(super) cached_tokens: u32,
    /// Names the blocks of `tokens`; absent when nothing is shared.
    chain: Option<Chain>,
    /// Those names so far.
    pub(super) hashes: Vec<BlockHash>,
    pub(super) output_tokens_max: u32,
    pub(super) ends: Ends,
    /// Those that the request names beside the model's.
    pub(super) end_tokens: Vec<u32>,
    /// What may not come before the answer has its least length.
    held_back: HeldBack,
    /// Of an answer that must have a form.
    pub(super) constraint: Option<Box<dyn Constraint>>,
    sampling: Sampling,
    history: History,
    answer: Answer,
    /// Of tokens whose text is held back.
    logprobs: Vec<TokenLogprob>,
    calls: u32,
    pub(super) generated: u32,
    /// Those of `generated` that were thought.
    reasoning: u32,
    pub(super) has_text: bool,
    pub(super) arrived: Instant,
    /// When the first step with its prompt began.
    pub(super) began: Option<Instant>,
    pub(super) first_token: Option<Instant>,
}

/// Tokens that end an answer, and how many others must come first.
#[derive(Default)]
struct HeldBack {
    tokens: Vec<u32>,
    until: u32,
}

/// A prompt and, where it may be shared, the names of its blocks so far.
pub(super) struct Prompt {
    pub(super) tokens: Vec<u32>,
    pub(super) chain: Option<Chain>,
    pub(super) hashes: Vec<BlockHash>,
}

impl Row {
    /// A row that has only waited so far.
    pub(super) fn new(
        ask: &RowRequest,
        prompt: Prompt,
        sampling: Sampling,
        answer: Answer,
        arrived: Instant,
    ) -> Self {
        Self {
            id: ask.id,
            history: History::new(&sampling, &prompt.tokens),
            prompt_tokens: ask.prompt_tokens,
            cached_tokens: 0,
            tokens: prompt.tokens,
            chain: prompt.chain,
            hashes: prompt.hashes,
            output_tokens_max: ask.output_tokens_max,
            ends: Ends::Heeded,
            end_tokens: vec![],
            held_back: HeldBack::default(),
            constraint: None,
            sampling,
            answer,
            logprobs: vec![],
            calls: 0,
            generated: 0,
            reasoning: 0,
            has_text: false,
            arrived,
            began: None,
            first_token: None,
        }
    }

    pub(super) fn sample(&self) -> Sample<'_> {
        let place = self.place();
        Sample {
            sampling: &self.sampling,
            history: &self.history,
            allowed: self.constraint.as_ref().map(|it| it.allowed(place)),
            // Tokens that would end the answer too early are barred, except under a grammar: that
            // decides itself when it may end.
            barred: if self.generated < self.held_back.until && self.constraint.is_none() {
                &self.held_back.tokens
            } else {
                &[]
            },
            step: self.generated,
        }
    }

    /// The answer has at least so many tokens: until then none of `ends` may come, nor one that the
    /// request names, and stop strings do not count.
    pub(super) fn hold_ends_back(&mut self, until: u32, ends: Vec<u32>) {
        let mut tokens = ends;
        tokens.extend(&self.end_tokens);
        self.held_back = HeldBack { tokens, until };
        self.answer.pass_stops_over();
    }

    /// Whether this token ends the answer, the model's own end among others.
    pub(super) fn is_end(&self, token: u32, is_models: bool) -> bool {
        let is_heeded = self.ends == Ends::Heeded && is_models;
        is_heeded || self.end_tokens.contains(&token)
    }

    /// Why no token may come next.
    pub(super) fn why_stuck(&self) -> Failure {
        if self.constraint.as_ref().is_some_and(|it| it.is_lost()) {
            let text = "following the schema costs too much here; simplify its patterns and bounds";
            return Failure::client(text);
        }
        let text = "the model gave no number for any token that may come next";
        Failure::new(Reason::ProviderError, text)
    }

    fn place(&self) -> Place {
        if self.answer.is_reasoning() {
            Place::Thought
        } else {
            Place::Answer
        }
    }

    /// Counts a token of the answer, the end token included.
    pub(super) fn take(&mut self, token: u32) {
        let place = self.place();
        self.tokens.push(token);
        self.generated += 1;
        self.reasoning += u32::from(place == Place::Thought);
        if let Some(constraint) = &mut self.constraint {
            constraint.push(token, place);
        }
        self.history.push(token);
    }

    /// The name of the block that the newest token filled, if it did.
    pub(super) fn name_block(&mut self) -> Option<BlockHash> {
        let (chain, newest) = (self.chain.as_mut()?, self.tokens.last()?);
        let known = self.hashes.len();
        chain.extend(std::slice::from_ref(newest), &mut self.hashes);
        self.hashes.get(known).copied()
    }

    /// What the reader may see of the answer with one more token.
    pub(super) fn say(
        &mut self,
        chosen: &Chosen,
        vocabulary: &impl Vocabulary,
        seed: Seed,
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
        if self.held_back.until > 0 && self.generated >= self.held_back.until {
            self.answer.heed_stops_again();
        }
        let piece = self.answer.push(chosen.token, vocabulary);
        self.seen(piece, seed)
    }

    /// The answer has no more tokens: what is left of it.
    pub(super) fn say_rest(
        &mut self,
        end: TextEnd,
        vocabulary: &impl Vocabulary,
        seed: Seed,
    ) -> (Delta, Stopped) {
        let piece = self.answer.finish(end, vocabulary);
        self.seen(piece, seed)
    }

    pub(super) fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            completion_tokens: self.generated,
            reasoning_tokens: self.reasoning,
        }
    }

    /// Why the answer is whole, in the words of the API.
    pub(super) const fn finish_reason(&self, reason: FinishReason) -> FinishReason {
        match reason {
            FinishReason::Stop if self.calls > 0 => FinishReason::ToolCalls,
            FinishReason::Cancelled
            | FinishReason::Length
            | FinishReason::Stop
            | FinishReason::ToolCalls => reason,
        }
    }

    /// Log-probabilities go out with their text. Those of a stop string never do: they would show it.
    fn seen(&mut self, piece: Piece, seed: Seed) -> (Delta, Stopped) {
        if piece.stopped == Stopped::Yes {
            self.logprobs.clear();
        }
        let said = piece.said;
        let logprobs = if said.is_empty() {
            vec![]
        } else {
            std::mem::take(&mut self.logprobs)
        };
        let delta = Delta {
            calls: self.called(said.calls, seed),
            reasoning: said.reasoning,
            content: said.content,
            logprobs,
        };
        (delta, piece.stopped)
    }

    /// Numbers and names the calls, and joins what came of each in this step.
    fn called(&mut self, pieces: Vec<Called>, seed: Seed) -> Vec<CallPiece> {
        let mut calls: Vec<CallPiece> = vec![];
        for piece in pieces {
            match piece {
                Called::Begun { name } => {
                    let index = self.calls;
                    self.calls += 1;
                    let id = call_id(seed, self.id, index);
                    calls.push(CallPiece {
                        index,
                        begun: Some(BegunCall { id, name }),
                        arguments: String::new(),
                    });
                }
                Called::Arguments(text) => match calls.last_mut() {
                    Some(call) => call.arguments.push_str(&text),
                    None => calls.push(CallPiece {
                        // These arguments go on with a call that has begun already: the newest.
                        index: self.calls.saturating_sub(1),
                        begun: None,
                        arguments: text,
                    }),
                },
            }
        }
        calls
    }
}

/// Drawn from the engine's seed and not from the request's: the same request asked again makes
/// other calls.
fn call_id(seed: Seed, row: RowId, index: u32) -> String {
    let place = u128::MAX - 1 - u128::from(index);
    let word = seed.draw_wide(Purpose::Sampling, u128::from(row.0), place);
    format!("call_{word:032x}")
}
