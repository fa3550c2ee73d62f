//! Answers whose thoughts and calls stand between marks.

use super::calls::{self, ParameterTypes};
use super::dialect::{CallFormat, Dialect, Marks, PYTHON_TAG};
use super::parser::{CALL_BYTES_MAX, Calling, Said};
use super::scan;
use super::section::Section;
use crate::chat::CALLS_MAX;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Tagged {
    reasoning: Option<Marks>,
    format: CallFormat,
    types: ParameterTypes,
    /// Calls are looked for.
    is_calling: bool,
    calls: usize,
    mode: Mode,
    section: Section,
    /// Text that may be the beginning of a mark.
    held: String,
}

#[derive(Clone, Debug)]
enum Mode {
    /// What stands between a call's marks, so far.
    Call(String),
    Content,
    /// Before content that may be a call as a whole, which its first character tells.
    Opening,
    Reasoning,
}

impl Tagged {
    pub(super) fn new(dialect: Dialect, calling: Calling, prompt_tail: &str) -> Self {
        let is_thinking = dialect.is_thinking(prompt_tail);
        let (is_calling, types) = match calling {
            Calling::No => (false, ParameterTypes::default()),
            Calling::Yes(types) => (true, types),
        };
        let mut parser = Self {
            reasoning: dialect.reasoning,
            format: dialect.calls,
            types,
            is_calling,
            calls: 0,
            mode: Mode::Reasoning,
            section: Section::after_mark(),
            held: String::new(),
        };
        if !is_thinking {
            parser.section = Section::default();
            parser.mode = parser.content();
        }
        parser
    }

    pub(super) const fn is_reasoning(&self) -> bool {
        matches!(self.mode, Mode::Reasoning)
    }

    pub(super) fn push(&mut self, text: &str, said: &mut Said) {
        self.held.push_str(text);
        loop {
            if matches!(self.mode, Mode::Opening) {
                if !self.open(said) {
                    return;
                }
                continue;
            }
            let marks = self.marks();
            if let Some(found) = scan::first(&self.held, &marks) {
                let held = std::mem::take(&mut self.held);
                self.take(&held[..found.start], said);
                self.held = held[found.start + marks[found.mark].len()..].to_owned();
                self.cross(marks[found.mark], said);
                continue;
            }
            let end = scan::hold_from(&self.held, marks.iter().copied());
            let held = self.held.split_off(end);
            let text = std::mem::replace(&mut self.held, held);
            self.take(&text, said);
            return;
        }
    }

    pub(super) fn finish(&mut self, said: &mut Said) {
        let held = std::mem::take(&mut self.held);
        if matches!(self.mode, Mode::Opening) {
            self.mode = Mode::Content;
        }
        self.take(&held, said);
        if let Mode::Call(body) = &mut self.mode {
            let body = std::mem::take(body);
            self.end_call(&body, "", said);
        }
        if matches!(self.mode, Mode::Content) {
            self.section.finish(&mut said.content);
        }
    }

    /// The mode of what is said, from its beginning.
    const fn content(&self) -> Mode {
        if self.is_calling && matches!(self.format, CallFormat::Llama) {
            Mode::Opening
        } else {
            Mode::Content
        }
    }

    /// The marks that count where the text now is.
    fn marks(&self) -> Vec<&'static str> {
        match &self.mode {
            Mode::Call(_) => {
                let close = self.format.marks().map(|marks| marks.close);
                close.into_iter().filter(|mark| !mark.is_empty()).collect()
            }
            Mode::Content | Mode::Opening => {
                let call = self.format.marks().filter(|_| self.is_calling);
                let thought = self.reasoning.map(|marks| marks.open);
                thought
                    .into_iter()
                    .chain(call.map(|marks| marks.open))
                    .collect()
            }
            Mode::Reasoning => self
                .reasoning
                .map(|marks| marks.close)
                .into_iter()
                .collect(),
        }
    }

    /// Text without marks.
    fn take(&mut self, text: &str, said: &mut Said) {
        match &mut self.mode {
            Mode::Call(body) => {
                body.push_str(text);
                if body.len() > CALL_BYTES_MAX {
                    let body = std::mem::take(body);
                    self.is_calling = false;
                    self.end_call(&body, "", said);
                }
            }
            Mode::Content | Mode::Opening => self.section.push(text, &mut said.content),
            Mode::Reasoning => self.section.push(text, &mut said.reasoning),
        }
    }

    /// A mark stood here, and with it the mode ends.
    fn cross(&mut self, mark: &str, said: &mut Said) {
        self.section = Section::after_mark();
        self.mode = match std::mem::replace(&mut self.mode, Mode::Content) {
            Mode::Call(body) => {
                self.end_call(&body, mark, said);
                return;
            }
            Mode::Reasoning => self.content(),
            Mode::Content | Mode::Opening => {
                let is_open = |marks: Option<Marks>| marks.is_some_and(|it| it.open == mark);
                if is_open(self.reasoning) {
                    Mode::Reasoning
                } else if is_open(self.format.marks()) && self.is_calling {
                    Mode::Call(String::new())
                } else {
                    // The close of a call that was too long to be one.
                    self.section = Section::default();
                    self.section.push(mark, &mut said.content);
                    Mode::Content
                }
            }
        };
    }

    /// Reads a call; one that cannot be read is shown as it came.
    fn end_call(&mut self, body: &str, close: &str, said: &mut Said) {
        self.mode = Mode::Content;
        let calls = if self.is_calling {
            calls::read(self.format, body, &self.types)
        } else {
            None
        };
        match calls {
            Some(calls) if self.calls + calls.len() <= CALLS_MAX => {
                self.calls += calls.len();
                said.calls.extend(calls);
                self.section = Section::after_mark();
            }
            Some(_) | None => {
                let open = self.format.marks().map_or("", |marks| marks.open);
                self.section = Section::default();
                for text in [open, body, close] {
                    self.section.push(text, &mut said.content);
                }
            }
        }
    }

    /// Decides by the first characters whether the whole content is a call. False while they do not
    /// tell.
    fn open(&mut self, said: &mut Said) -> bool {
        let text = self.held.trim_start();
        if text.is_empty() || (text.len() < PYTHON_TAG.len() && PYTHON_TAG.starts_with(text)) {
            return false;
        }
        if text.starts_with(PYTHON_TAG) || text.starts_with('{') {
            let body = text.strip_prefix(PYTHON_TAG).unwrap_or(text).to_owned();
            self.held.clear();
            self.mode = Mode::Call(String::new());
            self.take(&body, said);
        } else {
            self.mode = Mode::Content;
        }
        true
    }
}
