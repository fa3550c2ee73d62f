//! One section between a format's marks, as it comes: calls are let out as far as they can no longer
//! be anything else, so that a long argument streams. What only shows itself as a whole is held.

use super::super::dialect::CallFormat;
use super::head::{Head, head, name_in};
use super::object::ObjectStream;
use super::tags::TagStream;
use super::{Called, ParameterTypes, read};

/// Bytes from a section's beginning to the first of the arguments, where they are to stream.
const HEAD_BYTES_MAX: usize = 1_024;

/// What may stand between two calls of a section.
const BETWEEN: [char; 5] = [';', ' ', '\n', '\r', '\t'];

/// See the module.
#[derive(Clone, Debug)]
pub(in crate::text) struct CallReader {
    format: CallFormat,
    beginning: Beginning,
    state: State,
    /// Calls that were let out.
    calls: usize,
    calls_max: usize,
}

/// What tells that a call begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::text) enum Beginning {
    Mark,
    /// The name of one of the request's functions, where JSON of other meaning may stand.
    Name,
}

/// How a section ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::text) enum SectionEnd {
    /// By its closing mark.
    Closed,
    /// With an answer that its bound cut: a call stays as far as it came, or is left out.
    Cut,
    /// With the answer, before another call, or because it grew too long.
    Left,
}

#[derive(Clone, Debug)]
enum State {
    /// Behind the arguments: other members of the call, which say nothing to a reader.
    Around(Outline),
    /// What has come, of which it is not known yet what it is.
    Held(Body),
    /// The arguments, within so many objects.
    Object {
        stream: ObjectStream,
        within: u32,
    },
    Tags(TagStream),
    /// What has come, of which it is known that it cannot stream.
    Whole(Body),
}

/// What nobody has seen.
#[derive(Clone, Debug)]
struct Body {
    text: String,
    outline: Outline,
}

impl Body {
    const fn new() -> Self {
        Self {
            text: String::new(),
            outline: Outline::within(0),
        }
    }

    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        // In what is no JSON, quotation marks say nothing.
        if self
            .text
            .trim_start_matches(BETWEEN)
            .starts_with(['{', '['])
        {
            self.follow(text);
        }
    }

    fn follow(&mut self, text: &str) {
        let mut rest = text;
        while let Some(end) = self.outline.push(rest) {
            rest = &rest[end..];
        }
    }
}

impl Beginning {
    fn fits(self, name: &str, types: &ParameterTypes) -> bool {
        match self {
            Self::Mark => true,
            Self::Name => types.has(name),
        }
    }
}

impl CallReader {
    pub(in crate::text) const fn new(
        format: CallFormat,
        beginning: Beginning,
        calls_max: usize,
    ) -> Self {
        Self {
            format,
            beginning,
            state: State::Held(Body::new()),
            calls: 0,
            calls_max,
        }
    }

    /// Bytes that nobody has seen.
    pub(in crate::text) fn held(&self) -> usize {
        match &self.state {
            State::Around(_) => 0,
            State::Held(body) | State::Whole(body) => body.text.len(),
            State::Object { stream, .. } => stream.held(),
            State::Tags(stream) => stream.held(),
        }
    }

    /// Whether what has come ends within one of the call's own texts, where a mark is text as well.
    pub(in crate::text) fn is_within_text(&self) -> bool {
        match &self.state {
            State::Around(outline) => outline.is_string,
            State::Held(body) | State::Whole(body) => body.outline.is_string,
            State::Object { stream, .. } => stream.is_within_text(),
            State::Tags(stream) => stream.is_within_text(),
        }
    }

    pub(in crate::text) fn is_blank(&self) -> bool {
        let is_held = matches!(&self.state, State::Held(body) if body.text.trim().is_empty());
        is_held && self.calls == 0
    }

    /// Whether a call was let out and is whole.
    pub(in crate::text) fn has_called(&self) -> bool {
        let is_under_way = match &self.state {
            State::Held(_) | State::Whole(_) => false,
            State::Around(_) | State::Object { .. } | State::Tags(_) => true,
        };
        self.calls > 0 && !is_under_way
    }

    /// Takes the next text of the section.
    pub(in crate::text) fn push(
        &mut self,
        text: &str,
        types: &ParameterTypes,
        out: &mut Vec<Called>,
    ) {
        let mut rest = text.to_owned();
        while !rest.is_empty() {
            match &mut self.state {
                State::Whole(body) => {
                    body.push(&rest);
                    return;
                }
                State::Object { stream, within } => {
                    rest = stream.push(&rest, out);
                    if stream.is_over() {
                        self.state = match *within {
                            0 => State::Held(Body::new()),
                            depth => State::Around(Outline::within(depth)),
                        };
                    }
                }
                State::Around(outline) => {
                    let Some(end) = outline.push(&rest) else {
                        return;
                    };
                    rest = rest[end..].to_owned();
                    self.state = State::Held(Body::new());
                }
                State::Tags(stream) => {
                    rest = stream.push(&rest, types, out);
                    if stream.is_over() {
                        self.state = State::Held(Body::new());
                    }
                }
                State::Held(body) => {
                    body.push(&rest);
                    let held = if self.calls > 0 {
                        body.text.trim_start_matches(BETWEEN)
                    } else {
                        body.text.as_str()
                    };
                    let head = if self.calls < self.calls_max {
                        head(self.format, held)
                    } else {
                        Head::Whole
                    };
                    match head {
                        Head::Object {
                            name,
                            at,
                            own_quote,
                            within,
                        } if at <= HEAD_BYTES_MAX && self.beginning.fits(&name, types) => {
                            rest = held[at..].to_owned();
                            out.push(Called::Begun { name });
                            self.calls += 1;
                            let stream = ObjectStream::new(own_quote);
                            self.state = State::Object { stream, within };
                        }
                        Head::Tags { name, at } if at <= HEAD_BYTES_MAX => {
                            rest = held[at..].to_owned();
                            out.push(Called::Begun { name: name.clone() });
                            self.calls += 1;
                            self.state = State::Tags(TagStream::new(name));
                        }
                        Head::Unclear if held.len() <= HEAD_BYTES_MAX => return,
                        Head::Object { .. } | Head::Tags { .. } | Head::Unclear | Head::Whole => {
                            self.state = State::Whole(std::mem::replace(body, Body::new()));
                            return;
                        }
                    }
                }
            }
        }
    }

    /// No more is read: ends a call that is under way. What was held, as text, if that is no call.
    pub(in crate::text) fn give_up(self, out: &mut Vec<Called>) -> Option<String> {
        match self.state {
            State::Held(body) | State::Whole(body) => return Some(body.text),
            State::Around(_) => {}
            State::Object { mut stream, .. } => stream.close(out),
            State::Tags(mut stream) => stream.close(out),
        }
        None
    }

    /// Whether what is held may be a call of which too little came.
    fn may_be_a_call(&self, types: &ParameterTypes) -> bool {
        let (State::Held(body) | State::Whole(body)) = &self.state else {
            return true;
        };
        match self.beginning {
            Beginning::Mark => true,
            Beginning::Name => match name_in(body.text.trim_start_matches(BETWEEN)) {
                Some(name) => types.has(&name),
                None => matches!(self.state, State::Held(_)),
            },
        }
    }

    /// The section ended. What came of it and is no call, which is text.
    pub(in crate::text) fn finish(
        self,
        end: SectionEnd,
        types: &ParameterTypes,
        out: &mut Vec<Called>,
    ) -> Option<String> {
        let (format, calls, calls_max) = (self.format, self.calls, self.calls_max);
        let beginning = self.beginning;
        let is_under_way = matches!(self.state, State::Object { .. } | State::Tags(_));
        if is_under_way && end == SectionEnd::Cut {
            return None;
        }
        let is_left_out = end == SectionEnd::Cut && self.may_be_a_call(types);
        let body = self.give_up(out)?;
        let rest = body.trim_start_matches(BETWEEN);
        if calls > 0 && rest.is_empty() {
            return None;
        }
        let read = read(format, rest, types);
        match read.filter(|read| read.iter().all(|it| beginning.fits(&it.name, types))) {
            Some(read) if calls + read.len() <= calls_max => {
                for call in read {
                    out.push(Called::Begun { name: call.name });
                    out.push(Called::Arguments(call.arguments));
                }
                None
            }
            // What models leave between a call and its closing mark says nothing.
            Some(_) | None if calls > 0 && end == SectionEnd::Closed => None,
            Some(_) | None if is_left_out => None,
            Some(_) | None => Some(body),
        }
    }
}

/// Follows the brackets and strings of JSON, and keeps nothing of it.
#[derive(Clone, Copy, Debug)]
struct Outline {
    /// Brackets that are open.
    depth: u32,
    is_string: bool,
    is_escaped: bool,
}

impl Outline {
    const fn within(depth: u32) -> Self {
        Self {
            depth,
            is_string: false,
            is_escaped: false,
        }
    }

    /// Takes text; where a closing bracket leaves none open, just behind it.
    fn push(&mut self, text: &str) -> Option<usize> {
        for (at, byte) in text.bytes().enumerate() {
            if self.is_escaped {
                self.is_escaped = false;
                continue;
            }
            match byte {
                b'\\' if self.is_string => self.is_escaped = true,
                b'"' => self.is_string = !self.is_string,
                _ if self.is_string => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }
}
