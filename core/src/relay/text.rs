//! What stands inside a chunk (`spec/wire` 9.1): server-sent events, each one JSON object.

use core::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::api::{Delta, FinishReason, Object};
use crate::wire::Text;

/// A sealed chunk whose inside is not what the wire says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl From<crate::api::Malformed> for Malformed {
    fn from(_: crate::api::Malformed) -> Self {
        Self
    }
}

/// The choice of one event, if it has any: a usage event has none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    pub(super) delta: Delta<'a>,
    pub(super) finish: Option<FinishReason>,
    pub(super) logprobs: Option<&'a RawValue>,
}

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

/// The payloads of a chunk, in order. A closing `[DONE]` is the coordinator's to say.
pub(super) fn payloads(text: &str) -> impl Iterator<Item = Result<&str, Malformed>> {
    text.split('\n').filter_map(|line| {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if let Some(payload) = line.strip_prefix("data:") {
            let payload = payload.trim();
            // JSON takes a carriage return for a space, a consumer for the end of the line.
            if memchr::memchr(b'\r', payload.as_bytes()).is_some() {
                return Some(Err(Malformed));
            }
            return (payload != "[DONE]" && !payload.is_empty()).then_some(Ok(payload));
        }
        let is_passed_over = line.is_empty()
            || line.starts_with(':')
            || ["event:", "id:", "retry:"]
                .iter()
                .any(|field| line.starts_with(field));
        (!is_passed_over).then_some(Err(Malformed))
    })
}

/// Reads one payload.
pub(super) fn piece(payload: &str) -> Result<Option<Piece<'_>>, Malformed> {
    let Object(event): Object<Event<'_>> = serde_json::from_str(payload).map_err(|_| Malformed)?;
    // A provider reports an error as a frame of its own, never inside the stream.
    if event.error.is_some() {
        return Err(Malformed);
    }
    Ok(event.choices.0.map(|Object(choice)| Piece {
        delta: choice.delta.or(choice.message).unwrap_or_default().0,
        finish: choice
            .finish_reason
            .map(|reason| FinishReason::from_wire(&reason)),
        logprobs: choice.logprobs,
    }))
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
