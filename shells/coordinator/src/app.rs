//! What the tasks of one coordinator process share.

use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use cereus_core::door::DoorLimits;
use cereus_core::effect::Receipt;
use cereus_core::envelope::ScopeKey;
use cereus_core::ids::{AccountId, ConnId, Epoch};
use cereus_core::link::LinkRules;
use cereus_core::prefix::PrefixSecret;
use cereus_http::{GRACE, Proxies, Room};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::clock::Clock;
use crate::control::Notice;
use crate::directory::Directory;
use crate::metrics::{Metrics, Named};
use crate::receipts::Receipts;
use crate::settings::{fresh_prefix_secret, fresh_scope_key};
use crate::store::Store;

/// Connections of providers, registered or not.
const PROVIDER_CONNECTIONS_MAX: usize = 131_072;
/// Sockets of providers that have passed no challenge. Each may hold a frame of the size of a
/// registration.
const UNPROVEN: DoorLimits = DoorLimits {
    waiting_max: 2_048,
    of_origin_max: 16,
    grace: GRACE,
};

#[derive(Debug)]
pub(crate) struct App {
    pub(crate) clock: Clock,
    pub(crate) control: mpsc::Sender<Notice>,
    pub(crate) data: PathBuf,
    pub(crate) directory: Arc<Directory>,
    pub(crate) draining: watch::Receiver<bool>,
    /// Of this run.
    pub(crate) epoch: Epoch,
    /// Why the data folder takes no files at present.
    pub(crate) folder_trouble: watch::Sender<Option<String>>,
    /// Bodies that are read and lowered at the same time. Each takes its size once more meanwhile, which
    /// the room for bodies does not count: more at once would be no faster.
    pub(crate) lowering: Semaphore,
    pub(crate) metrics: Metrics,
    pub(crate) proxies: Proxies,
    pub(crate) receipts: Receipts,
    /// New in each process: providers' caches are cold after a restart.
    pub(crate) scope_key: ScopeKey,
    /// New in each process too: names say nothing of an earlier one's.
    pub(crate) prefix_secret: PrefixSecret,
    pub(crate) started_unix_s: u64,
    /// Who earns where a provider names no account of its own.
    pub(crate) unlinked: AccountId,
    /// Sockets of providers that have passed no challenge.
    pub(crate) unproven: Arc<Room>,
    next_conn: AtomicU64,
    /// One permit for each provider's connection.
    provider_places: Arc<Semaphore>,
}

/// Everything that [`App::new`] is given.
pub(crate) struct Parts {
    pub(crate) clock: Clock,
    pub(crate) control: mpsc::Sender<Notice>,
    pub(crate) data: PathBuf,
    pub(crate) directory: Arc<Directory>,
    pub(crate) draining: watch::Receiver<bool>,
    pub(crate) epoch: Epoch,
    /// A store to look receipts up in.
    pub(crate) reading: Box<dyn Store>,
    pub(crate) proxies: Proxies,
    pub(crate) started_unix_s: u64,
    pub(crate) unlinked: AccountId,
}

impl App {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            clock: parts.clock,
            control: parts.control,
            data: parts.data,
            directory: parts.directory,
            draining: parts.draining,
            epoch: parts.epoch,
            folder_trouble: watch::Sender::new(None),
            lowering: Semaphore::new(thread::available_parallelism().map_or(1, NonZero::get)),
            metrics: Metrics::new(),
            receipts: Receipts::new(parts.reading),
            proxies: parts.proxies,
            scope_key: fresh_scope_key(),
            prefix_secret: fresh_prefix_secret(),
            started_unix_s: parts.started_unix_s,
            unlinked: parts.unlinked,
            unproven: Room::new(UNPROVEN),
            next_conn: AtomicU64::new(parts.epoch.origin() + 1),
            provider_places: Arc::new(Semaphore::new(PROVIDER_CONNECTIONS_MAX)),
        }
    }

    /// What is sold and who earns, as of now.
    pub(crate) fn rules(&self) -> Arc<LinkRules> {
        self.directory.rules()
    }

    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Never used twice, by whichever process.
    pub(crate) fn fresh_conn(&self) -> ConnId {
        ConnId(self.next_conn.fetch_add(1, Ordering::Relaxed))
    }

    /// A place for one more provider's connection, if there is one.
    pub(crate) fn provider_place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.provider_places).try_acquire_owned().ok()
    }

    /// Returns when every provider's connection has ended.
    pub(crate) async fn providers_gone(&self) {
        let all = u32::try_from(PROVIDER_CONNECTIONS_MAX).expect("a constant that fits");
        let _ = self.provider_places.acquire_many(all).await;
    }

    /// A request was settled, however it ended for its consumer.
    pub(crate) fn charged(&self, receipt: &Receipt) {
        self.metrics
            .prompt_tokens
            .inc_by(u64::from(receipt.usage.prompt_tokens));
        self.metrics
            .completion_tokens
            .inc_by(u64::from(receipt.usage.completion_tokens));
        self.metrics
            .charged_micro_usd
            .inc_by(u64::try_from(receipt.charged.0).unwrap_or(0));
    }

    /// A request ended, in one of few ways.
    pub(crate) fn ended(&self, how: &str) {
        self.metrics.requests_running.dec();
        let name = Named {
            name: how.to_owned(),
        };
        self.metrics.requests_ended.get_or_create(&name).inc();
    }
}
