//! A call in tags as it comes: texts stream, other values are let out as each is whole.

use serde_json::Value;

use super::super::scan;
use super::object::push_escaped;
use super::{Called, Kind, ParameterTypes};

const PARAMETER: &str = "<parameter=";
const END: &str = "</function>";
const CLOSE: &str = "</parameter>";
/// What a value may end with. The line break before a closing tag is not text.
const ENDS: [&str; 4] = [CLOSE, "\n</parameter>", END, "\n</function>"];

/// See the module. Begins behind `<function=name>`.
#[derive(Clone, Debug)]
pub(super) struct TagStream {
    function: String,
    state: State,
    held: String,
    /// Parameters so far.
    count: usize,
}

#[derive(Clone, Debug)]
enum State {
    /// Before the next tag.
    Between,
    /// Within the tag that names a parameter.
    Naming,
    Over,
    Text,
    /// A value of which nothing was let out yet: the first line break is not text, and a text may be
    /// null. All but texts are read as a whole.
    Value(Kind),
}

impl TagStream {
    pub(super) const fn new(function: String) -> Self {
        Self {
            function,
            state: State::Between,
            held: String::new(),
            count: 0,
        }
    }

    pub(super) const fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Bytes that nobody has seen.
    pub(super) const fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether what has come ends within a value.
    pub(super) fn is_within_text(&self) -> bool {
        match self.state {
            State::Between | State::Naming | State::Over => false,
            State::Text | State::Value(_) => tagless(&self.held).is_none(),
        }
    }

    /// Nothing more comes: ends what is open.
    pub(super) fn close(&mut self, out: &mut Vec<Called>) {
        let mut let_out = String::new();
        let held = std::mem::take(&mut self.held);
        let text = tagless(&held).unwrap_or(&held);
        match &self.state {
            State::Between | State::Naming => {}
            State::Over => return,
            State::Text => end_text(text, &mut let_out),
            State::Value(kind) => let_out.push_str(&kind.read(bare(text)).to_string()),
        }
        let_out.push_str(if self.count == 0 { "{}" } else { "}" });
        self.state = State::Over;
        out.push(Called::Arguments(let_out));
    }

    /// Takes the next text; returns what follows the call.
    pub(super) fn push(
        &mut self,
        text: &str,
        types: &ParameterTypes,
        out: &mut Vec<Called>,
    ) -> String {
        self.held.push_str(text);
        let mut let_out = String::new();
        while self.step(types, &mut let_out) {}
        if !let_out.is_empty() {
            out.push(Called::Arguments(let_out));
        }
        if self.is_over() {
            std::mem::take(&mut self.held)
        } else {
            String::new()
        }
    }

    /// Whether there may be more to do with what is held.
    fn step(&mut self, types: &ParameterTypes, out: &mut String) -> bool {
        match &self.state {
            State::Over => false,
            State::Between => {
                let marks = [PARAMETER, END];
                let Some(found) = scan::first(&self.held, &marks) else {
                    let from = scan::hold_from(&self.held, marks.into_iter());
                    self.held.drain(..from);
                    return false;
                };
                self.held.drain(..found.start + marks[found.mark].len());
                if marks[found.mark] == END {
                    out.push_str(if self.count == 0 { "{}" } else { "}" });
                    self.state = State::Over;
                } else {
                    self.state = State::Naming;
                }
                true
            }
            State::Naming => {
                let Some(end) = self.held.find('>') else {
                    return false;
                };
                let name = self.held[..end].trim().to_owned();
                self.held.drain(..=end);
                out.push(if self.count == 0 { '{' } else { ',' });
                self.count += 1;
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                let kind = types.kind(&self.function, &name);
                self.state = State::Value(kind);
                true
            }
            State::Text => match ending(&self.held) {
                Ending::At { end, after } => {
                    end_text(&self.held[..end], out);
                    self.held.drain(..after);
                    self.state = State::Between;
                    true
                }
                Ending::NotBefore(from) => {
                    push_escaped(out, &self.held[..from]);
                    self.held.drain(..from);
                    false
                }
            },
            State::Value(kind) => match ending(&self.held) {
                Ending::At { end, after } => {
                    let value = kind.read(bare(&self.held[..end]));
                    out.push_str(&value.to_string());
                    self.held.drain(..after);
                    self.state = State::Between;
                    true
                }
                Ending::NotBefore(from) => {
                    let Kind::Text { or_null } = *kind else {
                        return false;
                    };
                    let breaks = usize::from(self.held.starts_with('\n'));
                    let certain = self.held.get(breaks..from).unwrap_or_default();
                    if certain.is_empty() || (or_null && "null".starts_with(certain)) {
                        return false;
                    }
                    out.push('"');
                    push_escaped(out, certain);
                    self.held.drain(..from);
                    self.state = State::Text;
                    false
                }
            },
        }
    }
}

/// Where a value ends, as far as the text from it on tells.
enum Ending {
    /// The value goes up to `end`, and what follows it begins behind its tag.
    At {
        end: usize,
        after: usize,
    },
    NotBefore(usize),
}

/// A closing tag is one only where the next tag follows it: values may hold such tags themselves.
fn ending(text: &str) -> Ending {
    for (end, _) in text.match_indices(CLOSE) {
        let after = end + CLOSE.len();
        let next = text[after..].trim_start();
        if [PARAMETER, END].iter().any(|tag| next.starts_with(tag)) {
            return Ending::At { end, after };
        }
        if [PARAMETER, END].iter().any(|tag| tag.starts_with(next)) {
            return Ending::NotBefore(before_break(&text[..end]));
        }
    }
    let end = match tagless(text) {
        Some(value) => before_break(value),
        None => scan::hold_from(text, ENDS.into_iter()),
    };
    Ending::NotBefore(end)
}

fn before_break(text: &str) -> usize {
    text.strip_suffix('\n').unwrap_or(text).len()
}

/// What stands before the tags that a text ends with, if the call may end there.
fn tagless(text: &str) -> Option<&str> {
    let text = text.trim_end();
    match text.strip_suffix(END) {
        Some(text) => Some(text.trim_end().strip_suffix(CLOSE).unwrap_or(text)),
        None => text.strip_suffix(CLOSE),
    }
}

/// The rest of a text that was let out up to there.
fn end_text(text: &str, out: &mut String) {
    push_escaped(out, text.strip_suffix('\n').unwrap_or(text));
    out.push('"');
}

/// A value without the line breaks that set it off from its tags.
fn bare(text: &str) -> &str {
    let text = text.strip_prefix('\n').unwrap_or(text);
    text.strip_suffix('\n').unwrap_or(text)
}
