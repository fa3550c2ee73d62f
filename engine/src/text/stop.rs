//! Stop strings, which must not leak: text is held back as long as it may be the beginning of one.

use super::scan;

/// Finds the first stop string in a stream of text.
#[derive(Clone, Debug)]
pub struct StopMatcher {
    stops: Vec<String>,
    /// The longest end of the text so far that begins some stop string.
    held: String,
}

/// Whether a stop string was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    No,
    Yes,
}

impl StopMatcher {
    /// # Panics
    /// A stop string is empty: it would stop everything, so requests with one are refused.
    #[must_use]
    pub fn new(stops: Vec<String>) -> Self {
        assert!(
            stops.iter().all(|stop| !stop.is_empty()),
            "stop strings are not empty"
        );
        Self {
            stops,
            held: String::new(),
        }
    }

    /// Takes the next text and appends to `out` what can no longer be part of a stop string. After
    /// `Stopped::Yes` nothing follows.
    pub fn push(&mut self, text: &str, out: &mut String) -> Stopped {
        if self.stops.is_empty() {
            out.push_str(text);
            return Stopped::No;
        }
        self.held.push_str(text);
        if let Some(start) = self.first_match() {
            out.push_str(&self.held[..start]);
            self.held.clear();
            return Stopped::Yes;
        }
        let keep_from = self.hold_from();
        out.push_str(&self.held[..keep_from]);
        self.held.drain(..keep_from);
        Stopped::No
    }

    /// The text ended without a stop string: what was held back belongs to it after all.
    pub fn finish(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
    }

    /// Where the stop string begins that is complete first; of those complete together, the
    /// longest. This is what a character-by-character reader would find, so the way in which the
    /// text is cut into pieces changes nothing.
    fn first_match(&self) -> Option<usize> {
        let matches = self.stops.iter().filter_map(|stop| {
            let start = self.held.find(stop.as_str())?;
            Some((start + stop.len(), start))
        });
        matches.min().map(|(_, start)| start)
    }

    /// Where the longest end of `held` starts that begins a stop string.
    fn hold_from(&self) -> usize {
        scan::hold_from(&self.held, self.stops.iter().map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matcher(stops: &[&str]) -> StopMatcher {
        StopMatcher::new(stops.iter().map(|&stop| stop.to_owned()).collect())
    }

    /// Feeds pieces; returns the text let out and whether it stopped.
    fn feed<'a>(stops: &[String], pieces: impl Iterator<Item = &'a str>) -> (String, Stopped) {
        let mut matcher = StopMatcher::new(stops.to_vec());
        let mut out = String::new();
        for piece in pieces {
            if matcher.push(piece, &mut out) == Stopped::Yes {
                return (out, Stopped::Yes);
            }
        }
        matcher.finish(&mut out);
        (out, Stopped::No)
    }

    #[test]
    fn the_beginning_of_a_stop_string_is_held_until_it_cannot_be_one() {
        let mut matcher = matcher(&["\nUser:"]);
        let mut out = String::new();
        assert_eq!(matcher.push("Hi\nUs", &mut out), Stopped::No);
        assert_eq!(out, "Hi");
        assert_eq!(matcher.push("e it", &mut out), Stopped::No);
        assert_eq!(out, "Hi\nUse it");
    }

    #[test]
    fn nothing_from_the_stop_string_on_is_let_out() {
        let mut matcher = matcher(&["STOP"]);
        let mut out = String::new();
        assert_eq!(matcher.push("one STO", &mut out), Stopped::No);
        assert_eq!(matcher.push("P two", &mut out), Stopped::Yes);
        assert_eq!(out, "one ");
    }

    #[test]
    fn of_two_stop_strings_the_first_complete_wins() {
        let stops = ["abcd".to_owned(), "bc".to_owned()];
        assert_eq!(
            feed(&stops, ["xabcd"].into_iter()),
            ("xa".to_owned(), Stopped::Yes)
        );
    }

    #[test]
    fn a_text_that_ends_while_held_is_let_out_whole() {
        let stops = ["END".to_owned()];
        assert_eq!(
            feed(&stops, ["the EN"].into_iter()),
            ("the EN".to_owned(), Stopped::No)
        );
    }

    proptest! {
        /// ENG-13.
        #[test]
        fn cutting_the_text_differently_lets_out_the_same(
            text in "[abä€]{0,40}",
            stops in prop::collection::vec("[abä€]{1,4}", 0..4),
            cuts in prop::collection::vec(0_usize..40, 0..8),
        ) {
            let whole = feed(&stops, std::iter::once(text.as_str()));
            let mut cuts: Vec<usize> =
                cuts.into_iter().filter(|&cut| text.is_char_boundary(cut)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]);
            prop_assert_eq!(&feed(&stops, pieces), &whole);
            let (out, stopped) = whole;
            prop_assert!(text.starts_with(&out));
            prop_assert!(stops.iter().all(|stop| !out.contains(stop.as_str())));
            prop_assert_eq!(stopped == Stopped::No, out == text);
        }
    }
}
