//! The arguments of one call as they come, in JSON or as Gemma writes them, to JSON that parses. Texts
//! stream; keys and other values are let out as each is whole. What JSON writes right stays to the
//! letter; keys and texts that lack quotation marks, or have those of another language, get JSON's.

use serde_json::Value;

use super::super::scan;
use super::kinds;
use super::{Called, DEPTH_MAX};

/// Lets the arguments of one call out, and tells where they end.
#[derive(Clone, Debug)]
pub(in crate::text) struct ObjectStream {
    /// A quotation mark that stands around texts beside those of other languages.
    own_quote: Option<&'static str>,
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
enum Quote {
    /// With backslashes before what is no text.
    Escaping(char),
    /// The text stands as it is.
    Own(&'static str),
}

impl Quote {
    const fn len(self) -> usize {
        match self {
            Self::Escaping(mark) => mark.len_utf8(),
            Self::Own(mark) => mark.len(),
        }
    }

    /// Writes what is certain of a text as the inside of a JSON string, and gives what follows; in
    /// `Err` what must wait for more.
    fn read<'a>(self, text: &'a str, json: &mut String) -> Result<&'a str, &'a str> {
        match self {
            Self::Escaping(mark) => read_escaping(mark, text, json),
            Self::Own(mark) => {
                if let Some((last, after)) = text.split_once(mark) {
                    push_escaped(json, last);
                    return Ok(after);
                }
                let (sure, rest) = text.split_at(scan::hold_from(text, std::iter::once(mark)));
                push_escaped(json, sure);
                Err(rest)
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Behind an item of a list: the next, or the end.
    Behind,
    /// Behind a key.
    Colon,
    /// Behind an opening bracket: an item, or the end.
    First,
    /// What came cannot be read; nothing more is.
    Lost,
    Over,
    /// Within quotation marks.
    Text(Quote),
    Value,
}

impl ObjectStream {
    /// Begins with the arguments' first bracket.
    pub(in crate::text) const fn new(own_quote: Option<&'static str>) -> Self {
        Self {
            own_quote,
            state: State::Value,
            open: Vec::new(),
            held: String::new(),
        }
    }

    pub(in crate::text) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Whether what has come ends within a text, or within the quotation marks of a key.
    pub(in crate::text) fn is_within_text(&self) -> bool {
        match self.state {
            State::Text(_) => true,
            State::Behind | State::First => {
                let key = self.held.trim_start();
                let key = key.strip_prefix(',').unwrap_or(key).trim_start();
                matches!(self.quote(key), Some(Some(_)))
            }
            State::Colon | State::Lost | State::Over | State::Value => false,
        }
    }

    /// Bytes that nobody has seen.
    pub(in crate::text) const fn held(&self) -> usize {
        self.held.len()
    }

    /// Takes more text; returns what follows the call.
    pub(in crate::text) fn push(&mut self, text: &str, out: &mut Vec<Called>) -> String {
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
            State::Over => return rest.to_owned(),
            State::Lost => {}
            State::Behind | State::Colon | State::First | State::Text(_) | State::Value => {
                self.held = rest.to_owned();
            }
        }
        String::new()
    }

    /// Nothing more comes: ends what is open, so that what was let out is an object.
    pub(in crate::text) fn close(&mut self, out: &mut Vec<Called>) {
        let mut json = String::new();
        let held = std::mem::take(&mut self.held);
        match self.state {
            State::Behind | State::First | State::Lost | State::Over => {}
            State::Colon => json.push_str(":null"),
            State::Text(_) => {
                push_escaped(&mut json, &held);
                json.push('"');
            }
            State::Value if held.trim().is_empty() => json.push_str("null"),
            State::Value => push_bare(&mut json, held.trim()),
        }
        json.extend(self.open.drain(..).rev().map(Bracket::close));
        self.state = State::Over;
        if !json.is_empty() {
            out.push(Called::Arguments(json));
        }
    }

    /// One part of the call; what is behind it. `None`: more must come first, or nothing more is read.
    fn advance<'a>(&mut self, text: &'a str, json: &mut String) -> Option<&'a str> {
        if let State::Text(quote) = self.state {
            return match quote.read(text, json) {
                Ok(after) => {
                    json.push('"');
                    self.end_value();
                    Some(after)
                }
                Err(rest) => (rest.len() < text.len()).then_some(rest),
            };
        }
        let rest = text.trim_start();
        let next = rest.chars().next()?;
        let blanks = &text[..text.len() - rest.len()];
        match self.state {
            State::Behind | State::First if self.closes(next) => {
                json.push_str(blanks);
                json.push(next);
                self.open.pop();
                self.end_value();
                Some(&rest[1..])
            }
            State::Behind if next == ',' => {
                let item = rest[1..].trim_start();
                if self.closes(item.chars().next()?) {
                    return Some(item);
                }
                self.item(&text[..text.len() - item.len()], item, json)
            }
            State::First => self.item(blanks, rest, json),
            State::Colon if next == ':' || next == '=' => {
                json.push_str(blanks);
                json.push(':');
                self.state = State::Value;
                Some(&rest[1..])
            }
            State::Behind => self.lose(),
            State::Colon => {
                json.push_str(":null");
                self.lose()
            }
            State::Value => self.value(blanks, rest, json),
            State::Lost | State::Over => None,
            State::Text(_) => unreachable!("returned above"),
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

    /// The quotation mark that a text begins with, if it does; `None` while that is open.
    fn quote(&self, text: &str) -> Option<Option<Quote>> {
        let mark = text.chars().next()?;
        if mark == '"' || mark == '\'' {
            return Some(Some(Quote::Escaping(mark)));
        }
        match self.own_quote {
            Some(own) if text.starts_with(own) => Some(Some(Quote::Own(own))),
            Some(own) if own.starts_with(text) => None,
            Some(_) | None => Some(None),
        }
    }

    /// An item of the innermost list, with what stands `before` it. A key is let out when it is
    /// whole, and the comma before it no sooner, for nothing may come of it.
    fn item<'a>(&mut self, before: &str, text: &'a str, json: &mut String) -> Option<&'a str> {
        match self.open.last() {
            Some(Bracket::Object) => {}
            Some(Bracket::Array) | None => {
                json.push_str(before);
                self.state = State::Value;
                return Some(text);
            }
        }
        let mut key = String::new();
        let after = if let Some(quote) = self.quote(text)? {
            quote.read(&text[quote.len()..], &mut key).ok()?
        } else {
            let end = text.find([':', '=', ',', '{', '}'])?;
            if !text[end..].starts_with([':', '=']) {
                return self.lose();
            }
            push_escaped(&mut key, text[..end].trim());
            &text[end..]
        };
        json.extend([before, "\"", &key, "\""]);
        self.state = State::Colon;
        Some(after)
    }

    fn value<'a>(&mut self, blanks: &str, text: &'a str, json: &mut String) -> Option<&'a str> {
        let bracket = match text.chars().next() {
            Some('{') => Some(Bracket::Object),
            Some('[') => Some(Bracket::Array),
            Some(_) | None => None,
        };
        if let Some(bracket) = bracket {
            // The arguments themselves are no level.
            if self.open.len() > DEPTH_MAX {
                json.push_str("null");
                return self.lose();
            }
            json.extend([blanks, &text[..1]]);
            self.open.push(bracket);
            self.state = State::First;
            return Some(&text[1..]);
        }
        if let Some(quote) = self.quote(text)? {
            json.extend([blanks, "\""]);
            self.state = State::Text(quote);
            return Some(&text[quote.len()..]);
        }
        let (whole, after) = text.split_at(text.find([',', '}', ']'])?);
        let bare = whole.trim_end();
        json.push_str(blanks);
        push_bare(json, bare);
        json.push_str(&whole[bare.len()..]);
        self.end_value();
        Some(after)
    }
}

/// An array or an object as other languages write it.
pub(super) fn literal(text: &str) -> Option<Value> {
    let text = text.trim();
    if !text.starts_with(['[', '{']) {
        return None;
    }
    let (mut stream, mut out) = (ObjectStream::new(None), vec![]);
    let rest = stream.push(text, &mut out);
    let json = out.into_iter().map(|piece| match piece {
        Called::Arguments(json) => json,
        Called::Begun { .. } => unreachable!("a stream of arguments begins no call"),
    });
    let is_whole = stream.is_over() && rest.is_empty();
    is_whole.then(|| serde_json::from_str(&json.collect::<String>()).ok())?
}

/// A number, a word, or text that lacks its quotation marks.
fn push_bare(json: &mut String, text: &str) {
    match serde_json::from_str::<Value>(text) {
        // As it came: it may have more digits than a number here holds.
        Ok(_) => json.push_str(text),
        Err(_) => {
            let value = kinds::word(text).unwrap_or_else(|| text.into());
            json.push_str(&value.to_string());
        }
    }
}

/// The inside of a JSON string. Each character by itself, so that it does not matter how a text is
/// cut.
pub(super) fn push_escaped(json: &mut String, text: &str) {
    let quoted = Value::from(text).to_string();
    json.push_str(&quoted[1..quoted.len() - 1]);
}

/// See [`Quote::read`]. A backslash that JSON does not know there stands for itself, as models write
/// patterns and paths, and so do line breaks.
fn read_escaping<'a>(mark: char, text: &'a str, json: &mut String) -> Result<&'a str, &'a str> {
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let after = &rest[next.len_utf8()..];
        if next == mark {
            return Ok(after);
        }
        if next == '"' || next < ' ' {
            push_escaped(json, &rest[..1]);
        } else if next != '\\' {
            json.push(next);
        }
        if next != '\\' {
            rest = after;
            continue;
        }
        let Some(escaped) = after.chars().next() else {
            return Err(rest);
        };
        let length = match escaped {
            'u' => unicode(rest).ok_or(rest)?,
            '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't' => 2,
            _ => 0,
        };
        if length > 0 {
            json.push_str(&rest[..length]);
            rest = &rest[length..];
        } else if escaped == mark {
            json.push(mark);
            rest = &after[mark.len_utf8()..];
        } else {
            json.push_str("\\\\");
            rest = after;
        }
    }
    Err(rest)
}

/// The length of an escape `\uXXXX`, or of the two that are one character; 0 where it is none. `None`:
/// more must come.
fn unicode(text: &str) -> Option<usize> {
    for length in [6, 12] {
        let Some(escape) = text.get(..length) else {
            let may_be_one = text.bytes().enumerate().all(|(at, byte)| match at % 6 {
                0 => byte == b'\\',
                1 => byte == b'u',
                _ => byte.is_ascii_hexdigit(),
            });
            return if may_be_one { None } else { Some(0) };
        };
        if serde_json::from_str::<String>(&format!("\"{escape}\"")).is_ok() {
            return Some(length);
        }
    }
    Some(0)
}
