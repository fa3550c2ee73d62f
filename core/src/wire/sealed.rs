//! A box and who sealed it, as frames carry it.

use serde::Serialize;

use super::text::{Text, tolerant};

tolerant! {
    /// `EncryptedPayload`: who sealed, and base64 of nonce, tag and ciphertext (`spec/wire` 6.2).
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
    pub struct SealedText<'a> {
        pub ephemeral_public_key: Text<'a>,
        pub ciphertext: Text<'a>,
    }
}
