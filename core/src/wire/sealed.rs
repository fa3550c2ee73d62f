//! A box and who sealed it, as frames carry it.

use serde::Serialize;

use super::text::{Text, tolerant};

tolerant! {
    /// `EncryptedPayload`: who sealed, and base64 of nonce, tag and ciphertext, in that
    /// order.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
    pub struct SealedText<'a> {
        pub ephemeral_public_key: Text<'a>,
        pub ciphertext: Text<'a>,
        /// Of a sealed session that `ephemeral_public_key` opened: which of its keys. Absent, the key
        /// is the one that the two public keys agree on, as published.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub session_step: Option<i64>,
    }
}
