//! What a row has said so far, as far as its penalties ask.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;

use super::Sampling;

/// See the module. Empty and free for a row without penalties.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// How often the part of prompt and answer that repetition is looked for in holds each token.
    seen: BTreeMap<u32, u32>,
    /// The tokens of that part in order, where it is a window: who leaves it next.
    recent: VecDeque<u32>,
    /// How often the answer holds each of its tokens.
    counts: BTreeMap<u32, u32>,
    repeats_matter: bool,
    window: Option<NonZeroU32>,
    counts_matter: bool,
}

impl History {
    #[must_use]
    pub fn new(sampling: &Sampling, prompt: &[u32]) -> Self {
        let mut history = Self {
            repeats_matter: sampling.repeats_matter(),
            window: sampling.repetition_window,
            counts_matter: sampling.counts_matter(),
            ..Self::default()
        };
        let window = history.window_tokens().unwrap_or(prompt.len());
        for &token in &prompt[prompt.len().saturating_sub(window)..] {
            history.see(token);
        }
        history
    }

    /// The answer grew by this token.
    pub fn push(&mut self, token: u32) {
        self.see(token);
        if self.counts_matter {
            *self.counts.entry(token).or_default() += 1;
        }
    }

    fn see(&mut self, token: u32) {
        if !self.repeats_matter {
            return;
        }
        *self.seen.entry(token).or_default() += 1;
        let Some(window) = self.window_tokens() else {
            return;
        };
        self.recent.push_back(token);
        if self.recent.len() > window {
            let oldest = self.recent.pop_front().expect("longer than a window");
            let count = self.seen.get_mut(&oldest).expect("it was counted");
            *count -= 1;
            if *count == 0 {
                self.seen.remove(&oldest);
            }
        }
    }

    fn window_tokens(&self) -> Option<usize> {
        let window = self.window?;
        Some(usize::try_from(window.get()).unwrap_or(usize::MAX))
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
    let penalty = sampling.repetition_penalty;
    for &token in history.seen.keys() {
        at(token, &|logit| {
            if logit > 0.0 {
                logit / penalty
            } else {
                logit * penalty
            }
        });
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
