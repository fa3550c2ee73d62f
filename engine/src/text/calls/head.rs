//! The beginning of a section between a format's marks: whose call it is, and where its arguments
//! begin.

use super::super::dialect::CallFormat;

/// What the beginning of a section tells.
pub(super) enum Head {
    /// The arguments begin `at`, within so many objects, perhaps with a quotation mark of their own.
    Object {
        name: String,
        at: usize,
        own_quote: Option<&'static str>,
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

pub(super) fn head(format: CallFormat, text: &str) -> Head {
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
fn bare_head(text: &str, own_quote: &'static str) -> Result<Head, Stop> {
    let mut cursor = Cursor { rest: text };
    cursor.expect("call:")?;
    let at = cursor.rest.find('{').ok_or(Stop::More)?;
    let name = cursor.rest[..at].trim();
    if name.is_empty() {
        return Err(Stop::No);
    }
    Ok(Head::Object {
        name: name.to_owned(),
        at: text.len() - cursor.rest.len() + at,
        own_quote: Some(own_quote),
        within: 0,
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

/// The name in `{"name": "f"`, the beginning of a call in JSON.
pub(super) fn name_in(text: &str) -> Option<String> {
    let mut cursor = Cursor { rest: text };
    cursor.expect("{").ok()?;
    let is_name = cursor.string().ok()? == "name";
    cursor.expect(":").ok()?;
    cursor.string().ok().filter(|_| is_name)
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
            Some('{') => Ok(Head::Object {
                name,
                at: text.len() - rest.len(),
                own_quote: None,
                within,
            }),
            Some(_) => Err(Stop::No),
            None => Err(Stop::More),
        }
    }
}
