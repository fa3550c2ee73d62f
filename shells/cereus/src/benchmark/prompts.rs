//! Prompts of a wanted number of tokens, each with a beginning of its own, so that no prefix of one
//! is found in a cache for another.

use std::fmt::Write as _;

/// Everyday words, most of them one token in most vocabularies.
const WORDS: [&str; 16] = [
    "the", "river", "ran", "past", "an", "old", "house", "where", "two", "cats", "slept", "by",
    "a", "warm", "red", "stove",
];

/// A text of so many words whose number no other text shares.
pub(super) fn text(number: u64, words: u32) -> String {
    let mut text = number.to_string();
    for ix in 1..words.max(1) {
        let ix = usize::try_from(ix).unwrap_or(usize::MAX);
        // Writing to a string cannot fail.
        let _ = write!(text, " {}", WORDS[ix % WORDS.len()]);
    }
    text
}

/// How many words to ask for next, when so many gave so many tokens.
pub(super) fn words_for(wanted_tokens: u32, words: u32, tokens: u32) -> u32 {
    let scaled = u64::from(wanted_tokens) * u64::from(words) / u64::from(tokens.max(1));
    u32::try_from(scaled).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_differ_from_their_first_word_on() {
        let (one, two) = (text(1, 40), text(2, 40));
        assert_eq!(one.split(' ').count(), 40);
        assert_ne!(one.split(' ').next(), two.split(' ').next());
    }

    #[test]
    fn words_are_scaled_to_tokens() {
        assert_eq!(words_for(64, 64, 128), 32);
        assert_eq!(words_for(64, 64, 0), 4_096);
        assert_eq!(words_for(0, 64, 64), 1);
    }
}
