//! Who holds which API key and what is sold, in memory. The store tells what changes of the keys, and
//! a key that is not here does not exist; so asking costs a hash and a look, whoever asks with whatever
//! key. Of the catalogue the control task tells, once the core sells it.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use cereus_core::config::Catalog;
use cereus_core::event::Event;
use cereus_core::ids::AccountId;
use cereus_core::link::{LinkConfig, LinkRules, Owners};
use tokio::sync::{mpsc, watch};

use crate::control::Notice;
use crate::store::{Changes, KeyHash};

/// Bytes of a key; ours have 74. What is longer is not worth hashing.
const KEY_SIZE_MAX: usize = 256;

#[derive(Debug)]
pub(crate) struct Directory {
    keys: RwLock<HashMap<KeyHash, AccountId>>,
    control: mpsc::Sender<Notice>,
    /// What is sold, and who earns by the same keys: one snapshot, replaced as a whole. Whoever waits
    /// for a change hears of a new catalogue only; who earns is looked up at each registration.
    rules: watch::Sender<Arc<LinkRules>>,
}

impl Directory {
    pub(crate) fn new(
        control: mpsc::Sender<Notice>,
        link_config: LinkConfig,
        catalog: Catalog,
    ) -> Arc<Self> {
        let rules = LinkRules {
            config: link_config,
            catalog,
            owners: Owners::default(),
        };
        Arc::new(Self {
            keys: RwLock::default(),
            control,
            rules: watch::Sender::new(Arc::new(rules)),
        })
    }

    pub(crate) fn rules(&self) -> Arc<LinkRules> {
        Arc::clone(&self.rules.borrow())
    }

    /// The newest rules, and word of each new catalogue.
    pub(crate) fn follow_rules(&self) -> watch::Receiver<Arc<LinkRules>> {
        self.rules.subscribe()
    }

    /// The core sells something else.
    pub(crate) fn sell(&self, catalog: &Catalog) {
        self.rules.send_modify(|rules| {
            let newer = LinkRules {
                config: rules.config.clone(),
                catalog: catalog.clone(),
                owners: rules.owners.clone(),
            };
            *rules = Arc::new(newer);
        });
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
        let owners = Owners::new(owners);
        self.rules.send_if_modified(|rules| {
            let newer = LinkRules {
                config: rules.config.clone(),
                catalog: rules.catalog.clone(),
                owners,
            };
            *rules = Arc::new(newer);
            // Tens of thousands of connections need not wake for a key.
            false
        });
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
