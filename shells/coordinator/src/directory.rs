//! Who holds which API key, in memory: the store tells what changes, and a key that is not here does
//! not exist. So asking costs a hash and a look, whoever asks with whatever key.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use cereus_core::config::Catalog;
use cereus_core::event::Event;
use cereus_core::ids::AccountId;
use cereus_core::link::{LinkConfig, LinkRules, Owners};
use tokio::sync::mpsc;

use crate::control::Notice;
use crate::store::{Changes, KeyHash};

/// Bytes of a key; ours have 74. What is longer is not worth hashing.
const KEY_SIZE_MAX: usize = 256;

#[derive(Debug)]
pub(crate) struct Directory {
    keys: RwLock<HashMap<KeyHash, AccountId>>,
    control: mpsc::Sender<Notice>,
    link_config: LinkConfig,
    catalog: Catalog,
    /// For the links: the same keys also say who earns.
    rules: RwLock<Arc<LinkRules>>,
}

impl Directory {
    pub(crate) fn new(
        control: mpsc::Sender<Notice>,
        link_config: LinkConfig,
        catalog: Catalog,
    ) -> Arc<Self> {
        let rules = LinkRules {
            config: link_config.clone(),
            catalog: catalog.clone(),
            owners: Owners::default(),
        };
        Arc::new(Self {
            keys: RwLock::default(),
            control,
            link_config,
            catalog,
            rules: RwLock::new(Arc::new(rules)),
        })
    }

    pub(crate) fn link_rules(&self) -> Arc<LinkRules> {
        Arc::clone(&self.rules.read().expect("no holder of this lock panics"))
    }

    /// The account of a key.
    pub(crate) fn account(&self, key: &str) -> Option<AccountId> {
        (key.len() <= KEY_SIZE_MAX)
            .then(|| KeyHash::of(key))
            .and_then(|hash| self.find(hash))
    }

    /// Takes over what the store knows at a start.
    pub(crate) async fn begin(&self, everything: &Changes) {
        // The core hears of an account before anybody can use its key.
        for notice in notices(everything) {
            let _ = self.control.send(notice).await;
        }
        self.take_keys(everything);
    }

    /// Takes over what changed, on a thread that may wait.
    pub(crate) fn take_over(&self, changes: &Changes) {
        for notice in notices(changes) {
            // The channel closes only when the process ends, and then nobody uses the accounts any
            // more.
            let _ = self.control.blocking_send(notice);
        }
        self.take_keys(changes);
    }

    fn take_keys(&self, changes: &Changes) {
        if changes.keys.is_empty() {
            return;
        }
        let mut keys = self.keys.write().expect("no holder of this lock panics");
        for key in &changes.keys {
            if key.is_revoked {
                keys.remove(&key.hash);
            } else {
                keys.insert(key.hash, key.account);
            }
        }
        let owners = keys
            .iter()
            .map(|(hash, account)| (hash.bytes(), *account))
            .collect();
        let rules = LinkRules {
            config: self.link_config.clone(),
            catalog: self.catalog.clone(),
            owners: Owners::new(owners),
        };
        *self.rules.write().expect("no holder of this lock panics") = Arc::new(rules);
    }

    fn find(&self, hash: KeyHash) -> Option<AccountId> {
        let keys = self.keys.read().expect("no holder of this lock panics");
        // The table is found by hash; the comparison that decides takes constant time.
        let (found, account) = keys.get_key_value(&hash)?;
        found.is_same(&hash).then_some(*account)
    }
}

fn notices(changes: &Changes) -> impl Iterator<Item = Notice> {
    let opened = changes
        .accounts
        .iter()
        .map(|&(account, balance)| Notice::Happened(Event::AccountOpened { account, balance }));
    opened.chain(changes.deposits.iter().copied().map(Notice::Credited))
}
