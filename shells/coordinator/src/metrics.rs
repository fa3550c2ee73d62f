//! What `GET /metrics` shows, in the format OpenMetrics.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Status {
    pub(crate) status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Named {
    pub(crate) name: String,
}

#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// HTTP replies by status.
    pub(crate) replies: Family<Status, Counter>,
    pub(crate) connections: Gauge,
    pub(crate) providers: Gauge,
    pub(crate) providers_verified: Gauge,
    pub(crate) requests_running: Gauge,
    /// Requests by how they ended.
    pub(crate) requests_ended: Family<Named, Counter>,
    pub(crate) prompt_tokens: Counter,
    pub(crate) completion_tokens: Counter,
    pub(crate) charged_micro_usd: Counter,
    pub(crate) events: Counter,
    /// Events handled in one turn of the coordinator's loop.
    pub(crate) batch_events: Histogram,
    pub(crate) first_content_seconds: Histogram,
    pub(crate) commit_seconds: Histogram,
    pub(crate) alarms: Family<Named, Counter>,
    pub(crate) journal_events_lost: Gauge<u64, AtomicU64>,
    pub(crate) transfers_posted: Gauge<u64, AtomicU64>,
    pub(crate) transfers_durable: Gauge<u64, AtomicU64>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("cereus"),
            replies: Family::default(),
            connections: Gauge::default(),
            providers: Gauge::default(),
            providers_verified: Gauge::default(),
            requests_running: Gauge::default(),
            requests_ended: Family::default(),
            prompt_tokens: Counter::default(),
            completion_tokens: Counter::default(),
            charged_micro_usd: Counter::default(),
            events: Counter::default(),
            batch_events: Histogram::new(exponential_buckets(1.0, 2.0, 9)),
            first_content_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
            commit_seconds: Histogram::new(exponential_buckets(0.000_1, 2.0, 16)),
            alarms: Family::default(),
            journal_events_lost: Gauge::default(),
            transfers_posted: Gauge::default(),
            transfers_durable: Gauge::default(),
        };
        metrics.register();
        metrics
    }

    /// The whole page, in OpenMetrics.
    pub(crate) fn page(&self) -> String {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &self.registry)
            .expect("a string takes all text");
        page
    }

    fn register(&mut self) {
        let list = &mut self.registry;
        list.register(
            "http_replies",
            "HTTP replies by status",
            self.replies.clone(),
        );
        list.register(
            "http_connections",
            "Open HTTP connections",
            self.connections.clone(),
        );
        list.register("providers", "Connected providers", self.providers.clone());
        list.register(
            "providers_verified",
            "Connected providers that passed their last challenge",
            self.providers_verified.clone(),
        );
        list.register(
            "requests_running",
            "Chat requests between arrival and end",
            self.requests_running.clone(),
        );
        list.register(
            "requests_ended",
            "Chat requests by how they ended",
            self.requests_ended.clone(),
        );
        list.register(
            "prompt_tokens",
            "Prompt tokens charged",
            self.prompt_tokens.clone(),
        );
        list.register(
            "completion_tokens",
            "Completion tokens charged",
            self.completion_tokens.clone(),
        );
        list.register(
            "charged_micro_usd",
            "Settled charges in millionths of a US dollar",
            self.charged_micro_usd.clone(),
        );
        list.register(
            "events",
            "Events that the coordinator handled",
            self.events.clone(),
        );
        list.register(
            "batch_events",
            "Events in one turn of the loop",
            self.batch_events.clone(),
        );
        list.register_with_unit(
            "first_content",
            "From arrival to the release of the first content",
            Unit::Seconds,
            self.first_content_seconds.clone(),
        );
        list.register_with_unit(
            "commit",
            "From posting a batch of transfers to its being durable",
            Unit::Seconds,
            self.commit_seconds.clone(),
        );
        list.register("alarms", "Limits hit and rules bent", self.alarms.clone());
        list.register(
            "journal_events_lost",
            "Events that the journal does not have, for want of room or speed of its disk",
            self.journal_events_lost.clone(),
        );
        list.register(
            "transfers_posted",
            "Number of the newest transfer posted",
            self.transfers_posted.clone(),
        );
        list.register(
            "transfers_durable",
            "Number of the newest transfer on disk",
            self.transfers_durable.clone(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_each_metric_once_with_its_help() {
        let metrics = Metrics::new();
        metrics.replies.get_or_create(&Status { status: 200 }).inc();
        let page = metrics.page();
        assert!(page.contains("cereus_http_replies_total{status=\"200\"} 1"));
        assert_eq!(page.matches("# HELP cereus_providers ").count(), 1);
        assert!(page.ends_with("# EOF\n"));
    }
}
