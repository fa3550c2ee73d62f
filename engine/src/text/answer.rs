//! One row's answer: its tokens as text, told apart into what is thought, said and called, and ended
//! by a stop string in what is said.

use super::detokenise::{Detokeniser, Vocabulary};
use super::parser::{AnswerParser, Said, TextEnd};
use super::stop::{StopMatcher, Stopped};

/// See the module.
#[derive(Clone, Debug)]
pub struct Answer {
    detokeniser: Detokeniser,
    stops: StopMatcher,
    /// Stop strings do not count yet.
    passes_stops_over: bool,
    /// Nothing follows a stop string, not even what its last token held beyond it.
    stopped: Stopped,
    parser: AnswerParser,
    // Reused by every token.
    decoded: String,
    content: String,
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
            passes_stops_over: false,
            stopped: Stopped::No,
            parser,
            decoded: String::new(),
            content: String::new(),
        }
    }

    /// From here on no stop string counts.
    pub fn pass_stops_over(&mut self) {
        self.passes_stops_over = true;
    }

    /// From here on stop strings count, those that begin here.
    pub fn heed_stops_again(&mut self) {
        self.passes_stops_over = false;
    }

    pub fn push(&mut self, token: u32, vocabulary: &impl Vocabulary) -> Piece {
        self.decoded.clear();
        self.detokeniser.push(token, vocabulary, &mut self.decoded);
        let mark = self.parser.mark_behind(&self.decoded);
        self.let_out(mark.filter(|mark| vocabulary.decode(&[token]) == *mark))
    }

    /// The answer has no more tokens: what is left of it. What is left may hold a stop string,
    /// complete only now.
    pub fn finish(&mut self, end: TextEnd, vocabulary: &impl Vocabulary) -> Piece {
        self.decoded.clear();
        self.detokeniser.finish(vocabulary, &mut self.decoded);
        let mut said = Said::default();
        if self.stopped == Stopped::No {
            self.parser.push(&self.decoded, &mut said);
            self.parser.finish(end, &mut said);
            self.heed_stops(&mut said);
        }
        if self.stopped == Stopped::No {
            self.stops.finish(&mut said.content);
        }
        Piece {
            said,
            stopped: self.stopped,
        }
    }

    /// Whether the next token belongs to a thought.
    #[must_use]
    pub fn is_reasoning(&self) -> bool {
        self.parser.is_reasoning()
    }

    /// `mark` is what was decoded last, if that was one token.
    fn let_out(&mut self, mark: Option<&'static str>) -> Piece {
        let mut said = Said::default();
        if self.stopped == Stopped::No {
            let before = self.decoded.len() - mark.map_or(0, str::len);
            self.parser.push(&self.decoded[..before], &mut said);
            if let Some(mark) = mark {
                self.parser.push_mark(mark, &mut said);
            }
            self.heed_stops(&mut said);
            if self.parser.is_over() {
                self.stopped = Stopped::Yes;
            }
        }
        Piece {
            said,
            stopped: self.stopped,
        }
    }

    /// Stop strings count in what is said: a thought may hold them, and so may the arguments of a
    /// call.
    fn heed_stops(&mut self, said: &mut Said) {
        if !said.content.is_empty() && !self.passes_stops_over {
            self.content.clear();
            self.stopped = self.stops.push(&said.content, &mut self.content);
            std::mem::swap(&mut said.content, &mut self.content);
        }
        match self.stopped {
            Stopped::Yes => said.calls.clear(),
            // A call ends what stands before it.
            Stopped::No if !said.calls.is_empty() => self.stops.finish(&mut said.content),
            Stopped::No => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::chat::Parallel;
    use crate::text::{CallFormat, Called, Calling, Dialect, ParameterTypes};

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
        assert_eq!(answer.finish(TextEnd::Whole, &StopThenHalf), silent);
    }

    /// A byte per token, and behind them marks.
    struct WithMarks;

    const MARKS: [&str; 4] = ["<tool_call>", "</tool_call>", "<|call|>", "<|end|>"];

    impl Vocabulary for WithMarks {
        fn decode(&self, tokens: &[u32]) -> String {
            let bytes = tokens
                .iter()
                .flat_map(|&token| match token.checked_sub(256) {
                    Some(mark) => MARKS[mark as usize].as_bytes().to_vec(),
                    None => vec![token.to_le_bytes()[0]],
                });
            String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
        }
    }

    /// Says a text in which `@` and a digit is the token of a mark.
    fn say(text: &str, mut answer: Answer) -> Said {
        let mut said = Said::default();
        let mut add = |piece: Piece| {
            said.reasoning.push_str(&piece.said.reasoning);
            said.content.push_str(&piece.said.content);
            said.calls.extend(piece.said.calls);
        };
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            let token = match byte {
                b'@' => 256 + u32::from(bytes.next().unwrap() - b'0'),
                byte => u32::from(byte),
            };
            add(answer.push(token, &WithMarks));
        }
        add(answer.finish(TextEnd::Whole, &WithMarks));
        said
    }

    fn calling(calls: CallFormat) -> Answer {
        let reasoning = Dialect::of(|_| false, "</think>").reasoning;
        let calling = Calling::Yes {
            types: ParameterTypes::default(),
            parallel: Parallel::Allowed,
        };
        let dialect = Dialect { reasoning, calls };
        Answer::new(vec![], AnswerParser::new(dialect, calling, ""))
    }

    #[test]
    fn a_mark_that_is_a_token_ends_a_call_even_within_its_text_and_its_letters_do_not() {
        let json = "{\"name\":\"w\",\"arguments\":{\"t\":\"a </tool_call>";
        let tags = "<function=w><parameter=t>a </tool_call>";
        let harmony = "<|channel|>commentary to=functions.w<|message|>{\"t\":\"a </tool_call>";
        for (calls, text) in [
            (CallFormat::Tagged, format!("@0{json}@1b")),
            (CallFormat::Tagged, format!("@0{tags}@1b")),
            (
                CallFormat::Harmony,
                format!("{harmony}@2<|channel|>final<|message|>b"),
            ),
        ] {
            let said = say(&text, calling(calls));
            let called = Called::gathered(&said.calls);
            assert_eq!(called.len(), 1, "{text}");
            assert_eq!(called[0].arguments, "{\"t\":\"a </tool_call>\"}");
            assert_eq!(said.content, "b", "{text}");
        }
    }

    #[test]
    fn a_calls_opening_token_ends_a_thought_and_its_letters_do_not() {
        let call = "{\"name\":\"w\",\"arguments\":{}}@1";
        let said = say(
            &format!("<think>plan <tool_call>\n@0{call}b"),
            calling(CallFormat::Tagged),
        );
        assert_eq!(said.reasoning, "plan <tool_call>");
        let called = Called::gathered(&said.calls);
        assert_eq!((called.len(), called[0].name.as_str()), (1, "w"));
        assert_eq!(said.content, "b");
        let dialect = Dialect::of(|_| false, "</think>");
        let parser = AnswerParser::new(dialect, Calling::No, "");
        let said = say(
            &format!("<think>plan @0{call}"),
            Answer::new(vec![], parser),
        );
        assert!(said.calls.is_empty() && said.content.is_empty());
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
            seen.push_str(&answer.finish(TextEnd::Whole, &OneByte).said.content);
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
