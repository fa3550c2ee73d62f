//! The network between coordinator and machines: latency, and loss as TCP shows it, a late resend.
//! What one side sent first arrives first.

use cereus_core::time::{Span, Tick};

use crate::stream::{Ratio, Stream};

/// How links behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetConfig {
    pub latency_min: Span,
    /// Added to the least latency, uniformly.
    pub latency_spread: Span,
    pub loss: Ratio,
    /// A lost message is sent again so much later, and each time that it is lost again after twice
    /// the time before.
    pub resend_after: Span,
}

impl NetConfig {
    /// By how much a message may come late.
    #[must_use]
    pub fn resends_max(&self) -> Span {
        match self.loss.num {
            0 => Span::ZERO,
            _ => Span(self.resend_after.0 * ((1 << RESENDS_MAX) - 1)),
        }
    }
}

/// A link that loses more in a row would be closed.
const RESENDS_MAX: u32 = 3;

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToCoordinator,
    ToMachine,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Net {
    config: NetConfig,
    latency: Stream,
    loss: Stream,
    /// Latest arrival on each machine's link, by way.
    latest: Vec<[Tick; 2]>,
    pub messages: u64,
    pub resends: u64,
}

impl Net {
    #[must_use]
    pub fn new(config: NetConfig, seed: u64, machines: usize) -> Self {
        Self {
            config,
            latency: Stream::new(seed, "latency"),
            loss: Stream::new(seed, "loss"),
            latest: vec![[Tick::ZERO; 2]; machines],
            messages: 0,
            resends: 0,
        }
    }

    /// When a message sent now arrives.
    pub fn arrival(&mut self, now: Tick, machine: usize, way: Way) -> Tick {
        self.messages += 1;
        let mut at = now + self.latency();
        let mut wait = self.config.resend_after;
        for _ in 0..RESENDS_MAX {
            if self.config.loss.num == 0 || !self.loss.chance(self.config.loss) {
                break;
            }
            self.resends += 1;
            at = at + wait;
            wait = wait + wait;
        }
        let lane = match way {
            Way::ToCoordinator => 0,
            Way::ToMachine => 1,
        };
        let latest = &mut self.latest[machine][lane];
        *latest = at.max(*latest);
        *latest
    }

    /// One way between a consumer and the coordinator.
    pub fn latency(&mut self) -> Span {
        let spread = self.latency.below(self.config.latency_spread.0 + 1);
        self.config.latency_min + Span(spread)
    }
}
