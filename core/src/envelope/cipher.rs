//! Sealing and opening with a shared key that was computed once.

use core::fmt;

use cryptoxide::poly1305::{Poly1305, Tag};
use salsa20::XSalsa20;
use salsa20::cipher::consts::U10;
use salsa20::cipher::{KeyIvInit as _, StreamCipher as _};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::base64::{Base64Fault, decode_base64, encode_base64};
use super::fault::OpenFault;

pub const NONCE_SIZE: usize = 24;
pub const TAG_SIZE: usize = 16;

/// What sealing adds: nonce, then tag, then as many bytes as the plaintext has.
pub const OVERHEAD_SIZE: usize = NONCE_SIZE + TAG_SIZE;

/// The symmetric key of one pair of keys. Both directions of an attempt use the same one. Wiped
/// when dropped, shows nothing of itself.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct BoxKey([u8; 32]);

impl fmt::Debug for BoxKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxKey(..)")
    }
}

impl BoxKey {
    pub(super) fn from_shared_secret(shared: &[u8; 32]) -> Self {
        let key = salsa20::hsalsa::<U10>(shared.into(), &[0; 16].into());
        Self(key.into())
    }

    pub(super) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(super) const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The stream of one nonce behind its first 32 bytes, which key the authenticator.
    fn stream(&self, nonce: &[u8; NONCE_SIZE]) -> (XSalsa20, Poly1305) {
        let mut stream = XSalsa20::new(&self.0.into(), nonce.into());
        let mut one_time = Zeroizing::new([0; 32]);
        stream.apply_keystream(&mut *one_time);
        (stream, Poly1305::new(&one_time))
    }

    /// Appends nonce, tag and ciphertext to `out`. A nonce must never be used twice with one key.
    pub fn seal(&self, nonce: [u8; NONCE_SIZE], plaintext: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.reserve(OVERHEAD_SIZE + plaintext.len());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&[0; TAG_SIZE]);
        out.extend_from_slice(plaintext);
        let (head, body) = out[start..].split_at_mut(OVERHEAD_SIZE);
        let (mut stream, mut authenticator) = self.stream(&nonce);
        stream.apply_keystream(body);
        authenticator.update_mut(body);
        head[NONCE_SIZE..].copy_from_slice(&authenticator.finalize().0);
    }

    /// Appends the base64 of a sealed `plaintext` to `out`; `scratch` is a buffer to reuse.
    pub fn seal_text(
        &self,
        nonce: [u8; NONCE_SIZE],
        plaintext: &[u8],
        scratch: &mut Vec<u8>,
        out: &mut String,
    ) {
        scratch.clear();
        self.seal(nonce, plaintext, scratch);
        encode_base64(scratch, out);
    }

    /// Opens a box where it lies; the answer is the plaintext's part of `payload`.
    pub fn open_in_place<'p>(&self, payload: &'p mut [u8]) -> Result<&'p [u8], OpenFault> {
        let (nonce, rest) = payload.split_first_chunk_mut().ok_or(OpenFault::TooShort)?;
        let (tag, body) = rest.split_first_chunk_mut().ok_or(OpenFault::TooShort)?;
        let (mut stream, mut authenticator) = self.stream(nonce);
        authenticator.update_mut(body);
        // Tags compare in constant time.
        if authenticator.finalize() != Tag(*tag) {
            return Err(OpenFault::Forged);
        }
        stream.apply_keystream(body);
        Ok(body)
    }

    /// Opens a box; `scratch` is a buffer to reuse and holds the plaintext.
    pub fn open<'s>(
        &self,
        payload: &[u8],
        scratch: &'s mut Vec<u8>,
    ) -> Result<&'s [u8], OpenFault> {
        scratch.clear();
        scratch.extend_from_slice(payload);
        self.open_in_place(scratch)
    }

    /// Decodes the base64 of a box, at most `size_max` bytes, and opens it; `scratch` is a buffer to
    /// reuse and holds the plaintext. Allocates nothing once `scratch` has grown.
    pub fn open_text<'s>(
        &self,
        ciphertext: &str,
        size_max: usize,
        scratch: &'s mut Vec<u8>,
    ) -> Result<&'s [u8], OpenFault> {
        match decode_base64(ciphertext, size_max, scratch) {
            Ok(()) => self.open_in_place(scratch),
            Err(Base64Fault::Malformed) => Err(OpenFault::Base64),
            Err(Base64Fault::WrongSize) => Err(OpenFault::TooLong),
        }
    }
}
