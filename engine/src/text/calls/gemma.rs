//! Gemma's calls: `call:name{key:value,..}`, with bare keys and a quotation mark of their own. Turned
//! into JSON as they come: texts stream, keys and other values are let out as each is whole.

use super::super::scan;
use super::{Called, DEPTH_MAX};

/// Lets the arguments of one call out as JSON, and tells where they end.
#[derive(Clone, Debug)]
pub(super) struct BareStream {
    quote: &'static str,
    state: State,
    /// Brackets that are open.
    open: Vec<Bracket>,
    held: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bracket {
    Array,
    Object,
}

impl Bracket {
    const fn close(self) -> char {
        match self {
            Self::Array => ']',
            Self::Object => '}',
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Behind an item of a list: a comma, or its end.
    Behind,
    /// Behind a key.
    Colon,
    /// Behind an opening bracket: an item, or the end.
    First,
    /// An item of the innermost list.
    Item,
    /// This is no call. What was let out stays as far as it came: its reader sees that it is not whole.
    Lost,
    Over,
    /// Within quotation marks.
    Text,
    Value,
}

impl BareStream {
    /// Begins with the arguments' first bracket.
    pub(super) const fn new(quote: &'static str) -> Self {
        Self {
            quote,
            state: State::Value,
            open: Vec::new(),
            held: String::new(),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Bytes that nobody has seen.
    pub(super) const fn held(&self) -> usize {
        self.held.len()
    }

    /// Takes more text; returns what follows the call.
    pub(super) fn push(&mut self, text: &str, out: &mut Vec<Called>) -> String {
        self.held.push_str(text);
        let held = std::mem::take(&mut self.held);
        let mut rest = held.as_str();
        let mut json = String::new();
        while let Some(after) = self.advance(rest, &mut json) {
            rest = after;
        }
        if !json.is_empty() {
            out.push(Called::Arguments(json));
        }
        match self.state {
            State::Over => rest.to_owned(),
            State::Lost => String::new(),
            State::Behind
            | State::Colon
            | State::First
            | State::Item
            | State::Text
            | State::Value => {
                self.held = rest.to_owned();
                String::new()
            }
        }
    }

    /// One part of the call; what is behind it. `None`: more must come first, or nothing more is read.
    fn advance<'a>(&mut self, text: &'a str, json: &mut String) -> Option<&'a str> {
        let rest = match self.state {
            State::Lost | State::Over => return None,
            State::Text => return self.text(text, json),
            State::Behind | State::Colon | State::First | State::Item | State::Value => {
                text.trim_start()
            }
        };
        let next = rest.chars().next()?;
        match self.state {
            State::Behind if next == ',' => {
                json.push(',');
                self.state = State::Item;
                Some(&rest[1..])
            }
            State::Behind | State::First if self.closes(next) => {
                json.push(next);
                self.open.pop();
                self.end_value();
                Some(&rest[1..])
            }
            State::Behind => self.lose(),
            State::Colon if next == ':' => {
                json.push(':');
                self.state = State::Value;
                Some(&rest[1..])
            }
            State::Colon => self.lose(),
            State::First | State::Item => match self.open.last() {
                Some(Bracket::Object) => self.key(rest, json),
                Some(Bracket::Array) | None => {
                    self.state = State::Value;
                    Some(rest)
                }
            },
            State::Value => self.value(rest, next, json),
            State::Lost | State::Over | State::Text => unreachable!("returned above"),
        }
    }

    fn closes(&self, next: char) -> bool {
        self.open
            .last()
            .is_some_and(|bracket| bracket.close() == next)
    }

    fn lose<'a>(&mut self) -> Option<&'a str> {
        self.state = State::Lost;
        None
    }

    fn end_value(&mut self) {
        self.state = if self.open.is_empty() {
            State::Over
        } else {
            State::Behind
        };
    }

    /// Whether the text begins with a quotation mark; `None` while that is open.
    fn is_quoted(&self, text: &str) -> Option<bool> {
        if text.starts_with(self.quote) {
            return Some(true);
        }
        (!self.quote.starts_with(text)).then_some(false)
    }

    /// A key, to the colon that stays.
    fn key<'a>(&mut self, text: &'a str, json: &mut String) -> Option<&'a str> {
        let (key, after) = if self.is_quoted(text)? {
            text[self.quote.len()..].split_once(self.quote)?
        } else {
            text.split_at(text.find(':')?)
        };
        push_string(json, key.trim().trim_matches('"'));
        self.state = State::Colon;
        Some(after)
    }

    fn value<'a>(&mut self, text: &'a str, next: char, json: &mut String) -> Option<&'a str> {
        let bracket = match next {
            '{' => Some(Bracket::Object),
            '[' => Some(Bracket::Array),
            _ => None,
        };
        if let Some(bracket) = bracket {
            // The arguments themselves are no level.
            if self.open.len() > DEPTH_MAX {
                return self.lose();
            }
            json.push(next);
            self.open.push(bracket);
            self.state = State::First;
            return Some(&text[1..]);
        }
        if self.is_quoted(text)? {
            json.push('"');
            self.state = State::Text;
            return Some(&text[self.quote.len()..]);
        }
        // A number, a word of JSON, or text that lacks its quotation marks.
        let (bare, after) = text.split_at(text.find([',', '}', ']'])?);
        let bare = bare.trim();
        match serde_json::from_str::<serde_json::Value>(bare) {
            Ok(_) => json.push_str(bare),
            Err(_) => push_string(json, bare),
        }
        self.end_value();
        Some(after)
    }

    /// As much of a quoted text as can be let out.
    fn text<'a>(&mut self, text: &'a str, json: &mut String) -> Option<&'a str> {
        if let Some((last, after)) = text.split_once(self.quote) {
            push_escaped(json, last);
            json.push('"');
            self.end_value();
            return Some(after);
        }
        let end = scan::hold_from(text, std::iter::once(self.quote));
        let (sure, rest) = text.split_at(end);
        push_escaped(json, sure);
        (!sure.is_empty()).then_some(rest)
    }
}

fn push_string(json: &mut String, text: &str) {
    json.push('"');
    push_escaped(json, text);
    json.push('"');
}

/// Each character by itself, so that it does not matter how a text is cut.
fn push_escaped(json: &mut String, text: &str) {
    let quoted = serde_json::Value::from(text).to_string();
    json.push_str(&quoted[1..quoted.len() - 1]);
}
