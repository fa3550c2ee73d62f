//! Tokens to text, one at a time, without ever splitting a character.
//!
//! A token may hold part of a character's bytes; decoders show the missing rest as U+FFFD. So text
//! is let out up to a trailing run of U+FFFD and the run is held until the next tokens decide it.

/// Decodes token ids as one text. Bytes that are no whole character come out as U+FFFD.
pub trait Vocabulary {
    fn decode(&self, tokens: &[u32]) -> String;

    /// The bytes that one token stands for.
    fn token_bytes(&self, token: u32) -> Vec<u8> {
        self.decode(&[token]).into_bytes()
    }
}

/// Undecided tokens after which the run is let out as it is: a character has at most four bytes, so
/// what is undecided for so long is not text.
const UNDECIDED_TOKENS_MAX: usize = 64;

/// The text of a growing list of tokens.
#[derive(Clone, Debug, Default)]
pub struct Detokeniser {
    /// Tokens that still matter: those last let out, which some decoders need to see before the
    /// next (they join words by a space), then those not yet decided.
    window: Vec<u32>,
    /// How many tokens of the window are fully let out.
    settled: usize,
    /// Bytes of the window's text that are let out.
    emitted: usize,
}

impl Detokeniser {
    /// Takes the next token and appends to `out` the text that is now certain.
    pub fn push(&mut self, token: u32, vocabulary: &impl Vocabulary, out: &mut String) {
        self.window.push(token);
        let text = vocabulary.decode(&self.window);
        let certain = text.trim_end_matches(char::REPLACEMENT_CHARACTER).len();
        let undecided = self.window.len() - self.settled;
        if certain < text.len() && undecided < UNDECIDED_TOKENS_MAX {
            self.let_out(&text[..certain], out);
            return;
        }
        self.let_out(&text, out);
        self.window.drain(..self.settled);
        self.settled = self.window.len();
        self.emitted = vocabulary.decode(&self.window).len();
    }

    /// The tokens ended: what was held back is let out as it is.
    pub fn finish(&mut self, vocabulary: &impl Vocabulary, out: &mut String) {
        let text = vocabulary.decode(&self.window);
        self.let_out(&text, out);
        *self = Self::default();
    }

    fn let_out(&mut self, text: &str, out: &mut String) {
        // A decoder may change its mind about bytes that are no text; what is out stays out.
        if let Some(new) = text.get(self.emitted..) {
            out.push_str(new);
            self.emitted = text.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each token is a string of bytes, as in byte-level vocabularies.
    struct Bytes(Vec<Vec<u8>>);

    impl Vocabulary for Bytes {
        fn decode(&self, tokens: &[u32]) -> String {
            let bytes: Vec<u8> = tokens
                .iter()
                .flat_map(|&token| self.0[usize::try_from(token).unwrap()].iter().copied())
                .collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
    }

    /// Joins words by spaces, with none before the first: the text of a token depends on whether
    /// another stands before it.
    struct Words;

    impl Vocabulary for Words {
        fn decode(&self, tokens: &[u32]) -> String {
            let words: Vec<String> = tokens.iter().map(|token| format!("w{token}")).collect();
            words.join(" ")
        }
    }

    fn all_ids(count: usize) -> Vec<u32> {
        (0..u32::try_from(count).unwrap()).collect()
    }

    fn stream(vocabulary: &impl Vocabulary, tokens: &[u32]) -> Vec<String> {
        let mut detokeniser = Detokeniser::default();
        let mut pieces = Vec::new();
        for &token in tokens {
            let mut piece = String::new();
            detokeniser.push(token, vocabulary, &mut piece);
            pieces.push(piece);
        }
        let mut rest = String::new();
        detokeniser.finish(vocabulary, &mut rest);
        pieces.push(rest);
        pieces
    }

    #[test]
    fn a_character_of_four_tokens_comes_out_with_its_last() {
        let bytes = "🐕".bytes().map(|byte| vec![byte]).collect::<Vec<_>>();
        let pieces = stream(&Bytes(bytes), &[0, 1, 2, 3]);
        assert_eq!(pieces, ["", "", "", "🐕", ""]);
    }

    #[test]
    fn words_keep_the_space_between_them() {
        assert_eq!(stream(&Words, &[1, 2, 3]), ["w1", " w2", " w3", ""]);
    }

    #[test]
    fn an_answer_cut_inside_a_character_shows_that_it_was() {
        let pieces = stream(&Bytes(vec![b"a".to_vec(), vec![0xe2, 0x82]]), &[0, 1]);
        assert_eq!(pieces, ["a", "", "\u{fffd}"]);
    }

    #[test]
    fn bytes_that_are_never_text_are_not_held_for_ever() {
        let pieces = stream(&Bytes(vec![vec![0xff]]), &[0; 200]);
        assert!(pieces[..100].iter().any(|piece| !piece.is_empty()));
        assert_eq!(pieces.concat(), "\u{fffd}".repeat(200));
    }

    proptest! {
        #[test]
        fn any_split_of_a_text_into_tokens_gives_the_text(
            text in "[a-c ä€🐕\u{fffd}]{0,30}",
            cuts in prop::collection::vec(0_usize..60, 0..20),
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|&cut| cut < bytes.len()).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let tokens: Vec<Vec<u8>> =
                cuts.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()).collect();
            let ids = all_ids(tokens.len());
            prop_assert_eq!(stream(&Bytes(tokens), &ids).concat(), text);
        }

        #[test]
        fn any_bytes_give_what_decoding_them_at_once_gives(
            tokens in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 0..40),
        ) {
            let ids = all_ids(tokens.len());
            let vocabulary = Bytes(tokens);
            prop_assert_eq!(stream(&vocabulary, &ids).concat(), vocabulary.decode(&ids));
        }
    }
}
