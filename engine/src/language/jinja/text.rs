//! Text that knows where each part of it came from: the template, or somebody outside.
//!
//! Whatever a template does with a string, cutting, joining, replacing, quoting, the parts keep their
//! origin. So the tokenizer can tell a mark that the template wrote from one that a user typed.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Who wrote a part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::language) enum Origin {
    /// The template itself, or a word that only we can have chosen.
    Template,
    /// A setting that the caller gave the template, such as a mode.
    Setting,
    /// The conversation and its tools: anybody at all.
    Content,
}

/// A part of a text by where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::language) struct Part {
    pub(in crate::language) end: usize,
    pub(in crate::language) origin: Origin,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(in crate::language) struct Text {
    text: Arc<str>,
    parts: Parts,
}

#[derive(Clone)]
enum Parts {
    One(Origin),
    /// In order; neighbours differ, and the last ends with the text.
    Many(Arc<[Part]>),
}

impl Text {
    pub(in crate::language) fn new(text: &str, origin: Origin) -> Self {
        Self {
            text: Arc::from(text),
            parts: Parts::One(origin),
        }
    }

    /// Of the template's own making.
    pub(in crate::language) fn own(text: &str) -> Self {
        Self::new(text, Origin::Template)
    }

    pub(in crate::language) fn as_str(&self) -> &str {
        &self.text
    }

    /// The parts in order, as ranges of bytes.
    pub(in crate::language) fn parts(&self) -> impl Iterator<Item = (Range<usize>, Origin)> + '_ {
        let one = match &self.parts {
            Parts::One(origin) => Some(Part {
                end: self.text.len(),
                origin: *origin,
            }),
            Parts::Many(_) => None,
        };
        let many = match &self.parts {
            Parts::One(_) => &[][..],
            Parts::Many(parts) => parts,
        };
        let mut start = 0;
        one.into_iter()
            .chain(many.iter().copied())
            .map(move |part| {
                let range = start..part.end;
                start = part.end;
                (range, part.origin)
            })
    }

    /// The bytes of `range`, which begins and ends between characters.
    pub(in crate::language) fn slice(&self, range: Range<usize>) -> Self {
        if range == (0..self.text.len()) {
            return self.clone();
        }
        match &self.parts {
            Parts::One(origin) => Self::new(&self.text[range], *origin),
            Parts::Many(_) => {
                let mut out = Writer::default();
                out.push_slice(self, range);
                out.finish()
            }
        }
    }

    /// Each part rewritten on its own.
    pub(in crate::language) fn map(&self, rewrite: impl Fn(&str) -> String) -> Self {
        let mut out = Writer::default();
        for (range, origin) in self.parts() {
            out.push(&rewrite(&self.text[range]), origin);
        }
        out.finish()
    }

    /// What stands behind the last part of the conversation.
    pub(in crate::language) fn after_content(&self) -> &str {
        let content = self
            .parts()
            .filter(|(_, origin)| *origin == Origin::Content);
        &self.text[content.last().map_or(0, |(range, _)| range.end)..]
    }

    /// What was written outside is left out: for messages that may be shown to others.
    pub(in crate::language) fn redacted(&self) -> String {
        let parts = self.parts().map(|(range, origin)| match origin {
            Origin::Template => &self.text[range],
            Origin::Content | Origin::Setting if range.is_empty() => "",
            Origin::Content | Origin::Setting => "\u{2026}",
        });
        parts.collect()
    }
}

/// Prints no content.
impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text({} bytes)", self.text.len())
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// A text that grows.
#[derive(Default)]
pub(in crate::language) struct Writer {
    text: String,
    parts: Vec<Part>,
}

impl Writer {
    pub(in crate::language) fn push(&mut self, text: &str, origin: Origin) {
        if text.is_empty() {
            return;
        }
        self.text.push_str(text);
        let end = self.text.len();
        match self.parts.last_mut() {
            Some(last) if last.origin == origin => last.end = end,
            Some(_) | None => self.parts.push(Part { end, origin }),
        }
    }

    /// Text of the template's own making.
    pub(in crate::language) fn push_own(&mut self, text: &str) {
        self.push(text, Origin::Template);
    }

    pub(in crate::language) fn push_text(&mut self, text: &Text) {
        self.push_slice(text, 0..text.text.len());
    }

    pub(in crate::language) fn push_slice(&mut self, text: &Text, wanted: Range<usize>) {
        for (range, origin) in text.parts() {
            let start = range.start.max(wanted.start);
            let end = range.end.min(wanted.end);
            if start < end {
                self.push(&text.text[start..end], origin);
            }
        }
    }

    pub(in crate::language) fn len(&self) -> usize {
        self.text.len()
    }

    pub(in crate::language) fn finish(self) -> Text {
        let parts = match self.parts[..] {
            [] => Parts::One(Origin::Template),
            [Part { origin, .. }] => Parts::One(origin),
            [_, ..] => Parts::Many(self.parts.into()),
        };
        Text {
            text: self.text.into(),
            parts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixed() -> Text {
        let mut out = Writer::default();
        out.push_own("<s>");
        out.push("üser", Origin::Content);
        out.push_own("");
        out.push("!", Origin::Content);
        out.push_own("</s>");
        out.finish()
    }

    fn parts(text: &Text) -> Vec<(&str, Origin)> {
        let named = |(range, origin): (Range<usize>, Origin)| (&text.as_str()[range], origin);
        text.parts().map(named).collect()
    }

    #[test]
    fn parts_keep_their_origin_however_a_text_is_cut() {
        use Origin::{Content, Template};
        let text = mixed();
        assert_eq!(
            parts(&text),
            [("<s>", Template), ("üser!", Content), ("</s>", Template)]
        );
        assert_eq!(parts(&text.slice(2..5)), [(">", Template), ("ü", Content)]);
        assert_eq!(parts(&text.slice(3..5)), [("ü", Content)]);
        assert_eq!(parts(&text.map(str::to_uppercase))[1], ("ÜSER!", Content));
    }

    #[test]
    fn what_came_from_outside_is_not_shown() {
        assert_eq!(mixed().after_content(), "</s>");
        assert_eq!(mixed().redacted(), "<s>\u{2026}</s>");
        assert_eq!(Text::new("", Origin::Content).redacted(), "");
    }
}
