//! Calls in JSON: `{"name":..,"arguments":{..}}`, alone, in an array or one after the other.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::WrittenCall;

#[derive(Deserialize)]
struct RawCall<'a> {
    name: String,
    #[serde(borrow, alias = "parameters")]
    arguments: Option<&'a RawValue>,
}

impl RawCall<'_> {
    fn into_call(self) -> Option<WrittenCall> {
        let arguments = match self.arguments {
            None => "{}".to_owned(),
            Some(raw) if raw.get().starts_with('"') => {
                // Some models write the object into a string, as the API does.
                let text: String = serde_json::from_str(raw.get()).ok()?;
                object(&text)?
            }
            Some(raw) => object(raw.get())?,
        };
        (!self.name.is_empty()).then_some(WrittenCall {
            name: self.name,
            arguments,
        })
    }
}

/// The text of one JSON object, as it came.
pub(super) fn object(text: &str) -> Option<String> {
    let raw: &RawValue = serde_json::from_str(text.trim()).ok()?;
    raw.get().starts_with('{').then(|| raw.get().to_owned())
}

/// Calls one after the other, with nothing but blanks and semicolons between them, or an array.
pub(super) fn several(body: &str) -> Option<Vec<WrittenCall>> {
    let mut rest = body.trim();
    if rest.starts_with('[') {
        let raw: Vec<RawCall<'_>> = serde_json::from_str(rest).ok()?;
        return raw.into_iter().map(RawCall::into_call).collect();
    }
    let mut calls = vec![];
    while !rest.is_empty() {
        let (raw, length) = first::<RawCall<'_>>(rest)?;
        calls.push(raw.into_call()?);
        rest = rest[length..].trim_start_matches([';', ' ', '\n', '\r', '\t']);
    }
    Some(calls)
}

/// `name[ARGS]{..}` as often as there are calls, or an array of calls.
pub(super) fn mistral(body: &str) -> Option<Vec<WrittenCall>> {
    let mut rest = body.trim();
    if rest.starts_with('[') && !rest.starts_with("[TOOL_CALLS]") {
        return several(rest);
    }
    let mut calls = vec![];
    while !rest.is_empty() {
        let (head, after) = rest.split_once("[ARGS]")?;
        let name = head.trim().trim_start_matches("[TOOL_CALLS]").trim();
        // Between the two an identifier of the call may stand.
        let name = name.split_once("[CALL_ID]").map_or(name, |(name, _)| name);
        let after = after.trim_start();
        let (raw, length) = first::<&RawValue>(after)?;
        calls.push(WrittenCall {
            name: name.to_owned(),
            arguments: object(raw.get()).filter(|_| !name.is_empty())?,
        });
        rest = after[length..].trim();
    }
    Some(calls)
}

/// The first JSON value of a text, and where it ends.
fn first<'a, T: Deserialize<'a>>(text: &'a str) -> Option<(T, usize)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<T>();
    let value = values.next()?.ok()?;
    Some((value, values.byte_offset()))
}
