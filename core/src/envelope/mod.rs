//! The sealed envelope: NaCl box (X25519, HSalsa20, XSalsa20-Poly1305). What is sealed with which key is in
//! "Sealed request and chunk" of `docs/protocol.md`.
//!
//! Pure: whoever seals brings key bytes and nonces, since core draws no secret randomness. Keys are
//! wiped when dropped and have no text form. A peer whose key forces the shared secret to zero is
//! refused, which the reference does not do.

mod base64;
mod cipher;
mod fault;
mod key;
mod payload;
mod ratchet;
mod scope;

pub use base64::{
    Base64Fault, base64_size, decode_base64, decode_base64_append, decode_base64_array,
    encode_base64,
};
pub use cipher::{BoxKey, NONCE_SIZE, OVERHEAD_SIZE, TAG_SIZE};
pub use fault::{KeyFault, OpenFault};
pub use key::{KeyText, PublicKey, SecretKey};
pub use payload::{EncryptedPayload, open_from};
pub use ratchet::{Ratchet, RatchetFault};
pub use scope::ScopeKey;

#[cfg(test)]
mod tests;
