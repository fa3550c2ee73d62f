//! Which layers keep the same positions, and what a row's past takes: the layout of its pages.

use std::num::NonZeroU32;

use super::{Config, Store};
use crate::kv::{Group, KvLayout};

/// Bytes of a number of a recurrent layer's matrix, whatever the network computes with.
const MATRIX_NUMBER_BYTES: u64 = 4;

/// Layers that see equally far back, and so share page tables: all that see everything, or all of
/// one window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreGroup {
    pub pages: Group,
    /// Indices into [`Config::stores`].
    pub stores: Vec<usize>,
}

impl Config {
    /// The groups in the order in which their first layers stand. A number takes `element_bytes`.
    #[must_use]
    pub fn store_groups(&self, element_bytes: u64) -> Vec<StoreGroup> {
        let mut groups: Vec<StoreGroup> = vec![];
        for (ix, store) in self.stores().into_iter().enumerate() {
            let Store::Attention {
                kv_heads,
                head_dim,
                window,
            } = store
            else {
                continue;
            };
            let window_tokens = window.and_then(|window| NonZeroU32::new(window.unsigned_abs()));
            let numbers = 2 * wide(kv_heads) * wide(head_dim) * u64::from(KvLayout::PAGE_TOKENS);
            let bytes_per_page = numbers * element_bytes;
            let known = groups
                .iter_mut()
                .find(|group| group.pages.window_tokens == window_tokens);
            if let Some(group) = known {
                group.stores.push(ix);
                group.pages.bytes_per_page += bytes_per_page;
            } else {
                groups.push(StoreGroup {
                    pages: Group {
                        window_tokens,
                        bytes_per_page,
                    },
                    stores: vec![ix],
                });
            }
        }
        groups
    }

    /// Bytes of one row's state in recurrent layers.
    #[must_use]
    pub fn state_bytes(&self, element_bytes: u64) -> u64 {
        let bytes = |store: Store| match store {
            Store::Attention { .. } => 0,
            Store::Recurrent(shape) => {
                let tail = wide(shape.kernel - 1) * wide(shape.mixed_width());
                let matrix = wide(shape.value_heads) * wide(shape.value_dim) * wide(shape.key_dim);
                tail * element_bytes + matrix * MATRIX_NUMBER_BYTES
            }
        };
        self.stores().into_iter().map(bytes).sum()
    }

    /// What the books of a row's past need to know.
    #[must_use]
    pub fn kv_layout(&self, element_bytes: u64, grant_bytes: u64) -> KvLayout {
        let groups = self.store_groups(element_bytes);
        KvLayout {
            page_tokens: KvLayout::PAGE_TOKENS,
            block_tokens: KvLayout::BLOCK_TOKENS,
            groups: groups.into_iter().map(|group| group.pages).collect(),
            state_bytes: self.state_bytes(element_bytes),
            grant_bytes,
        }
    }
}

fn wide(size: i32) -> u64 {
    u64::from(size.unsigned_abs())
}
