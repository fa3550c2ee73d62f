//! Which message is this? One cheap walk over the bytes finds `type` without building the document. It may
//! give up, and then the general decoder answers; it may not answer otherwise than that would.

use core::fmt;
use std::borrow::Cow;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::text::Text;

const KEY: &[u8] = b"type";

/// The frame is not an object whose `type` is a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeUnreadable;

/// The frame's `type`: by the scan, else by the general decoder. Absent or `null` is the empty text.
pub fn frame_type(frame: &[u8]) -> Result<Cow<'_, str>, TypeUnreadable> {
    match scan_type(frame) {
        Some(found) => Ok(Cow::Borrowed(found)),
        None => decode_type(frame),
    }
}

/// The walk. `None` means that it gave up: the frame may still be good.
///
/// Whenever it answers and the frame is valid JSON, [`decode_type`] gives the same answer.
#[must_use]
pub fn scan_type(frame: &[u8]) -> Option<&str> {
    let mut walk = Walk { frame, at: 0 };
    let mut found = None;
    walk.skip_space();
    walk.eat(b'{')?;
    loop {
        walk.skip_space();
        let key = walk.plain_string()?;
        walk.skip_space();
        walk.eat(b':')?;
        walk.skip_space();
        if key.eq_ignore_ascii_case(KEY) {
            if key != KEY || found.is_some() {
                return None;
            }
            found = Some(walk.plain_string()?);
        } else {
            walk.skip_value()?;
        }
        walk.skip_space();
        match walk.next()? {
            b',' => {}
            b'}' => return core::str::from_utf8(found?).ok(),
            _ => return None,
        }
    }
}

/// The general decoder's answer: keys compared without case, the last duplicate wins, `null` keeps
/// what was there.
pub fn decode_type(frame: &[u8]) -> Result<Cow<'_, str>, TypeUnreadable> {
    match serde_json::from_slice::<Envelope<'_>>(frame) {
        Ok(envelope) => Ok(envelope.kind.0),
        Err(_) => Err(TypeUnreadable),
    }
}

struct Walk<'a> {
    frame: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    fn next(&mut self) -> Option<u8> {
        let byte = *self.frame.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn eat(&mut self, wanted: u8) -> Option<()> {
        (self.next()? == wanted).then_some(())
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.frame.get(self.at) {
            self.at += 1;
        }
    }

    /// The inside of a string without any backslash.
    fn plain_string(&mut self) -> Option<&'a [u8]> {
        self.eat(b'"')?;
        let rest = self.frame.get(self.at..)?;
        let length = memchr::memchr2(b'"', b'\\', rest)?;
        if rest[length] == b'\\' {
            return None;
        }
        self.at += length + 1;
        Some(&rest[..length])
    }

    /// Leaves a string whose opening quote was eaten.
    fn skip_string(&mut self) -> Option<()> {
        loop {
            let rest = self.frame.get(self.at..)?;
            let length = memchr::memchr2(b'"', b'\\', rest)?;
            if rest[length] == b'"' {
                self.at += length + 1;
                return Some(());
            }
            self.at += length + 2;
        }
    }

    /// Structure only: brackets are counted together, whatever their kind.
    fn skip_value(&mut self) -> Option<()> {
        match self.next()? {
            b'"' => self.skip_string(),
            b'{' | b'[' => {
                let mut depth = 1u64;
                while depth > 0 {
                    match self.next()? {
                        b'"' => self.skip_string()?,
                        b'{' | b'[' => depth += 1,
                        b'}' | b']' => depth -= 1,
                        _ => {}
                    }
                }
                Some(())
            }
            _ => {
                self.at -= 1;
                let start = self.at;
                while let Some(byte) = self.frame.get(self.at) {
                    if matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r') {
                        break;
                    }
                    self.at += 1;
                }
                (self.at > start).then_some(())
            }
        }
    }
}

#[derive(Default)]
struct Envelope<'a> {
    kind: Text<'a>,
}

impl<'de> Deserialize<'de> for Envelope<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Envelope<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut envelope = Envelope::default();
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    if !key.as_bytes().eq_ignore_ascii_case(KEY) {
                        map.next_value::<IgnoredAny>()?;
                    } else if let Some(kind) = map.next_value()? {
                        envelope.kind = kind;
                    }
                }
                Ok(envelope)
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
