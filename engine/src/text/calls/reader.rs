//! One section between a format's marks, as it comes: calls are let out as far as they can no longer
//! be anything else, so that a long argument streams. What only shows itself as a whole is held.

use super::super::dialect::CallFormat;
use super::gemma::BareStream;
use super::tags::TagStream;
use super::{Called, ParameterTypes, read};

/// Bytes from a section's beginning to the first of the arguments, where they are to stream.
const HEAD_BYTES_MAX: usize = 1_024;

/// See the module.
#[derive(Clone, Debug)]
pub(in crate::text) struct CallReader {
    format: CallFormat,
    state: State,
    /// Calls that were let out.
    calls: usize,
    calls_max: usize,
}

/// How a section ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::text) enum SectionEnd {
    /// By its closing mark.
    Closed,
    /// With the answer, or because it grew too long.
    Cut,
}

#[derive(Clone, Debug)]
enum State {
    Bare(BareStream),
    /// What has come, of which it is not known yet what it is.
    Held(String),
    Json(JsonStream),
    Tags(TagStream),
    /// What has come, of which it is known that it cannot stream.
    Whole(String),
}

/// What the beginning of a section tells.
enum Head {
    /// The arguments begin `at`, with this quotation mark around texts.
    Bare {
        name: String,
        at: usize,
        quote: &'static str,
    },
    /// The arguments begin `at`, within so many objects.
    Json {
        name: String,
        at: usize,
        within: u32,
    },
    Tags {
        name: String,
        at: usize,
    },
    /// Too little has come.
    Unclear,
    Whole,
}

/// Why a part of a head could not be read.
enum Stop {
    /// More may follow.
    More,
    No,
}

impl CallReader {
    pub(in crate::text) const fn new(format: CallFormat, calls_max: usize) -> Self {
        Self {
            format,
            state: State::Held(String::new()),
            calls: 0,
            calls_max,
        }
    }

    /// Bytes that nobody has seen.
    pub(in crate::text) fn held(&self) -> usize {
        match &self.state {
            State::Bare(stream) => stream.held(),
            State::Held(body) | State::Whole(body) => body.len(),
            State::Json(_) | State::Tags(_) => 0,
        }
    }

    /// Whether a call was let out and is whole.
    pub(in crate::text) fn has_called(&self) -> bool {
        let is_under_way = match &self.state {
            State::Held(_) | State::Whole(_) => false,
            State::Bare(stream) => !stream.is_over(),
            State::Json(stream) => !stream.is_over(),
            State::Tags(stream) => !stream.is_over(),
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
                    body.push_str(&rest);
                    return;
                }
                State::Bare(stream) => {
                    rest = stream.push(&rest, out);
                    if stream.is_over() {
                        self.state = State::Held(String::new());
                    }
                }
                State::Json(stream) => {
                    rest = stream.push(&rest, out).to_owned();
                    if stream.is_over() {
                        self.state = State::Held(String::new());
                    }
                }
                State::Tags(stream) => {
                    rest = stream.push(&rest, types, out);
                    if stream.is_over() {
                        self.state = State::Held(String::new());
                    }
                }
                State::Held(body) => {
                    body.push_str(&rest);
                    let held = if self.calls > 0 {
                        // Between two calls.
                        body.trim_start_matches([';', ' ', '\n', '\r', '\t'])
                    } else {
                        body.as_str()
                    };
                    let head = if self.calls < self.calls_max {
                        head(self.format, held)
                    } else {
                        Head::Whole
                    };
                    match head {
                        Head::Bare { name, at, quote } if at <= HEAD_BYTES_MAX => {
                            rest = held[at..].to_owned();
                            out.push(Called::Begun { name });
                            self.calls += 1;
                            self.state = State::Bare(BareStream::new(quote));
                        }
                        Head::Json { name, at, within } if at <= HEAD_BYTES_MAX => {
                            rest = held[at..].to_owned();
                            out.push(Called::Begun { name });
                            self.calls += 1;
                            self.state = State::Json(JsonStream::new(within));
                        }
                        Head::Tags { name, at } if at <= HEAD_BYTES_MAX => {
                            rest = held[at..].to_owned();
                            out.push(Called::Begun { name: name.clone() });
                            self.calls += 1;
                            self.state = State::Tags(TagStream::new(name));
                        }
                        Head::Unclear if held.len() <= HEAD_BYTES_MAX => return,
                        Head::Bare { .. }
                        | Head::Json { .. }
                        | Head::Tags { .. }
                        | Head::Unclear
                        | Head::Whole => {
                            self.state = State::Whole(std::mem::take(body));
                            return;
                        }
                    }
                }
            }
        }
    }

    /// What was held, as text.
    pub(in crate::text) fn into_held(self) -> String {
        match self.state {
            State::Held(body) | State::Whole(body) => body,
            State::Bare(_) | State::Json(_) | State::Tags(_) => String::new(),
        }
    }

    /// The section ended. What came of it and is no call, which is text.
    pub(in crate::text) fn finish(
        self,
        end: SectionEnd,
        types: &ParameterTypes,
        out: &mut Vec<Called>,
    ) -> Option<String> {
        let body = match self.state {
            State::Held(body) | State::Whole(body) => body,
            // A call that was cut stays as far as it came: its reader sees that it is not whole.
            State::Bare(_) | State::Json(_) => return None,
            State::Tags(mut stream) => {
                if end == SectionEnd::Closed {
                    stream.close(out);
                }
                return None;
            }
        };
        let rest = body.trim_start_matches([';', ' ', '\n', '\r', '\t']);
        if self.calls > 0 && rest.is_empty() {
            return None;
        }
        match read(self.format, rest, types) {
            Some(calls) if self.calls + calls.len() <= self.calls_max => {
                for call in calls {
                    out.push(Called::Begun { name: call.name });
                    out.push(Called::Arguments(call.arguments));
                }
                None
            }
            // What models leave between a call and its closing mark says nothing.
            Some(_) | None if self.calls > 0 && end == SectionEnd::Closed => None,
            Some(_) | None => Some(body),
        }
    }
}

fn head(format: CallFormat, text: &str) -> Head {
    let read = match format {
        CallFormat::FunctionGemma => bare_head(text, "<escape>"),
        CallFormat::Gemma => bare_head(text, "<|\"|>"),
        CallFormat::Harmony => return Head::Whole,
        CallFormat::Llama => object_head(text),
        CallFormat::Mistral => mistral_head(text),
        CallFormat::Tagged => match text.trim_start().chars().next() {
            Some('<') => tags_head(text),
            Some(_) => object_head(text),
            None => Err(Stop::More),
        },
    };
    match read {
        Ok(head) => head,
        Err(Stop::More) => Head::Unclear,
        Err(Stop::No) => Head::Whole,
    }
}

/// `call:name{`.
fn bare_head(text: &str, quote: &'static str) -> Result<Head, Stop> {
    let mut cursor = Cursor { rest: text };
    cursor.expect("call:")?;
    let at = cursor.rest.find('{').ok_or(Stop::More)?;
    let name = cursor.rest[..at].trim();
    if name.is_empty() {
        return Err(Stop::No);
    }
    Ok(Head::Bare {
        name: name.to_owned(),
        at: text.len() - cursor.rest.len() + at,
        quote,
    })
}

/// `{"name": "f", "arguments": {`, in this order, as templates show it.
fn object_head(text: &str) -> Result<Head, Stop> {
    let mut cursor = Cursor { rest: text };
    cursor.expect("{")?;
    if cursor.string()? != "name" {
        return Err(Stop::No);
    }
    cursor.expect(":")?;
    let name = cursor.string()?;
    cursor.expect(",")?;
    let member = cursor.string()?;
    if name.is_empty() || !(member == "arguments" || member == "parameters") {
        return Err(Stop::No);
    }
    cursor.expect(":")?;
    cursor.arguments(text, name, 1)
}

/// `name[ARGS]{`, where the mark of a further call may stand before it and an id within.
fn mistral_head(text: &str) -> Result<Head, Stop> {
    const OPEN: &str = "[TOOL_CALLS]";
    let text_start = text.trim_start();
    if text_start.starts_with('[') && !text_start.starts_with(OPEN) {
        let is_cut = OPEN.starts_with(text_start);
        return Err(if is_cut { Stop::More } else { Stop::No });
    }
    let (before, rest) = text.split_once("[ARGS]").ok_or(Stop::More)?;
    let name = before.trim().trim_start_matches(OPEN).trim();
    let name = name.split_once("[CALL_ID]").map_or(name, |(name, _)| name);
    if name.is_empty() {
        return Err(Stop::No);
    }
    Cursor { rest }.arguments(text, name.to_owned(), 0)
}

/// `<function=name>`.
fn tags_head(text: &str) -> Result<Head, Stop> {
    let mut cursor = Cursor { rest: text };
    cursor.expect("<function=")?;
    let (name, rest) = cursor.rest.split_once('>').ok_or(Stop::More)?;
    let name = name.trim();
    if name.is_empty() {
        return Err(Stop::No);
    }
    Ok(Head::Tags {
        name: name.to_owned(),
        at: text.len() - rest.len(),
    })
}

/// Reads a head from left to right, over blanks.
struct Cursor<'a> {
    rest: &'a str,
}

impl Cursor<'_> {
    fn expect(&mut self, part: &str) -> Result<(), Stop> {
        let rest = self.rest.trim_start();
        match rest.strip_prefix(part) {
            Some(after) => {
                self.rest = after;
                Ok(())
            }
            None if part.starts_with(rest) => Err(Stop::More),
            None => Err(Stop::No),
        }
    }

    fn string(&mut self) -> Result<String, Stop> {
        self.expect("\"")?;
        let mut is_escaped = false;
        for (at, byte) in self.rest.bytes().enumerate() {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = true,
                b'"' => {
                    let quoted = format!("\"{}\"", &self.rest[..at]);
                    self.rest = &self.rest[at + 1..];
                    return serde_json::from_str(&quoted).map_err(|_| Stop::No);
                }
                _ => {}
            }
        }
        Err(Stop::More)
    }

    /// What comes next must be an object.
    fn arguments(self, text: &str, name: String, within: u32) -> Result<Head, Stop> {
        let rest = self.rest.trim_start();
        match rest.chars().next() {
            Some('{') => Ok(Head::Json {
                name,
                at: text.len() - rest.len(),
                within,
            }),
            Some(_) => Err(Stop::No),
            None => Err(Stop::More),
        }
    }
}

/// Lets one JSON object out as it comes, and tells where it ends.
#[derive(Clone, Debug)]
pub(in crate::text) struct JsonStream {
    /// Brackets that are open.
    depth: u32,
    is_string: bool,
    is_escaped: bool,
    part: Part,
    /// Objects that the arguments stand within.
    within: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Arguments,
    /// Other members of the call, which say nothing to a reader.
    Around,
    Over,
}

impl JsonStream {
    pub(in crate::text) const fn new(within: u32) -> Self {
        Self {
            depth: 0,
            is_string: false,
            is_escaped: false,
            part: Part::Arguments,
            within,
        }
    }

    pub(in crate::text) fn is_over(&self) -> bool {
        self.part == Part::Over
    }

    /// Takes text from the arguments' first bracket on; returns what follows the call.
    pub(in crate::text) fn push<'a>(&mut self, text: &'a str, out: &mut Vec<Called>) -> &'a str {
        let mut rest = text;
        if self.part == Part::Arguments {
            let end = self.end(rest, 0);
            let (arguments, after) = rest.split_at(end.unwrap_or(rest.len()));
            if !arguments.is_empty() {
                out.push(Called::Arguments(arguments.to_owned()));
            }
            if end.is_none() {
                return "";
            }
            rest = after;
            self.part = match self.within {
                0 => Part::Over,
                within => {
                    self.depth = within;
                    Part::Around
                }
            };
        }
        if self.part == Part::Around {
            let Some(end) = self.end(rest, 0) else {
                return "";
            };
            rest = &rest[end..];
            self.part = Part::Over;
        }
        rest
    }

    /// Where a closing bracket brings the depth to `least`, just behind it.
    fn end(&mut self, text: &str, least: u32) -> Option<usize> {
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
                    if self.depth <= least {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }
}
