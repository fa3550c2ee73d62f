//! A call in tags as it comes: texts stream, other values are let out as each is whole.

use serde_json::Value;

use super::super::scan;
use super::{Called, Kind, ParameterTypes};

const PARAMETER: &str = "<parameter=";
const END: &str = "</function>";
const CLOSE: &str = "</parameter>";
/// The line break before a closing tag is not text.
const CLOSE_LINE: &str = "\n</parameter>";

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
    /// A text of which nothing was let out yet: the first line break is not text, and it may be null.
    Opening {
        or_null: bool,
    },
    Text,
    /// A value that is read as a whole.
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

    /// The section was closed: a call that lacks its last tag alone is whole.
    pub(super) fn close(&mut self, out: &mut Vec<Called>) {
        if matches!(self.state, State::Between) {
            let end = if self.count == 0 { "{}" } else { "}" };
            out.push(Called::Arguments(end.to_owned()));
            self.state = State::Over;
        }
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
                self.state = match kind {
                    Kind::Text { or_null } => State::Opening { or_null },
                    Kind::Json | Kind::Unsaid | Kind::Words(_) => State::Value(kind),
                };
                true
            }
            State::Opening { or_null } => {
                let or_null = *or_null;
                self.open(or_null, out)
            }
            State::Text => self.stream(out),
            State::Value(kind) => {
                let Some(end) = self.held.find(CLOSE) else {
                    return false;
                };
                let value = kind.read(bare(&self.held[..end]));
                out.push_str(&value.to_string());
                self.held.drain(..end + CLOSE.len());
                self.state = State::Between;
                true
            }
        }
    }

    fn open(&mut self, or_null: bool, out: &mut String) -> bool {
        if let Some(end) = self.held.find(CLOSE) {
            let text = bare(&self.held[..end]);
            let value = Kind::Text { or_null }.read(text);
            out.push_str(&value.to_string());
            self.held.drain(..end + CLOSE.len());
            self.state = State::Between;
            return true;
        }
        let text = self.held.strip_prefix('\n').unwrap_or(&self.held);
        let from = scan::hold_from(text, [CLOSE_LINE, CLOSE].into_iter());
        let certain = &text[..from];
        if certain.is_empty() || (or_null && "null".starts_with(certain)) {
            return false;
        }
        out.push('"');
        escape(certain, out);
        self.held = text[from..].to_owned();
        self.state = State::Text;
        false
    }

    fn stream(&mut self, out: &mut String) -> bool {
        if let Some(end) = self.held.find(CLOSE) {
            let text = &self.held[..end];
            escape(text.strip_suffix('\n').unwrap_or(text), out);
            out.push('"');
            self.held.drain(..end + CLOSE.len());
            self.state = State::Between;
            return true;
        }
        let from = scan::hold_from(&self.held, [CLOSE_LINE, CLOSE].into_iter());
        escape(&self.held[..from], out);
        self.held.drain(..from);
        false
    }
}

/// A value without the line breaks that set it off from its tags.
fn bare(text: &str) -> &str {
    let text = text.strip_prefix('\n').unwrap_or(text);
    text.strip_suffix('\n').unwrap_or(text)
}

/// The inside of a JSON string.
fn escape(text: &str, out: &mut String) {
    let quoted = Value::from(text).to_string();
    out.push_str(&quoted[1..quoted.len() - 1]);
}
