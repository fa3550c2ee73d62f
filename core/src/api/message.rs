//! Checks one message of a conversation.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::chat::PARTS_MAX;
use super::json::{List, decoded_size};
use super::members::{list, object, position, string};
use super::refusal::{Fault, Place, Refusal};

/// Checks one message; returns the bytes of its text.
pub(super) fn message_text(message: &RawValue, place: Place) -> Result<u64, Refusal> {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow, default)]
        role: Option<&'a RawValue>,
        #[serde(borrow, default)]
        content: Option<&'a RawValue>,
        #[serde(borrow, default)]
        tool_calls: Option<&'a RawValue>,
    }

    let message: Message<'_> = object(message.get(), place)?;
    let role_place = place.member("role");
    let role = message
        .role
        .ok_or(Refusal::field(role_place, Fault::Missing))?;
    let role = string(role.get(), role_place)?;
    let is_assistant = match &*role {
        "assistant" => true,
        "developer" | "function" | "system" | "tool" | "user" => false,
        _ => return Err(Refusal::field(role_place, Fault::UnknownRole)),
    };
    let calls_bytes = message.tool_calls.map_or(0, |raw| raw.get().len() as u64);
    let content_place = place.member("content");
    let Some(content) = message.content else {
        // An assistant that only called tools said nothing.
        if is_assistant && message.tool_calls.is_some() {
            return Ok(calls_bytes);
        }
        return Err(Refusal::field(content_place, Fault::Missing));
    };
    if let Some(size) = decoded_size(content.get()) {
        return Ok(size + calls_bytes);
    }
    if !content.get().starts_with('[') {
        return Err(Refusal::field(content_place, Fault::NotAString));
    }
    let parts: List<'_, PARTS_MAX> = list(content.get(), content_place)?;
    if parts.is_cut {
        return Err(Refusal::field(
            content_place,
            Fault::TooMany {
                count_max: PARTS_MAX,
            },
        ));
    }
    let mut size = calls_bytes;
    for (ix, part) in parts.items.iter().enumerate() {
        size += part_text(part, content_place.part(position(ix)))?;
    }
    Ok(size)
}

fn part_text(part: &RawValue, place: Place) -> Result<u64, Refusal> {
    #[derive(Deserialize)]
    struct Part<'a> {
        #[serde(borrow, default, rename = "type")]
        kind: Option<&'a RawValue>,
        #[serde(borrow, default)]
        text: Option<&'a RawValue>,
    }

    let part: Part<'_> = object(part.get(), place)?;
    let not_text = Refusal::field(place, Fault::NotText);
    let kind = part.kind.ok_or(not_text)?;
    if string(kind.get(), place)? != "text" {
        return Err(not_text);
    }
    part.text
        .and_then(|raw| decoded_size(raw.get()))
        .ok_or(not_text)
}
