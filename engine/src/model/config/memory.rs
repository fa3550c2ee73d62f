//! How much memory a row takes, from the config alone.

use super::{Config, Store};

impl Config {
    /// Bytes that one more token of a row takes in layers that keep every token. Layers with a
    /// window and recurrent ones take an amount that does not grow, and are not in it.
    #[must_use]
    pub fn kv_bytes_per_token(&self, element_bytes: u64) -> u64 {
        let numbers = |store: Store| match store {
            Store::Attention {
                kv_heads,
                head_dim,
                window: None,
            } => 2 * u64::from(kv_heads.unsigned_abs()) * u64::from(head_dim.unsigned_abs()),
            Store::Attention {
                window: Some(_), ..
            }
            | Store::Recurrent(_) => 0,
        };
        self.stores().into_iter().map(numbers).sum::<u64>() * element_bytes
    }
}
