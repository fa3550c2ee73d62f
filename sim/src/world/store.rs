//! The store: transfers become durable in group commits, one write at a time.

use cereus_core::time::{Span, Tick};

use crate::stream::Stream;

/// How long a write takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StoreConfig {
    pub write_min: Span,
    pub write_spread: Span,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Store {
    config: StoreConfig,
    stream: Stream,
    posted: u64,
    writing: Option<u64>,
    durable: u64,
    pub writes: u64,
}

impl Store {
    #[must_use]
    pub fn new(config: StoreConfig, seed: u64) -> Self {
        Self {
            config,
            stream: Stream::new(seed, "store"),
            posted: 0,
            writing: None,
            durable: 0,
            writes: 0,
        }
    }

    pub fn post(&mut self, seq: u64) {
        assert_eq!(seq, self.posted + 1, "transfers are numbered without a gap");
        self.posted = seq;
    }

    /// Begins the next write, if none is under way and something waits. Returns when it ends.
    pub fn begin(&mut self, now: Tick) -> Option<Tick> {
        if self.writing.is_some() || self.posted == self.durable {
            return None;
        }
        self.writing = Some(self.posted);
        self.writes += 1;
        let spread = self.stream.below(self.config.write_spread.0 + 1);
        Some(now + self.config.write_min + Span(spread))
    }

    /// The write ended: everything up to the returned number is durable.
    pub fn written(&mut self) -> u64 {
        self.durable = self.writing.take().expect("a write was under way");
        self.durable
    }

    #[must_use]
    pub const fn is_quiet(&self) -> bool {
        self.writing.is_none() && self.posted == self.durable
    }
}
