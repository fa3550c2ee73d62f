//! What a provider can do wrong with one chunk.

use super::CHUNK_SIZE_MAX;
use crate::api::{Malformed, Overfull};
use crate::envelope::{BoxKey, KeyText, OVERHEAD_SIZE};
use crate::wire::ChunkFrame;

/// Why a chunk ends its attempt.
pub(super) enum Breach {
    /// It is not sealed, or not by the key that its provider registered to that of its attempt.
    Encryption,
    /// What was sealed is not what the wire says.
    Malformed,
    /// More than may wait for the consumer.
    Overflow,
    /// More than the bound that the machine was given.
    Overrun,
    /// It lost to another attempt, which was given up after all, and not all that it said meanwhile
    /// was kept.
    Torn,
}

impl From<Malformed> for Breach {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl From<Overfull> for Breach {
    fn from(overfull: Overfull) -> Self {
        match overfull {
            Overfull::Malformed => Self::Malformed,
            Overfull::TooLarge => Self::Overflow,
        }
    }
}

/// What can be seen of a chunk without its key: it is sealed, nothing stands in it in the clear, and
/// the key that sealed it is the one that its provider registered. Answers the ciphertext.
pub(super) fn sealed_by<'c>(
    sealer: &KeyText,
    chunk: &'c ChunkFrame<'_>,
) -> Result<&'c str, Breach> {
    let sealed = chunk.encrypted_data.as_ref().ok_or(Breach::Encryption)?;
    if !chunk.data.is_empty() || sealed.ephemeral_public_key.as_str() != sealer.as_str() {
        return Err(Breach::Encryption);
    }
    Ok(&sealed.ciphertext)
}

pub(super) fn opened<'s>(
    key: &BoxKey,
    ciphertext: &str,
    scratch: &'s mut Vec<u8>,
) -> Result<&'s str, Breach> {
    let plain = key
        .open_text(ciphertext, CHUNK_SIZE_MAX + OVERHEAD_SIZE, scratch)
        .map_err(|_| Breach::Encryption)?;
    core::str::from_utf8(plain).map_err(|_| Breach::Malformed)
}
