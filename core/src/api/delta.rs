//! One piece of an answer, as a provider streams it.
//!
//! Texts stay in the escaped form in which they came: nothing is unescaped on the way through.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::{Object, decoded_size};

/// Most entries of one `tool_calls` list.
const TOOL_CALLS_MAX: usize = 128;

/// Tokens that leave no text of their own: the marks that open and close reasoning.
const REASONING_MARKS: u64 = 2;
/// The same for one tool call, which counts where it is named.
const TOOL_CALL_MARKS: u64 = 8;

/// `delta` of a chunk, or `message` of a whole answer.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Delta<'a> {
    #[serde(borrow, default)]
    pub content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub reasoning: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub reasoning_content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub refusal: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub tool_calls: Option<&'a RawValue>,
}

/// A delta whose parts have the wrong shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// What one delta amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bytes of all text in it, unescaped.
    pub text_bytes: u64,
    /// The most tokens in it that leave no text.
    pub marks: u64,
}

impl Tally {
    /// False for a preamble that only names a role.
    #[must_use]
    pub const fn is_content(self) -> bool {
        self.text_bytes > 0 || self.marks > 0
    }
}

/// One entry of `tool_calls`.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct ToolCall<'a> {
    #[serde(default)]
    pub(super) index: Option<u32>,
    #[serde(borrow, default)]
    pub(super) id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    function: Option<Object<ToolFunction<'a>>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct ToolFunction<'a> {
    #[serde(borrow, default)]
    pub(super) name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) arguments: Option<&'a RawValue>,
}

impl<'a> ToolCall<'a> {
    pub(super) fn function(&self) -> Option<ToolFunction<'a>> {
        self.function.map(|Object(function)| function)
    }
}

/// The inside of a JSON string's quotes.
pub(super) fn inside(raw: &RawValue) -> Result<&str, Malformed> {
    raw.get()
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .ok_or(Malformed)
}

impl<'a> Delta<'a> {
    /// Reasoning under either of its names.
    #[must_use]
    pub fn thought(&self) -> Option<&'a RawValue> {
        self.reasoning_content.or(self.reasoning)
    }

    pub fn tally(&self) -> Result<Tally, Malformed> {
        let size = |raw: Option<&RawValue>| {
            raw.map_or(Ok(0), |raw| decoded_size(raw.get()).ok_or(Malformed))
        };
        let thought = size(self.thought())?;
        let mut text_bytes = size(self.content)? + size(self.refusal)? + thought;
        let mut marks = if thought > 0 { REASONING_MARKS } else { 0 };
        if let Some(raw) = self.tool_calls {
            for call in calls(raw)? {
                let is_named =
                    call.id.is_some() || call.function().is_some_and(|it| it.name.is_some());
                marks += if is_named { TOOL_CALL_MARKS } else { 0 };
                text_bytes += size(call.id)?;
                if let Some(function) = call.function() {
                    text_bytes += size(function.name)? + size(function.arguments)?;
                }
            }
        }
        Ok(Tally { text_bytes, marks })
    }

    /// Appends the members, each led by `separator`, which is then a comma.
    pub fn write(&self, separator: &'static str, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let mut separator = separator;
        let mut member = |name: &str, raw: Option<&RawValue>, out: &mut Vec<u8>| {
            if let Some(raw) = raw {
                out.extend_from_slice(separator.as_bytes());
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(raw.get().as_bytes());
                separator = ",";
            }
        };
        member("\"content\":", self.content, out);
        // Clients read either name (`spec/api` 7.2).
        member("\"reasoning\":", self.thought(), out);
        member("\"reasoning_content\":", self.thought(), out);
        member("\"refusal\":", self.refusal, out);
        if let Some(raw) = self.tool_calls {
            out.extend_from_slice(separator.as_bytes());
            out.extend_from_slice(b"\"tool_calls\":");
            write_calls(raw, out)?;
        }
        Ok(())
    }
}

pub(super) fn calls(raw: &RawValue) -> Result<Vec<ToolCall<'_>>, Malformed> {
    let calls: Vec<Object<ToolCall<'_>>> =
        serde_json::from_str(raw.get()).map_err(|_| Malformed)?;
    if calls.len() > TOOL_CALLS_MAX {
        return Err(Malformed);
    }
    Ok(calls.into_iter().map(|Object(call)| call).collect())
}

/// Each call is written anew from the members that are known: what else a provider sends stays
/// here. Those of a whole message get the index that a delta needs.
fn write_calls(raw: &RawValue, out: &mut Vec<u8>) -> Result<(), Malformed> {
    out.push(b'[');
    for (call, position) in calls(raw)?.iter().zip(0u32..) {
        if position > 0 {
            out.push(b',');
        }
        let index = call.index.unwrap_or(position);
        out.extend_from_slice(format!("{{\"index\":{index}").as_bytes());
        if let Some(id) = call.id {
            text_member(",\"id\":", id, out)?;
        }
        let function = call.function();
        if let Some(name) = function.and_then(|function| function.name) {
            out.extend_from_slice(b",\"type\":\"function\",\"function\":{");
            text_member("\"name\":", name, out)?;
            out.push(b',');
        } else {
            out.extend_from_slice(b",\"function\":{");
        }
        match function.and_then(|function| function.arguments) {
            Some(arguments) => text_member("\"arguments\":", arguments, out)?,
            None => out.extend_from_slice(b"\"arguments\":\"\""),
        }
        out.extend_from_slice(b"}}");
    }
    out.push(b']');
    Ok(())
}

fn text_member(name: &str, raw: &RawValue, out: &mut Vec<u8>) -> Result<(), Malformed> {
    inside(raw)?;
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(raw.get().as_bytes());
    Ok(())
}
