//! Gemma's calls: `call:name{key:value,..}`, with bare keys and a quotation mark of their own.

use super::{DEPTH_MAX, WrittenCall};

/// Calls one after the other.
pub(super) fn calls(body: &str, quote: &str) -> Option<Vec<WrittenCall>> {
    let mut reader = Reader { rest: body, quote };
    let mut calls = vec![];
    loop {
        reader.skip_blanks();
        if reader.rest.is_empty() {
            return Some(calls);
        }
        reader.expect("call:")?;
        let name = reader.until('{')?.trim().to_owned();
        let mut arguments = String::new();
        reader.object(&mut arguments, 0)?;
        calls.push(WrittenCall {
            arguments: Some(arguments).filter(|_| !name.is_empty())?,
            name,
        });
    }
}

struct Reader<'a> {
    rest: &'a str,
    quote: &'a str,
}

impl<'a> Reader<'a> {
    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn expect(&mut self, text: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(text)?;
        Some(())
    }

    /// Up to a character, which stays.
    fn until(&mut self, end: char) -> Option<&'a str> {
        let (before, after) = self.rest.split_at(self.rest.find(end)?);
        self.rest = after;
        Some(before)
    }

    fn value(&mut self, out: &mut String, depth: u32) -> Option<()> {
        self.skip_blanks();
        if self.rest.starts_with(self.quote) {
            let text = self.quoted()?;
            push_string(out, text);
            return Some(());
        }
        match self.rest.chars().next()? {
            '{' => self.object(out, depth + 1),
            '[' => self.array(out, depth + 1),
            _ => self.bare(out),
        }
    }

    fn quoted(&mut self) -> Option<&'a str> {
        self.expect(self.quote)?;
        let (text, after) = self.rest.split_once(self.quote)?;
        self.rest = after;
        Some(text)
    }

    /// A number, a word of JSON, or text that lacks its quotation marks.
    fn bare(&mut self, out: &mut String) -> Option<()> {
        let end = self.rest.find([',', '}', ']'])?;
        let (text, after) = self.rest.split_at(end);
        self.rest = after;
        let text = text.trim();
        match serde_json::from_str::<serde_json::Value>(text) {
            Ok(_) => out.push_str(text),
            Err(_) => push_string(out, text),
        }
        Some(())
    }

    fn object(&mut self, out: &mut String, depth: u32) -> Option<()> {
        self.list(out, depth, ['{', '}'], |reader, out| {
            let key = if reader.rest.starts_with(reader.quote) {
                reader.quoted()?
            } else {
                reader.until(':')?.trim()
            };
            push_string(out, key.trim_matches('"'));
            reader.skip_blanks();
            reader.expect(":")?;
            out.push(':');
            reader.value(out, depth)
        })
    }

    fn array(&mut self, out: &mut String, depth: u32) -> Option<()> {
        self.list(out, depth, ['[', ']'], |reader, out| {
            reader.value(out, depth)
        })
    }

    fn list(
        &mut self,
        out: &mut String,
        depth: u32,
        [open, close]: [char; 2],
        mut item: impl FnMut(&mut Self, &mut String) -> Option<()>,
    ) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        self.rest = self.rest.strip_prefix(open)?;
        out.push(open);
        let mut is_first = true;
        loop {
            self.skip_blanks();
            if let Some(after) = self.rest.strip_prefix(close) {
                self.rest = after;
                out.push(close);
                return Some(());
            }
            if !is_first {
                self.expect(",")?;
                out.push(',');
                self.skip_blanks();
            }
            is_first = false;
            item(self, out)?;
        }
    }
}

fn push_string(out: &mut String, text: &str) {
    out.push_str(&serde_json::Value::from(text).to_string());
}
