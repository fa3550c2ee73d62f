//! Answers whose thoughts and calls stand between marks.

use super::calls::{Beginning, CallReader, Called, ParameterTypes, SectionEnd};
use super::dialect::{CallFormat, Dialect, Marks, PYTHON_TAG};
use super::parser::{CALL_BYTES_MAX, Calling, Said, TextEnd};
use super::scan;
use super::section::Section;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Tagged {
    reasoning: Option<Marks>,
    format: CallFormat,
    types: ParameterTypes,
    /// Calls are looked for.
    is_calling: bool,
    calls_max: usize,
    calls: usize,
    /// Something was said or called: from here on no thought begins.
    has_begun: bool,
    mode: Mode,
    section: Section,
    /// Text that may be the beginning of a mark.
    held: String,
}

#[derive(Clone, Debug)]
enum Mode {
    /// Between a call's marks.
    Call(Box<CallReader>),
    Content,
    /// Before content that may be a call as a whole, which its first character tells.
    Opening,
    /// The one call that the answer may hold is whole: nothing more is read.
    Over,
    Reasoning,
}

impl Tagged {
    pub(super) fn new(dialect: Dialect, calling: Calling, prompt_tail: &str) -> Self {
        let is_thinking = dialect.is_thinking(prompt_tail);
        let calls_max = calling.calls_max();
        let (is_calling, types) = match calling {
            Calling::No => (false, ParameterTypes::default()),
            Calling::Yes { types, .. } => (true, types),
        };
        let mut parser = Self {
            reasoning: dialect.reasoning,
            format: dialect.calls,
            types,
            is_calling,
            calls_max,
            calls: 0,
            has_begun: false,
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

    pub(super) const fn is_over(&self) -> bool {
        matches!(self.mode, Mode::Over)
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
                let mark = marks[found.mark];
                let held = std::mem::take(&mut self.held);
                self.take(&held[..found.start], said);
                let after = found.start + mark.len();
                self.held = held[after..].to_owned();
                if self.is_late_thought(mark) || self.is_within_text() {
                    // What stands before it shows that it is text.
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

    pub(super) fn mark_behind(&self, text: &str) -> Option<&'static str> {
        let marks = self.format.marks()?;
        let mut marks = [marks.open, marks.close].into_iter();
        marks.find(|mark| !mark.is_empty() && text.ends_with(mark))
    }

    /// See [`super::AnswerParser`].
    pub(super) fn push_mark(&mut self, mark: &'static str, said: &mut Said) {
        // Models call from within thoughts that they do not end.
        let ends_thought = self.is_reasoning() && self.is_calling && self.opens_call(mark);
        if !ends_thought && !self.marks().contains(&mark) {
            self.push(mark, said);
            return;
        }
        // A token is no part of another mark, so what was held is text.
        let held = std::mem::take(&mut self.held);
        self.take(&held, said);
        if ends_thought {
            self.mode = Mode::Content;
        }
        self.cross(mark, said);
    }

    pub(super) fn finish(&mut self, end: TextEnd, said: &mut Said) {
        let held = std::mem::take(&mut self.held);
        let is_half_mark = self.ends_in_half_mark(&held, end);
        if matches!(self.mode, Mode::Opening) {
            self.mode = Mode::Content;
        }
        if !is_half_mark {
            self.take(&held, said);
        }
        let end = match end {
            TextEnd::Cut => SectionEnd::Cut,
            TextEnd::Whole => SectionEnd::Left,
        };
        self.end_call("", end, said);
        // The line breaks before a mark set it off, and so do those before a half of one.
        if matches!(self.mode, Mode::Content) && !is_half_mark {
            self.section.finish(&mut said.content);
        }
    }

    /// Whether what is held at the end is a half of a mark, and no text.
    fn ends_in_half_mark(&self, held: &str, end: TextEnd) -> bool {
        match &self.mode {
            // Nothing but its closing mark follows a call that is whole.
            Mode::Call(reader) if reader.has_called() => !held.is_empty(),
            Mode::Call(reader) => {
                end == TextEnd::Cut && !held.is_empty() && !reader.is_within_text()
            }
            // Blanks alone are no half of a mark.
            Mode::Opening => end == TextEnd::Cut && !held.trim().is_empty(),
            Mode::Content | Mode::Over | Mode::Reasoning => end == TextEnd::Cut && !held.is_empty(),
        }
    }

    /// Whether this mark would open a thought after something was said.
    fn is_late_thought(&self, mark: &str) -> bool {
        let is_open = self.reasoning.is_some_and(|marks| marks.open == mark);
        is_open && self.has_begun && matches!(self.mode, Mode::Content)
    }

    /// Whether this is the inside of one of a call's own texts, which may hold a mark.
    fn is_within_text(&self) -> bool {
        matches!(&self.mode, Mode::Call(reader) if reader.is_within_text())
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
                let marks = self.format.marks().map(|marks| [marks.open, marks.close]);
                let marks = marks.into_iter().flatten();
                marks.filter(|mark| !mark.is_empty()).collect()
            }
            Mode::Content | Mode::Opening => {
                let call = self.format.marks().filter(|_| self.is_calling);
                let thought = self.reasoning.filter(|_| !self.has_begun);
                let thought = thought.map(|marks| marks.open);
                thought
                    .into_iter()
                    .chain(call.map(|marks| marks.open))
                    .collect()
            }
            Mode::Over => vec![],
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
            Mode::Call(reader) => {
                let from = said.calls.len();
                reader.push(text, &self.types, &mut said.calls);
                let is_too_long = reader.held() > CALL_BYTES_MAX;
                let is_unmarked = self
                    .format
                    .marks()
                    .is_none_or(|marks| marks.close.is_empty());
                let is_last = is_unmarked && reader.has_called();
                self.count(&said.calls[from..]);
                if is_last && self.calls >= self.calls_max {
                    self.mode = Mode::Over;
                } else if is_too_long {
                    self.is_calling = false;
                    self.end_call("", SectionEnd::Left, said);
                }
            }
            Mode::Content | Mode::Opening => {
                self.has_begun |= !text.trim_start().is_empty();
                if self.has_begun && !self.is_calling {
                    // No mark can follow, so all line breaks are text at once.
                    self.section.finish(&mut said.content);
                    self.section.push(text, &mut said.content);
                    self.section.finish(&mut said.content);
                } else {
                    self.section.push(text, &mut said.content);
                }
            }
            Mode::Over => {}
            Mode::Reasoning => self.section.push(text, &mut said.reasoning),
        }
    }

    fn count(&mut self, pieces: &[Called]) {
        let begun = pieces
            .iter()
            .filter(|piece| matches!(piece, Called::Begun { .. }));
        self.calls += begun.count();
        self.has_begun |= !pieces.is_empty();
    }

    /// A mark stood here, and with it the mode ends.
    fn cross(&mut self, mark: &'static str, said: &mut Said) {
        match &self.mode {
            Mode::Call(reader) if self.opens_call(mark) => {
                // Nothing but the mark came: it is the same one, written twice.
                if !reader.is_blank() {
                    self.end_call("", SectionEnd::Left, said);
                    self.cross(mark, said);
                }
            }
            Mode::Call(_) => self.end_call(mark, SectionEnd::Closed, said),
            Mode::Over => {}
            Mode::Reasoning => {
                self.section = Section::after_mark();
                self.mode = self.content();
            }
            Mode::Content | Mode::Opening => {
                self.section = Section::after_mark();
                if self.reasoning.is_some_and(|marks| marks.open == mark) {
                    self.mode = Mode::Reasoning;
                } else if self.opens_call(mark) && self.is_calling {
                    self.mode = self.call(Beginning::Mark);
                } else {
                    // The close of a call that was too long to be one.
                    self.section = Section::default();
                    self.take(mark, said);
                }
            }
        }
    }

    fn opens_call(&self, mark: &str) -> bool {
        self.format.marks().is_some_and(|marks| marks.open == mark)
    }

    fn call(&self, beginning: Beginning) -> Mode {
        let left = self.calls_max - self.calls;
        Mode::Call(Box::new(CallReader::new(self.format, beginning, left)))
    }

    /// Ends a call, if one is being read; one that cannot be read is shown as it came.
    fn end_call(&mut self, close: &str, end: SectionEnd, said: &mut Said) {
        if !matches!(self.mode, Mode::Call(_)) {
            return;
        }
        let Mode::Call(reader) = std::mem::replace(&mut self.mode, Mode::Content) else {
            unreachable!("looked at just above");
        };
        self.section = Section::after_mark();
        let from = said.calls.len();
        let has_called = reader.has_called();
        let unread = if self.is_calling {
            reader.finish(end, &self.types, &mut said.calls)
        } else {
            reader.give_up(&mut said.calls)
        };
        self.count(&said.calls[from..]);
        if self.is_calling && self.calls >= self.calls_max && unread.is_none() {
            // With one call alone the answer is whole; with many no more are looked for.
            self.is_calling = false;
            if self.calls_max == 1 {
                self.mode = Mode::Over;
                return;
            }
        }
        let Some(body) = unread else {
            return;
        };
        let open = self.format.marks().map_or("", |marks| marks.open);
        let open = if has_called { "" } else { open };
        self.has_begun = true;
        self.section = Section::default();
        for text in [open, &body, close] {
            self.section.push(text, &mut said.content);
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
            let (beginning, body) = match text.strip_prefix(PYTHON_TAG) {
                Some(body) => (Beginning::Mark, body.to_owned()),
                None => (Beginning::Name, text.to_owned()),
            };
            self.held.clear();
            self.mode = self.call(beginning);
            self.take(&body, said);
        } else {
            self.mode = Mode::Content;
        }
        true
    }
}
