//! Harmony: an answer of messages, each to a channel. What is on `analysis` is thought, what is on
//! `final` is said, and a message to `functions.name` is a call.

use super::calls::{Called, ObjectStream};
use super::parser::{CALL_BYTES_MAX, Calling, Said, TextEnd};
use super::scan;

/// Bytes of what stands before a message.
const HEADER_BYTES_MAX: usize = 1_024;

const CHANNEL: &str = "<|channel|>";
const MESSAGE: &str = "<|message|>";
/// Each begins or ends a message; the last two end an answer and seldom have a text.
const BOUNDARIES: [&str; 5] = ["<|start|>", CHANNEL, "<|end|>", "<|call|>", "<|return|>"];
const HEADER_MARKS: [&str; 1] = [MESSAGE];
/// Who calls are addressed to.
const FUNCTIONS: &str = "to=functions.";

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Harmony {
    calls_max: usize,
    calls: usize,
    /// A message began: what came is harmony.
    has_begun: bool,
    mode: Mode,
    held: String,
}

#[derive(Clone, Debug)]
enum Mode {
    /// A call of which nothing was let out: what has come of its arguments.
    Call {
        name: String,
        body: String,
    },
    /// A call whose arguments are let out as they come.
    Calling(ObjectStream),
    Content,
    /// Up to the message, so far.
    Header(String),
    Reasoning,
}

pub(super) fn mark_behind(text: &str) -> Option<&'static str> {
    let mut marks = BOUNDARIES.into_iter().chain(HEADER_MARKS);
    marks.find(|mark| text.ends_with(mark))
}

/// What a reader sees of an answer that was cut before a message began.
fn said_in_cut(text: &str) -> &str {
    let start = text.trim_start();
    let is_address = start.starts_with(FUNCTIONS) || FUNCTIONS.starts_with(start);
    if is_address || BOUNDARIES.iter().any(|mark| text.contains(mark)) {
        return "";
    }
    &text[..scan::hold_from(text, BOUNDARIES.into_iter())]
}

impl Harmony {
    pub(super) fn new(calling: Calling) -> Self {
        Self {
            calls_max: calling.calls_max(),
            calls: 0,
            has_begun: false,
            mode: Mode::Header(String::new()),
            held: String::new(),
        }
    }

    /// Whether the answer held the one call that it may hold.
    pub(super) const fn is_over(&self) -> bool {
        let is_calling = matches!(self.mode, Mode::Call { .. } | Mode::Calling(_));
        self.calls_max == 1 && self.calls == 1 && !is_calling
    }

    /// A header without its end is no answer yet, and models think first.
    pub(super) const fn is_reasoning(&self) -> bool {
        matches!(self.mode, Mode::Reasoning)
    }

    pub(super) fn push(&mut self, text: &str, said: &mut Said) {
        self.held.push_str(text);
        loop {
            let marks = self.marks();
            if let Some(found) = scan::first(&self.held, marks) {
                let mark = marks[found.mark];
                let held = std::mem::take(&mut self.held);
                self.take(&held[..found.start], said);
                self.held = held[found.start + mark.len()..].to_owned();
                if matches!(&self.mode, Mode::Calling(stream) if stream.is_within_text()) {
                    self.take(mark, said);
                } else {
                    self.cross(mark, said);
                }
                continue;
            }
            let end = scan::hold_from(&self.held, marks.iter().copied());
            let held = self.held.split_off(end);
            let text = std::mem::replace(&mut self.held, held);
            self.take(&text, said);
            return;
        }
    }

    /// See [`super::AnswerParser`].
    pub(super) fn push_mark(&mut self, mark: &'static str, said: &mut Said) {
        if !self.marks().contains(&mark) {
            self.push(mark, said);
            return;
        }
        // A token is no part of another mark, so what was held is text.
        let held = std::mem::take(&mut self.held);
        self.take(&held, said);
        self.cross(mark, said);
    }

    pub(super) fn finish(&mut self, end: TextEnd, said: &mut Said) {
        let held = std::mem::take(&mut self.held);
        let is_in_text = matches!(&self.mode, Mode::Calling(stream) if stream.is_within_text());
        let is_header = matches!(self.mode, Mode::Header(_));
        // What is held begins a mark, which is no text where the answer was cut in it.
        if end == TextEnd::Whole || is_in_text || is_header {
            self.take(&held, said);
        }
        if let Mode::Header(header) = &self.mode
            && !self.has_begun
            && !header.contains(CHANNEL)
        {
            said.content.push_str(match end {
                TextEnd::Cut => said_in_cut(header),
                TextEnd::Whole => header,
            });
        }
        // A call that was cut stays as far as it came.
        let is_call = matches!(self.mode, Mode::Call { .. } | Mode::Calling(_));
        if !is_call || end == TextEnd::Whole {
            self.end_message(said);
        }
    }

    /// The marks that count where the text now is.
    const fn marks(&self) -> &'static [&'static str] {
        match self.mode {
            Mode::Header(_) => &HEADER_MARKS,
            Mode::Call { .. } | Mode::Calling(_) | Mode::Content | Mode::Reasoning => &BOUNDARIES,
        }
    }

    fn take(&mut self, text: &str, said: &mut Said) {
        match &mut self.mode {
            Mode::Call { name, body } => {
                body.push_str(text);
                let arguments = body.trim_start();
                if arguments.starts_with('{') {
                    let mut stream = ObjectStream::new(None);
                    let name = std::mem::take(name);
                    said.calls.push(Called::Begun { name });
                    stream.push(arguments, &mut said.calls);
                    self.calls += 1;
                    self.mode = Mode::Calling(stream);
                } else if !arguments.is_empty() || body.len() > CALL_BYTES_MAX {
                    said.content.push_str(body);
                    self.mode = Mode::Content;
                }
            }
            // What follows the arguments says nothing.
            Mode::Calling(stream) if stream.is_over() => {}
            Mode::Calling(stream) => {
                stream.push(text, &mut said.calls);
            }
            Mode::Content => said.content.push_str(text),
            Mode::Header(header) => {
                header.push_str(text);
                if header.len() > HEADER_BYTES_MAX {
                    let header = std::mem::take(header);
                    self.mode = match self.mode_of(&header) {
                        Mode::Reasoning => {
                            said.reasoning.push_str(&header);
                            Mode::Reasoning
                        }
                        Mode::Call { .. } | Mode::Calling(_) | Mode::Content | Mode::Header(_) => {
                            said.content.push_str(&header);
                            Mode::Content
                        }
                    };
                }
            }
            Mode::Reasoning => said.reasoning.push_str(text),
        }
    }

    fn cross(&mut self, mark: &str, said: &mut Said) {
        if let Mode::Header(header) = &self.mode {
            self.mode = self.mode_of(header);
            self.has_begun = true;
            return;
        }
        self.end_message(said);
        // What follows other marks than this one is a header as well, or nothing.
        let header = if mark == CHANNEL { CHANNEL } else { "" };
        self.mode = Mode::Header(header.to_owned());
    }

    fn mode_of(&self, header: &str) -> Mode {
        // What stands before is left of a message that never came to its text.
        let begins = BOUNDARIES.iter().filter(|mark| **mark != CHANNEL);
        let begin = begins.filter_map(|mark| Some(header.rfind(mark)? + mark.len()));
        let header = &header[begin.max().unwrap_or(0)..];
        let is_calling = self.calls < self.calls_max;
        if let Some((_, after)) = header.split_once(FUNCTIONS).filter(|_| is_calling) {
            let is_end = |char: char| char.is_whitespace() || char == '<';
            let name = after.split(is_end).next().unwrap_or_default().to_owned();
            if !name.is_empty() {
                return Mode::Call {
                    name,
                    body: String::new(),
                };
            }
        }
        // A channel that is named twice was named wrongly at first.
        let channel = header.rsplit_once(CHANNEL).map_or("", |(_, after)| after);
        if channel.trim_start().starts_with("analysis") {
            Mode::Reasoning
        } else {
            Mode::Content
        }
    }

    fn end_message(&mut self, said: &mut Said) {
        let mode = std::mem::replace(&mut self.mode, Mode::Header(String::new()));
        match mode {
            // Nothing but blanks came: a call without arguments.
            Mode::Call { name, .. } => {
                self.calls += 1;
                said.calls.push(Called::Begun { name });
                said.calls.push(Called::Arguments("{}".to_owned()));
            }
            Mode::Calling(mut stream) => stream.close(&mut said.calls),
            // A header that never came to its message says nothing to a reader.
            Mode::Content | Mode::Header(_) | Mode::Reasoning => {}
        }
    }
}
