//! What a row has said so far, as far as its penalties ask.

use std::collections::{BTreeMap, VecDeque};

use super::Sampling;

/// Tokens of prompt and answer together that the repetition penalty looks back on.
pub const REPETITION_WINDOW_TOKENS: usize = 64;

/// See the module. Empty and free for a row without penalties.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The last tokens of prompt and answer.
    recent: VecDeque<u32>,
    /// How often the answer holds each of its tokens.
    counts: BTreeMap<u32, u32>,
    repeats_matter: bool,
    counts_matter: bool,
}

impl History {
    #[must_use]
    pub fn new(sampling: &Sampling, prompt: &[u32]) -> Self {
        let repeats_matter = sampling.repeats_matter();
        let window = if repeats_matter {
            &prompt[prompt.len().saturating_sub(REPETITION_WINDOW_TOKENS)..]
        } else {
            &[]
        };
        Self {
            recent: window.iter().copied().collect(),
            counts: BTreeMap::new(),
            repeats_matter,
            counts_matter: sampling.counts_matter(),
        }
    }

    /// The answer grew by this token.
    pub fn push(&mut self, token: u32) {
        if self.repeats_matter {
            if self.recent.len() == REPETITION_WINDOW_TOKENS {
                self.recent.pop_front();
            }
            self.recent.push_back(token);
        }
        if self.counts_matter {
            *self.counts.entry(token).or_default() += 1;
        }
    }
}

/// Bias, repetition, frequency, presence: in this order, each once for a token.
pub(super) fn penalise(sampling: &Sampling, history: &History, logits: &mut [f32]) {
    let mut at = |token: u32, change: &dyn Fn(f32) -> f32| {
        if let Some(logit) = usize::try_from(token)
            .ok()
            .and_then(|ix| logits.get_mut(ix))
        {
            *logit = change(*logit);
        }
    };
    for &(token, bias) in &sampling.logit_bias {
        at(token, &|logit| logit + bias);
    }
    if sampling.repeats_matter() {
        let penalty = sampling.repetition_penalty;
        let mut window: Vec<u32> = history.recent.iter().copied().collect();
        window.sort_unstable();
        window.dedup();
        for token in window {
            at(token, &|logit| {
                if logit > 0.0 {
                    logit / penalty
                } else {
                    logit * penalty
                }
            });
        }
    }
    for (&token, &count) in &history.counts {
        #[expect(
            clippy::cast_precision_loss,
            reason = "an answer is far below 2^24 tokens"
        )]
        let count = count as f32;
        at(token, &|logit| {
            logit - sampling.frequency_penalty * count - sampling.presence_penalty
        });
    }
}
