//! `inference_response_chunk`: the one frame that comes for each piece of an answer, so the only one whose
//! decoding costs.
//!
//! A one-pass decoder reads the shapes that providers write and gives up on anything else; the
//! generic decoder then decides. Where the fast path answers, both answers are equal (property
//! test).

use serde::Serialize;

use super::sealed::SealedText;
use super::text::{Text, is_zero, tolerant};
use crate::ids::WireId;

tolerant! {
    /// One sealed piece of an answer, as it stands in the frame.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
    #[serde(tag = "type", rename = "inference_response_chunk")]
    pub struct ChunkFrame<'a> {
        pub request_id: Text<'a>,
        /// Absent: a protocol violation.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub encrypted_data: Option<SealedText<'a>>,
        /// Plaintext: a protocol violation unless empty.
        #[serde(skip_serializing_if = "is_zero")]
        pub data: Text<'a>,
    }
}

/// Appends a chunk frame. `sealer` and `ciphertext` are base64.
pub fn encode_chunk(id: WireId, sealer: &str, ciphertext: &str, out: &mut Vec<u8>) {
    use std::io::Write as _;
    out.reserve(ciphertext.len() + sealer.len() + 176);
    write!(
        out,
        r#"{{"type":"inference_response_chunk","request_id":"{id}","encrypted_data":{{"ephemeral_public_key":"{sealer}","ciphertext":""#
    )
    .expect("a Vec takes every byte");
    out.extend_from_slice(ciphertext.as_bytes());
    out.extend_from_slice(br#""}}"#);
}

impl<'a> ChunkFrame<'a> {
    /// The short cut: `None` says nothing about the frame.
    ///
    /// It reads an object of the keys `type`, `request_id` and `encrypted_data`, each once, in any
    /// order, with plain strings inside.
    pub(crate) fn decode_fast(frame: &'a [u8]) -> Option<Self> {
        if !may_be_chunk(frame) {
            return None;
        }
        // One check for the whole frame: the generic decoder refuses any string that is not UTF-8.
        let mut walk = Walk {
            rest: core::str::from_utf8(frame).ok()?,
        };
        let (mut kind, mut id, mut sealed) = (None, None, None);
        walk.eat('{')?;
        loop {
            match walk.key()? {
                "type" if kind.is_none() => kind = Some(walk.plain_string()?),
                "request_id" if id.is_none() => id = Some(walk.plain_string()?),
                "encrypted_data" if sealed.is_none() => sealed = Some(walk.sealed()?),
                _ => return None,
            }
            match walk.next()? {
                ',' => {}
                '}' => break,
                _ => return None,
            }
        }
        walk.skip_space();
        if !walk.rest.is_empty() || kind? != "inference_response_chunk" {
            return None;
        }
        Some(Self {
            request_id: Text::from(id?),
            encrypted_data: Some(sealed?),
            data: Text::default(),
        })
    }
}

/// Whether the first member leaves it open. Nearly every other frame is told apart here, at its
/// `type`, before a byte of the rest has been looked at.
fn may_be_chunk(frame: &[u8]) -> bool {
    const KEYS: [&[u8]; 2] = [br#""request_id""#, br#""encrypted_data""#];
    let Some(first) = frame.trim_ascii_start().strip_prefix(b"{") else {
        return false;
    };
    let first = first.trim_ascii_start();
    match first.strip_prefix(br#""type""#) {
        Some(rest) => rest
            .trim_ascii_start()
            .strip_prefix(b":")
            .is_some_and(|kind| {
                let kind = kind.trim_ascii_start();
                kind.starts_with(br#""inference_response_chunk""#)
            }),
        None => KEYS.iter().any(|key| first.starts_with(key)),
    }
}

struct Walk<'a> {
    rest: &'a str,
}

impl<'a> Walk<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    /// The next structural character, which is always ASCII.
    fn next(&mut self) -> Option<char> {
        self.skip_space();
        let byte = *self.rest.as_bytes().first()?;
        if !byte.is_ascii() {
            return None;
        }
        self.rest = &self.rest[1..];
        Some(char::from(byte))
    }

    fn eat(&mut self, wanted: char) -> Option<()> {
        (self.next()? == wanted).then_some(())
    }

    /// A string without escapes and without the control characters that JSON forbids.
    fn plain_string(&mut self) -> Option<&'a str> {
        self.eat('"')?;
        let length = memchr::memchr2(b'"', b'\\', self.rest.as_bytes())?;
        let (inside, after) = self.rest.split_at(length);
        self.rest = after.strip_prefix('"')?;
        // No short circuit: this loop vectorises.
        let is_plain = inside
            .bytes()
            .fold(true, |plain, byte| plain & (byte >= 0x20));
        is_plain.then_some(inside)
    }

    fn key(&mut self) -> Option<&'a str> {
        let key = self.plain_string()?;
        self.eat(':')?;
        Some(key)
    }

    fn sealed(&mut self) -> Option<SealedText<'a>> {
        let (mut sealer, mut ciphertext) = (None, None);
        self.eat('{')?;
        loop {
            match self.key()? {
                "ephemeral_public_key" if sealer.is_none() => sealer = Some(self.plain_string()?),
                "ciphertext" if ciphertext.is_none() => ciphertext = Some(self.plain_string()?),
                _ => return None,
            }
            match self.next()? {
                ',' => {}
                '}' => break,
                _ => return None,
            }
        }
        Some(SealedText {
            ephemeral_public_key: Text::from(sealer?),
            ciphertext: Text::from(ciphertext?),
            session_step: None,
        })
    }
}

#[cfg(test)]
#[path = "chunk_tests.rs"]
mod tests;
