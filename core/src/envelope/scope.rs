//! Whose prompts may share a cache on a provider: a salt for each account that says nothing of the account.
//! Nobody can then learn by its speed that another account has asked the same.

use core::fmt;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::base64::encode_base64;
use crate::ids::AccountId;

const LABEL: &[u8] = b"cereus.cache-scope.v1";

/// What a coordinator makes scopes from. Wiped when dropped; shows nothing of itself.
#[derive(Clone)]
pub struct ScopeKey(Zeroizing<[u8; 32]>);

impl fmt::Debug for ScopeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScopeKey(..)")
    }
}

impl ScopeKey {
    /// The longest scope that a provider takes, in bytes.
    pub const SCOPE_SIZE_MAX: usize = 128;

    /// Any 32 bytes, fresh from the caller's source of secrets. With another key all caches are cold.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The same text for each request of an account, and another for each account.
    #[must_use]
    pub fn scope(&self, account: AccountId) -> String {
        let mut hash = Sha256::new_with_prefix(LABEL);
        hash.update(*self.0);
        hash.update(account.0.to_be_bytes());
        let mut text = String::new();
        encode_base64(&hash.finalize(), &mut text);
        text
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_account_and_each_key_has_scopes_of_its_own() {
        let mut seen = BTreeSet::new();
        for byte in 0..4 {
            let key = ScopeKey::from_bytes([byte; 32]);
            for account in 0..100 {
                let scope = key.scope(AccountId(account));
                assert_eq!(scope, key.scope(AccountId(account)));
                assert!(scope.len() <= ScopeKey::SCOPE_SIZE_MAX);
                assert!(seen.insert(scope));
            }
        }
    }
}
