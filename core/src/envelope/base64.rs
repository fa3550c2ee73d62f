//! Standard base64 with padding, between buffers that are reused.

use ::base64::Engine as _;
use ::base64::engine::general_purpose::STANDARD;

/// Why a text is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base64Fault {
    /// Not the standard alphabet, not padded, or cut.
    Malformed,
    /// Decodes to another length than wanted, or to more than allowed.
    WrongSize,
}

/// Characters that `size` bytes become.
#[must_use]
pub const fn base64_size(size: usize) -> usize {
    size.div_ceil(3) * 4
}

/// Appends the text of `bytes` to `out`.
pub fn encode_base64(bytes: &[u8], out: &mut String) {
    STANDARD.encode_string(bytes, out);
}

/// Replaces the content of `out` by what `text` stands for, at most `size_max` bytes.
pub fn decode_base64(text: &str, size_max: usize, out: &mut Vec<u8>) -> Result<(), Base64Fault> {
    out.clear();
    decode_base64_append(text, size_max, out)
}

/// Appends what `text` stands for, at most `size_max` bytes. On a fault `out` is unchanged.
pub fn decode_base64_append(
    text: &str,
    size_max: usize,
    out: &mut Vec<u8>,
) -> Result<(), Base64Fault> {
    // The padding may account for two bytes less.
    let size_bound = text.len() / 4 * 3;
    if size_bound > size_max.saturating_add(2) {
        return Err(Base64Fault::WrongSize);
    }
    let start = out.len();
    out.resize(start + size_bound + 3, 0);
    match STANDARD.decode_slice(text, &mut out[start..]) {
        Ok(size) if size <= size_max => {
            out.truncate(start + size);
            Ok(())
        }
        Ok(_) => {
            out.truncate(start);
            Err(Base64Fault::WrongSize)
        }
        Err(_) => {
            out.truncate(start);
            Err(Base64Fault::Malformed)
        }
    }
}

/// Exactly `N` bytes.
pub fn decode_base64_array<const N: usize>(text: &str) -> Result<[u8; N], Base64Fault> {
    /// Room for the longest thing decoded this way, and for a text that is one group too long.
    const ROOM: usize = 96;
    const { assert!(N + 6 <= ROOM, "the room holds the array") };
    let mut room = [0u8; ROOM];
    if text.len() / 4 * 3 > N + 5 {
        return Err(Base64Fault::WrongSize);
    }
    match STANDARD.decode_slice(text, &mut room) {
        Ok(size) if size == N => {
            let mut bytes = [0u8; N];
            bytes.copy_from_slice(&room[..N]);
            Ok(bytes)
        }
        Ok(_) => Err(Base64Fault::WrongSize),
        Err(_) => Err(Base64Fault::Malformed),
    }
}
