//! Why a key or a box is of no use. Says nothing of what was sealed.

use core::fmt;

use super::ratchet::RatchetFault;

/// Why a key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFault {
    /// A low-order point: the shared secret would be zero, whoever computes it.
    LowOrder,
    /// Not the padded standard base64 of 32 bytes.
    Malformed,
}

impl fmt::Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LowOrder => "the public key is a point of low order",
            Self::Malformed => "the public key is not the base64 of 32 bytes",
        })
    }
}

impl core::error::Error for KeyFault {}

/// Why nothing came out. Says nothing of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenFault {
    /// The ciphertext is not padded standard base64.
    Base64,
    /// Wrong key, or somebody changed a bit.
    Forged,
    /// The sender's key cannot be used.
    Key(KeyFault),
    /// Of a sealed session: there is no key for this step.
    Step(RatchetFault),
    /// More than the caller allows.
    TooLong,
    /// Shorter than nonce and tag.
    TooShort,
}

impl fmt::Display for OpenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base64 => f.write_str("the ciphertext is not base64"),
            Self::Forged => f.write_str("the box does not open with this key"),
            Self::Key(fault) => fault.fmt(f),
            Self::Step(RatchetFault::Behind) => f.write_str("the session's key was used before"),
            Self::Step(RatchetFault::TooFar) => f.write_str("the session is not so far yet"),
            Self::TooLong => f.write_str("the box is larger than allowed"),
            Self::TooShort => f.write_str("the box is shorter than its nonce and tag"),
        }
    }
}

impl core::error::Error for OpenFault {}
