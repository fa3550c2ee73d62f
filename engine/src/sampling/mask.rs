//! The tokens that a constraint allows next, one bit each.

/// A set of tokens in words of 32 bits, the lowest bit first. Tokens beyond its end are not in it.
#[derive(Clone, Copy, Debug)]
pub struct TokenMask<'a>(pub &'a [u32]);

const WORD_TOKENS: usize = 32;

impl TokenMask<'_> {
    /// Takes every other token out of the choice.
    pub(super) fn apply(self, logits: &mut [f32]) {
        let covered = logits.len().min(self.0.len() * WORD_TOKENS);
        logits[covered..].fill(f32::NEG_INFINITY);
        for (word, logits) in self.0.iter().zip(logits.chunks_mut(WORD_TOKENS)) {
            match *word {
                u32::MAX => {}
                0 => logits.fill(f32::NEG_INFINITY),
                word => forbid(word, logits),
            }
        }
    }
}

fn forbid(word: u32, logits: &mut [f32]) {
    for (bit, logit) in logits.iter_mut().enumerate() {
        if word & (1 << bit) == 0 {
            *logit = f32::NEG_INFINITY;
        }
    }
}
