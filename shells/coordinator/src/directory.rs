//! Who holds which API key: kept in memory, refreshed when another process changes the store.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use cereus_core::config::Catalog;
use cereus_core::event::Event;
use cereus_core::ids::AccountId;
use cereus_core::link::{LinkConfig, LinkRules, Owners};
use tokio::sync::{Mutex, mpsc};

use crate::control::Notice;
use crate::store::KeyHash;
use crate::store::writer::{News, Writer};

/// How long a key or a deposit made by the command line may stay unseen.
const REFRESH_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct Directory {
    keys: RwLock<HashMap<KeyHash, AccountId>>,
    /// One look at the store at a time, so that the core hears of deposits in their order.
    looking: Mutex<()>,
    writer: Writer,
    control: mpsc::Sender<Notice>,
    link_config: LinkConfig,
    catalog: Catalog,
    /// For the links: the same keys also say who earns.
    rules: RwLock<Arc<LinkRules>>,
}

impl Directory {
    pub(crate) fn new(
        writer: Writer,
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
            looking: Mutex::default(),
            writer,
            control,
            link_config,
            catalog,
            rules: RwLock::new(Arc::new(rules)),
        })
    }

    pub(crate) fn link_rules(&self) -> Arc<LinkRules> {
        Arc::clone(&self.rules.read().expect("no holder of this lock panics"))
    }

    /// The account of a key. A key not known yet may have been made a moment ago: looks again.
    pub(crate) async fn account(&self, key: &str) -> Option<AccountId> {
        let hash = KeyHash::of(key);
        if let Some(account) = self.find(hash) {
            return Some(account);
        }
        self.refresh().await;
        self.find(hash)
    }

    /// Takes over what other processes added to the store.
    pub(crate) async fn refresh(&self) {
        let _alone = self.looking.lock().await;
        if let Some(news) = self.writer.news().await {
            self.take_over(news).await;
        }
    }

    /// Refreshes until the coordinator ends.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(REFRESH_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.control.is_closed() {
            ticks.tick().await;
            self.refresh().await;
        }
    }

    /// The core hears of an account before anybody can use its key.
    async fn take_over(&self, news: News) {
        for (account, balance) in news.accounts {
            self.tell(Notice::Happened(Event::AccountOpened { account, balance }))
                .await;
        }
        for deposit in news.deposits {
            self.tell(Notice::Credited(deposit)).await;
        }
        let keys = news.keys.into_iter().filter(|key| !key.is_disabled);
        let keys: HashMap<_, _> = keys.map(|key| (key.hash, key.account)).collect();
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
        *self.keys.write().expect("no holder of this lock panics") = keys;
    }

    async fn tell(&self, notice: Notice) {
        // Closed at the very end only, when nobody asks any more.
        let _ = self.control.send(notice).await;
    }

    fn find(&self, hash: KeyHash) -> Option<AccountId> {
        let keys = self.keys.read().expect("no holder of this lock panics");
        // The table is found by hash; the comparison that decides takes constant time.
        let (found, account) = keys.get_key_value(&hash)?;
        found.is_same(&hash).then_some(*account)
    }
}
