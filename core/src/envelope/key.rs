//! X25519 keys.

use core::fmt;

use serde::{Deserialize, Serialize};
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use super::base64::{base64_size, decode_base64_array, encode_base64};
use super::cipher::BoxKey;
use super::fault::KeyFault;

/// A private key. Wiped when dropped; shows nothing of itself.
#[derive(Clone)]
pub struct SecretKey(StaticSecret);

impl SecretKey {
    /// Any 32 bytes, fresh from the caller's source of secrets.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let bytes = Zeroizing::new(bytes);
        Self(StaticSecret::from(*bytes))
    }

    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(x25519_dalek::PublicKey::from(&self.0).to_bytes())
    }

    /// The key that this side and `peer` share: compute once, then seal and open with it.
    pub fn agree(&self, peer: &PublicKey) -> Result<BoxKey, KeyFault> {
        let shared = self
            .0
            .diffie_hellman(&x25519_dalek::PublicKey::from(peer.0));
        if !shared.was_contributory() {
            return Err(KeyFault::LowOrder);
        }
        Ok(BoxKey::from_shared_secret(shared.as_bytes()))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// A public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// Reads the 44 characters of the wire.
    pub fn parse(text: &str) -> Result<Self, KeyFault> {
        match decode_base64_array(text) {
            Ok(bytes) => Ok(Self(bytes)),
            Err(_) => Err(KeyFault::Malformed),
        }
    }

    /// `false` for the points of low order, with which no secret can be shared.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        // Whether a secret comes out does not depend on the other key, so any will do.
        SecretKey::from_bytes([1; 32]).agree(self).is_ok()
    }

    #[must_use]
    pub fn text(&self) -> KeyText {
        let mut text = String::with_capacity(KeyText::SIZE);
        encode_base64(&self.0, &mut text);
        let mut bytes = [0; KeyText::SIZE];
        bytes.copy_from_slice(text.as_bytes());
        KeyText(bytes)
    }
}

/// A public key as the wire writes it: 44 characters of base64. Compared as text, so that two spellings of
/// one key are two keys.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyText([u8; Self::SIZE]);

impl KeyText {
    const SIZE: usize = base64_size(32);

    #[must_use]
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).expect("base64 is ASCII")
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
