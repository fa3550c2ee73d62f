//! The members of a body, as text, before any of them is interpreted.

use core::fmt;
use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::field;
use super::json::{List, too_deep};
use super::refusal::{Fault, Place, Refusal};
use super::request::{BODY_SIZE_MAX, MEMBERS_MAX, NESTING_MAX};

pub(super) type Members<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

/// The members of the body in their order, as text.
pub(super) fn members(body: &[u8]) -> Result<Members<'_>, Refusal> {
    if body.len() > BODY_SIZE_MAX {
        return Err(Refusal::TooLarge {
            size_max: BODY_SIZE_MAX,
        });
    }
    let text = core::str::from_utf8(body).map_err(|error| Refusal::NotUtf8 {
        at: error.valid_up_to(),
    })?;
    if let Some(at) = too_deep(body, NESTING_MAX) {
        return Err(Refusal::TooDeep {
            at,
            nesting_max: NESTING_MAX,
        });
    }
    let object: Object<'_> = serde_json::from_str(text).map_err(|error| {
        if error.is_data() {
            return Refusal::NotAnObject;
        }
        Refusal::InvalidJson {
            line: error.line(),
            column: error.column(),
        }
    })?;
    if object.is_cut {
        return Err(Refusal::TooManyMembers {
            count_max: MEMBERS_MAX,
        });
    }
    for (ix, (name, _)) in object.members.iter().enumerate() {
        if object.members[..ix].iter().any(|(other, _)| other == name) {
            return Err(field(name).map_or(Refusal::Duplicate, |field| {
                Refusal::field(Place::field(field.name), Fault::Duplicate)
            }));
        }
    }
    Ok(object.members)
}

struct Object<'a> {
    members: Vec<(Cow<'a, str>, &'a RawValue)>,
    is_cut: bool,
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut object = Object {
                    members: Vec::with_capacity(16),
                    is_cut: false,
                };
                while object.members.len() < MEMBERS_MAX {
                    let Some(Name(name)) = map.next_key()? else {
                        return Ok(object);
                    };
                    object.members.push((name, map.next_value()?));
                }
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    object.is_cut = true;
                }
                Ok(object)
            }
        }

        deserializer.deserialize_map(Members)
    }
}

pub(super) fn object<'a, T: Deserialize<'a>>(text: &'a str, place: Place) -> Result<T, Refusal> {
    // Derived structs also take arrays; the wire does not.
    if !text.starts_with('{') {
        return Err(Refusal::field(place, Fault::NotAnObject));
    }
    serde_json::from_str(text).map_err(|_| Refusal::field(place, Fault::Duplicate))
}

pub(super) fn list<'a, const MAX: usize>(
    text: &'a str,
    place: Place,
) -> Result<List<'a, MAX>, Refusal> {
    serde_json::from_str(text).map_err(|_| Refusal::field(place, Fault::NotAList))
}

pub(super) fn string(text: &str, place: Place) -> Result<Cow<'_, str>, Refusal> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    serde_json::from_str::<Text<'_>>(text)
        .map(|Text(text)| text)
        .map_err(|_| Refusal::field(place, Fault::NotAString))
}

pub(super) fn bounded(text: &str, bytes_max: usize, place: Place) -> Result<(), Refusal> {
    if text.len() > bytes_max {
        return Err(Refusal::field(place, Fault::TooLong { bytes_max }));
    }
    Ok(())
}

pub(super) fn position(ix: usize) -> u32 {
    u32::try_from(ix).expect("lists are bounded far below")
}
