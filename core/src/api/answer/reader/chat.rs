//! Chunks of OpenAI's chat completions.

use core::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::super::{CallPart, FinishReason, Logprobs, Malformed, Piece, PieceText};
use crate::api::json::{Object, Quoted};
use crate::wire::Text;

/// Most entries of one `tool_calls` list.
const TOOL_CALLS_MAX: usize = 128;

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    choices: First<Object<Choice<'a>>>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    delta: Option<Object<Delta<'a>>>,
    /// In place of a delta where the provider sends the whole answer at once.
    #[serde(borrow, default)]
    message: Option<Object<Delta<'a>>>,
    #[serde(borrow, default)]
    finish_reason: Option<Text<'a>>,
    #[serde(borrow, default)]
    logprobs: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    /// Providers use either name for thoughts, some both.
    #[serde(borrow, default)]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_calls: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ToolCall<'a> {
    #[serde(default)]
    index: Option<u32>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    function: Option<Object<ToolFunction<'a>>>,
}

#[derive(Deserialize)]
struct ToolFunction<'a> {
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

/// Reads one event. `None` where it has no choice: a usage event has none.
pub(super) fn piece(payload: &str) -> Result<Option<Piece<'_>>, Malformed> {
    let Object(event): Object<Event<'_>> = serde_json::from_str(payload).map_err(|_| Malformed)?;
    // A provider reports an error as a frame of its own, never inside the stream.
    if event.error.is_some() {
        return Err(Malformed);
    }
    let Some(Object(choice)) = event.choices.0 else {
        return Ok(None);
    };
    let Object(delta) = choice.delta.or(choice.message).unwrap_or_default();
    Ok(Some(Piece {
        content: text(delta.content)?,
        thought: text(delta.reasoning_content.or(delta.reasoning))?,
        refusal: text(delta.refusal)?,
        calls: delta.tool_calls.map(calls).transpose()?,
        logprobs: choice.logprobs.map_or(Logprobs::Absent, Logprobs::Escaped),
        finish: choice
            .finish_reason
            .map(|reason| FinishReason::from_wire(&reason)),
    }))
}

fn text(raw: Option<&RawValue>) -> Result<Option<PieceText<'_>>, Malformed> {
    let quoted = |raw| Quoted::of(raw).map(PieceText::Escaped).ok_or(Malformed);
    raw.map(quoted).transpose()
}

/// Those of a whole message get the index that a part of a call needs.
fn calls(raw: &RawValue) -> Result<Vec<CallPart<'_>>, Malformed> {
    let calls: Vec<Object<ToolCall<'_>>> =
        serde_json::from_str(raw.get()).map_err(|_| Malformed)?;
    if calls.len() > TOOL_CALLS_MAX {
        return Err(Malformed);
    }
    let parts = calls.into_iter().zip(0..);
    parts
        .map(|(Object(call), position)| part(call, position))
        .collect()
}

fn part(call: ToolCall<'_>, position: u32) -> Result<CallPart<'_>, Malformed> {
    let function = call.function.map(|Object(function)| function);
    let (name, arguments) = match function {
        Some(function) => (function.name, function.arguments),
        None => (None, None),
    };
    Ok(CallPart {
        index: call.index.unwrap_or(position),
        id: text(call.id)?,
        name: text(name)?,
        arguments: text(arguments)?.unwrap_or(PieceText::EMPTY),
    })
}

/// The first element of an array: requests have one choice.
struct First<T>(Option<T>);

impl<T> Default for First<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for First<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T>(core::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Elements<T> {
            type Value = First<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let first = seq.next_element()?;
                if first.is_some() {
                    while seq.next_element::<IgnoredAny>()?.is_some() {}
                }
                Ok(First(first))
            }
        }

        deserializer.deserialize_seq(Elements(core::marker::PhantomData))
    }
}
