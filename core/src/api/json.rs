//! The few things about JSON text that serde does not do.

use core::fmt;
use std::borrow::Cow;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Appends `text` as a JSON string.
pub fn quote(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a vector takes all bytes");
}

/// Bytes of the text that a JSON string (with its quotes) stands for. `None` when `raw` is not a
/// string. The escapes must be valid, as those of every `RawValue` are.
#[must_use]
pub fn decoded_size(raw: &str) -> Option<u64> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?.as_bytes();
    let Some(first) = inner.iter().position(|&byte| byte == b'\\') else {
        return Some(inner.len() as u64);
    };
    let mut size = first as u64;
    let mut rest = &inner[first..];
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            size += 1;
            continue;
        }
        let Some((&escape, after)) = rest.split_first() else {
            break;
        };
        rest = after;
        if escape != b'u' {
            size += 1;
            continue;
        }
        let unit = hex4(rest);
        rest = rest.get(4..).unwrap_or(&[]);
        size += match unit {
            0..=0x7f => 1,
            0x80..=0x7ff => 2,
            // Each half of a surrogate pair is two of the four bytes.
            0xd800..=0xdfff => 2,
            _ => 3,
        };
    }
    Some(size)
}

fn hex4(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |unit, &byte| {
        (unit << 4) | char::from(byte).to_digit(16).unwrap_or(0)
    })
}

/// A JSON string as it was written, with its quotes. What only its size is asked of is never copied.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Quoted<'a>(&'a str);

/// Prints no content.
impl fmt::Debug for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Quoted({} bytes)", self.0.len())
    }
}

impl<'a> Quoted<'a> {
    /// `None` when the value is no string.
    #[must_use]
    pub fn of(value: &'a RawValue) -> Option<Self> {
        value.get().starts_with('"').then_some(Self(value.get()))
    }

    /// With its quotes and escapes.
    #[must_use]
    pub const fn as_written(self) -> &'a str {
        self.0
    }

    /// What stands between its quotes, escaped.
    #[must_use]
    pub fn inside(self) -> &'a str {
        let text = self.0.strip_prefix('"');
        text.and_then(|text| text.strip_suffix('"'))
            .expect("it is a string")
    }

    /// Bytes of the text.
    #[must_use]
    pub fn size(self) -> u64 {
        decoded_size(self.0).expect("it is a string")
    }

    #[must_use]
    pub fn text(self) -> Cow<'a, str> {
        #[derive(serde::Deserialize)]
        struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

        match serde_json::from_str::<Text<'_>>(self.0) {
            Ok(Text(text)) => text,
            // Half of a surrogate pair is JSON's syntax and no text: it shows as U+FFFD.
            Err(_) => {
                let bytes: Result<LooseText, _> = serde_json::from_str(self.0);
                let bytes = bytes.map(|it| it.0).unwrap_or_default();
                Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
            }
        }
    }
}

/// The bytes of a string that need be no text.
struct LooseText(Vec<u8>);

impl<'de> serde::Deserialize<'de> for LooseText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = LooseText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<LooseText, E> {
                Ok(LooseText(bytes.to_vec()))
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

/// Where brackets nest deeper than `nesting_max`, if they do. Only bytes outside strings count.
pub(super) fn too_deep(text: &[u8], nesting_max: usize) -> Option<usize> {
    let (mut depth, mut is_string, mut is_escaped) = (0usize, false, false);
    for (ix, &byte) in text.iter().enumerate() {
        if is_escaped {
            is_escaped = false;
        } else if is_string {
            match byte {
                b'\\' => is_escaped = true,
                b'"' => is_string = false,
                _ => {}
            }
        } else {
            match byte {
                b'"' => is_string = true,
                b'[' | b'{' => depth += 1,
                b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth > nesting_max {
                return Some(ix);
            }
        }
    }
    None
}

/// A derived struct that stands for an object only: derived ones also take arrays, field by field.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: serde::Deserialize<'de>> serde::Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(core::marker::PhantomData<T>);

        impl<'de, T: serde::Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer
            .deserialize_map(Members(core::marker::PhantomData))
            .map(Self)
    }
}

/// The elements of an array, as text, at most `MAX` of them.
pub(super) struct List<'a, const MAX: usize> {
    pub(super) items: Vec<&'a RawValue>,
    /// There were more.
    pub(super) is_cut: bool,
}

impl<'de: 'a, 'a, const MAX: usize> serde::Deserialize<'de> for List<'a, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<const MAX: usize>;

        impl<'de, const MAX: usize> Visitor<'de> for Elements<MAX> {
            type Value = List<'de, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut list = List {
                    items: Vec::new(),
                    is_cut: false,
                };
                while list.items.len() < MAX {
                    let Some(item) = seq.next_element::<&'de RawValue>()? else {
                        return Ok(list);
                    };
                    list.items.push(item);
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    list.is_cut = true;
                }
                Ok(list)
            }
        }

        let list = deserializer.deserialize_seq(Elements::<MAX>)?;
        Ok(List {
            items: list.items,
            is_cut: list.is_cut,
        })
    }
}
