//! Prompts of a wanted number of tokens, each with a beginning of its own, so that no prefix of one
//! is found in a cache for another.

use std::fmt::Write as _;

/// Turns a text into the tokens of the model that is measured.
pub(super) type Cut = Box<dyn Fn(&str) -> Result<Vec<u32>, String>>;

/// Everyday words, most of them one token in most vocabularies.
const WORDS: [&str; 16] = [
    "the", "river", "ran", "past", "an", "old", "house", "where", "two", "cats", "slept", "by",
    "a", "warm", "red", "stove",
];
/// The number, and the words once.
const OPENING: usize = 1 + WORDS.len();

/// A prompt of so many tokens: an opening whose number no other has, and the words again and again.
///
/// # Errors
/// The text cannot be cut, or gives no tokens.
pub(super) fn prompt(cut: &Cut, number: u64, tokens: u32) -> Result<Vec<u32>, String> {
    let opening = cut(&text(number, OPENING))?;
    let longer = cut(&text(number, OPENING + WORDS.len()))?;
    let round = longer.get(opening.len()..).unwrap_or_default();
    if round.is_empty() {
        return Err("the model's tokenizer makes no tokens of everyday words".to_owned());
    }
    let count = usize::try_from(tokens).unwrap_or(usize::MAX);
    let all = opening.iter().chain(round.iter().cycle());
    Ok(all.copied().take(count).collect())
}

/// A text of so many words whose number no other text shares.
fn text(number: u64, words: usize) -> String {
    let mut text = number.to_string();
    for ix in 1..words {
        // Writing to a string cannot fail.
        let _ = write!(text, " {}", WORDS[ix % WORDS.len()]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token a byte, and one before all.
    fn bytes() -> Cut {
        Box::new(|text| {
            Ok([256]
                .into_iter()
                .chain(text.bytes().map(u32::from))
                .collect())
        })
    }

    fn read(tokens: &[u32]) -> String {
        let bytes = tokens.iter().filter_map(|&it| u8::try_from(it).ok());
        String::from_utf8(bytes.collect()).unwrap()
    }

    #[test]
    fn a_prompt_has_the_tokens_asked_for_whatever_a_word_takes() {
        for tokens in [1, 2, 63, 64, 65, 1_000, 4_097] {
            let prompt = prompt(&bytes(), 12_345, tokens).unwrap();
            assert_eq!(prompt.len(), tokens as usize);
        }
        let words: Cut = Box::new(|text| Ok(text.split(' ').map(|_| 1).collect()));
        assert_eq!(prompt(&words, 1, 100).unwrap(), [1; 100]);
    }

    #[test]
    fn a_prompt_is_the_text_cut_off() {
        let whole = text(7, 200);
        let tokens = u32::try_from(whole.len()).unwrap();
        assert_eq!(read(&prompt(&bytes(), 7, tokens + 1).unwrap()), whole);
        assert!(whole.starts_with("7 river ran"));
    }

    #[test]
    fn prompts_differ_from_their_first_word_on() {
        let first = |number| prompt(&bytes(), number, 3).unwrap()[1];
        assert_ne!(first(1), first(2));
    }

    #[test]
    fn a_tokenizer_that_makes_nothing_of_words_is_told() {
        let nothing: Cut = Box::new(|_| Ok(vec![]));
        assert!(prompt(&nothing, 1, 5).unwrap_err().contains("no tokens"));
    }
}
