//! A sealed payload that stands alone: it names the key of whoever sealed it.

use super::base64::base64_size;
use super::cipher::{BoxKey, NONCE_SIZE, OVERHEAD_SIZE};
use super::fault::{KeyFault, OpenFault};
use super::key::{KeyText, PublicKey, SecretKey};

/// A sealed payload that stands alone: who sealed it, and the box as base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncryptedPayload {
    pub ephemeral_public_key: KeyText,
    pub ciphertext: String,
}

impl EncryptedPayload {
    /// Seals `plaintext` from `own` to `peer`.
    pub fn seal(
        own: &SecretKey,
        peer: &PublicKey,
        nonce: [u8; NONCE_SIZE],
        plaintext: &[u8],
    ) -> Result<Self, KeyFault> {
        let key = own.agree(peer)?;
        let size = plaintext.len() + OVERHEAD_SIZE;
        let mut ciphertext = String::with_capacity(base64_size(size));
        key.seal_text(
            nonce,
            plaintext,
            &mut Vec::with_capacity(size),
            &mut ciphertext,
        );
        Ok(Self {
            ephemeral_public_key: own.public().text(),
            ciphertext,
        })
    }
}

/// Opens what a peer sealed to `own`. The shared key comes back with it: answers use the same one.
/// `scratch` holds the plaintext.
pub fn open_from<'s>(
    own: &SecretKey,
    sender: &str,
    ciphertext: &str,
    size_max: usize,
    scratch: &'s mut Vec<u8>,
) -> Result<(BoxKey, &'s [u8]), OpenFault> {
    let sender = PublicKey::parse(sender).map_err(OpenFault::Key)?;
    let key = own.agree(&sender).map_err(OpenFault::Key)?;
    let plaintext = key.open_text(ciphertext, size_max, scratch)?;
    Ok((key, plaintext))
}
