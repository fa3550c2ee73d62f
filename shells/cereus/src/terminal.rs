//! Text of others on this terminal. A machine that answers is a stranger's: what it says may hold
//! sequences that would move the cursor, retitle the window or fill the clipboard.

/// Removes what a terminal would obey: escape sequences whole, also when they come in pieces, and
/// control characters other than line feed and tab.
#[derive(Debug, Default)]
pub(crate) struct Cleaner {
    state: State,
}

/// Where in a sequence the last piece ended (ECMA-48).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Of `CSI`: up to its final character.
    Control,
    /// Behind an `ESC`.
    Escape,
    /// Of `ESC` and intermediate characters: up to its final character.
    EscapeLong,
    #[default]
    Plain,
    /// Of `OSC`, `DCS`, `SOS`, `PM` and `APC`: up to `ST` or `BEL`.
    String,
    /// Behind an `ESC` in a string, of which `ST` begins with.
    StringEscape,
}

impl Cleaner {
    /// What of `text` may be shown.
    pub(crate) fn clean(&mut self, text: &str) -> String {
        text.chars().filter(|it| self.is_shown(*it)).collect()
    }

    fn is_shown(&mut self, it: char) -> bool {
        // A line of text ends whatever sequence was left open: one that nobody closes must not
        // swallow the rest of the answer.
        if it == '\n' {
            self.state = State::Plain;
            return true;
        }
        let (next, is_shown) = match (self.state, it) {
            (State::StringEscape, '\\') => (State::Plain, false),
            (State::StringEscape, _) => (self.after_escape(it), false),
            (State::String, '\u{1b}') => (State::StringEscape, false),
            (State::String, '\u{7}' | '\u{9c}' | '\u{18}' | '\u{1a}') => (State::Plain, false),
            (State::String, _) => (State::String, false),
            (State::Escape, _) => (self.after_escape(it), false),
            (State::EscapeLong, ' '..='/') => (State::EscapeLong, false),
            (State::Control, ' '..='?') => (State::Control, false),
            (State::Control, '@'..='~') | (State::EscapeLong, '0'..='~') => (State::Plain, false),
            // Anything else breaks a sequence off and stands for itself.
            (State::Plain | State::Control | State::EscapeLong, _) => Self::plain(it),
        };
        self.state = next;
        is_shown
    }

    fn after_escape(&self, it: char) -> State {
        match it {
            '[' => State::Control,
            ']' | 'P' | 'X' | '^' | '_' => State::String,
            ' '..='/' => State::EscapeLong,
            '\u{1b}' => self.state,
            _ => State::Plain,
        }
    }

    fn plain(it: char) -> (State, bool) {
        match it {
            '\u{1b}' => (State::Escape, false),
            '\u{9b}' => (State::Control, false),
            '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}' => (State::String, false),
            '\t' => (State::Plain, true),
            _ => (State::Plain, !it.is_control()),
        }
    }
}

/// A whole text, such as a message of a server.
pub(crate) fn clean(text: &str) -> String {
    Cleaner::default().clean(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts rich in what a terminal looks at; the next number of a simple generator picks each.
    fn texts() -> impl Iterator<Item = String> {
        const PARTS: [&str; 24] = [
            "\u{1b}",
            "[",
            "]",
            "52;c;aGk=",
            "\u{7}",
            "\u{1b}\\",
            "\u{9b}",
            "\u{9d}",
            "\u{9c}",
            "31m",
            "P",
            "_",
            "\n",
            "\t",
            "\r",
            "\u{8}",
            "\u{0}",
            "word ",
            "ä",
            "日本",
            "(B",
            "\u{18}",
            "\u{7f}",
            "😀",
        ];
        let mut state = 7_u64;
        (0..20_000).map(move |_| {
            let mut text = String::new();
            for _ in 0..12 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let ix = usize::try_from(state >> 40).unwrap() % PARTS.len();
                text.push_str(PARTS[ix]);
            }
            text
        })
    }

    #[test]
    fn sequences_go_whole_and_text_stays() {
        let table = [
            (
                "plain text, ä 日本 😀\tand\n",
                "plain text, ä 日本 😀\tand\n",
            ),
            ("a\u{1b}[31mred\u{1b}[0m", "ared"),
            ("a\u{1b}]52;c;cm0gLXJmIH4=\u{7}b", "ab"),
            ("a\u{1b}]0;title\u{1b}\\b", "ab"),
            ("a\u{9d}52;c;x\u{9c}b", "ab"),
            ("a\u{9b}2Jb", "ab"),
            ("a\u{1b}Pq#0\u{1b}\\b", "ab"),
            ("a\u{1b}(Bb", "ab"),
            ("a\u{1b}cb", "ab"),
            ("a\rb\u{8}c\u{7}d\u{7f}", "abcd"),
            ("a\u{1b}]0;never closed\nb", "a\nb"),
            ("a\u{1b}[\u{1b}[31mb", "ab"),
            ("a\u{1b}\u{1b}[31mb", "ab"),
        ];
        for (text, expected) in table {
            assert_eq!(clean(text), expected, "{text:?}");
        }
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_left_whatever_came() {
        for text in texts() {
            let shown = clean(&text);
            let is_bad = |it: char| it.is_control() && it != '\n' && it != '\t';
            assert!(!shown.contains(is_bad), "{text:?} became {shown:?}");
            let lines = |text: &str| text.matches('\n').count();
            assert_eq!(lines(&shown), lines(&text), "{text:?}");
        }
    }

    #[test]
    fn a_text_in_pieces_is_cleaned_as_the_whole() {
        for text in texts().step_by(7) {
            let mut cleaner = Cleaner::default();
            let shown: String = text
                .chars()
                .map(|it| cleaner.clean(it.encode_utf8(&mut [0; 4])))
                .collect();
            assert_eq!(shown, clean(&text), "{text:?}");
        }
    }
}
