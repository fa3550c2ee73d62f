//! One row's answer: its tokens as text, up to a stop string, told apart into what is thought, said
//! and called.

use super::detokenise::{Detokeniser, Vocabulary};
use super::parser::{AnswerParser, Said};
use super::stop::{StopMatcher, Stopped};

/// See the module.
#[derive(Clone, Debug)]
pub struct Answer {
    detokeniser: Detokeniser,
    stops: StopMatcher,
    /// Nothing follows a stop string, not even what its last token held beyond it.
    stopped: Stopped,
    parser: AnswerParser,
    // Reused by every token.
    decoded: String,
    text: String,
}

/// What one more token lets out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// May be empty: then the token is held back.
    pub said: Said,
    pub stopped: Stopped,
}

impl Answer {
    #[must_use]
    pub fn new(stops: Vec<String>, parser: AnswerParser) -> Self {
        Self {
            detokeniser: Detokeniser::default(),
            stops: StopMatcher::new(stops),
            stopped: Stopped::No,
            parser,
            decoded: String::new(),
            text: String::new(),
        }
    }

    pub fn push(&mut self, token: u32, vocabulary: &impl Vocabulary) -> Piece {
        self.decoded.clear();
        self.detokeniser.push(token, vocabulary, &mut self.decoded);
        self.let_out()
    }

    /// The answer has no more tokens: what is left of it. What is left may hold a stop string,
    /// complete only now.
    pub fn finish(&mut self, vocabulary: &impl Vocabulary) -> Piece {
        self.decoded.clear();
        self.detokeniser.finish(vocabulary, &mut self.decoded);
        let mut piece = self.let_out();
        if piece.stopped == Stopped::No {
            self.text.clear();
            self.stops.finish(&mut self.text);
            self.parser.push(&self.text, &mut piece.said);
        }
        self.parser.finish(&mut piece.said);
        piece
    }

    /// Whether the next token belongs to a thought.
    #[must_use]
    pub fn is_reasoning(&self) -> bool {
        self.parser.is_reasoning()
    }

    fn let_out(&mut self) -> Piece {
        let mut said = Said::default();
        if self.stopped == Stopped::No {
            self.text.clear();
            self.stopped = self.stops.push(&self.decoded, &mut self.text);
            self.parser.push(&self.text, &mut said);
        }
        Piece {
            said,
            stopped: self.stopped,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One byte per token.
    struct OneByte;

    impl Vocabulary for OneByte {
        fn decode(&self, tokens: &[u32]) -> String {
            let bytes: Vec<u8> = tokens.iter().map(|&token| token.to_le_bytes()[0]).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
    }

    #[test]
    fn what_a_token_holds_beyond_the_stop_string_is_never_let_out() {
        struct StopThenHalf;
        impl Vocabulary for StopThenHalf {
            fn decode(&self, tokens: &[u32]) -> String {
                "STOP\u{fffd}".repeat(tokens.len())
            }
        }
        let mut answer = Answer::new(vec!["STOP".to_owned()], AnswerParser::plain());
        let silent = Piece {
            said: Said::default(),
            stopped: Stopped::Yes,
        };
        assert_eq!(answer.push(0, &StopThenHalf), silent);
        assert_eq!(answer.finish(&StopThenHalf), silent);
    }

    proptest! {
        /// ENG-13.
        #[test]
        fn no_stop_string_and_no_half_character_is_ever_seen(
            text in "[ab ä€]{0,40}",
            stops in prop::collection::vec("[abä€]{1,3}", 0..3),
        ) {
            let mut answer = Answer::new(stops.clone(), AnswerParser::plain());
            let mut seen = String::new();
            for byte in text.bytes() {
                let piece = answer.push(u32::from(byte), &OneByte);
                seen.push_str(&piece.said.content);
                prop_assert!(!seen.contains(char::REPLACEMENT_CHARACTER));
                // A caller that goes on after the stop string hears nothing more.
            }
            seen.push_str(&answer.finish(&OneByte).said.content);
            // Character by character: the text ends before the stop string complete first.
            let ends = text.char_indices().map(|(at, char)| at + char.len_utf8());
            let expected = ends
                .filter_map(|end| {
                    let starts = stops.iter().filter(|stop| text[..end].ends_with(stop.as_str()));
                    starts.map(|stop| end - stop.len()).min()
                })
                .next();
            prop_assert_eq!(seen.as_str(), &text[..expected.unwrap_or(text.len())]);
        }
    }
}
