//! Everything that one seed decides before its world begins. Features are switched on and off per
//! seed, so that each world has a character, and limits are drawn small, so that they are hit.

mod draw;
mod faults;
mod only;

use cereus_core::config::{Catalog, Config, Limits, ModelSpec};
use cereus_core::draw::Seed;
use cereus_core::event::Trust;
use cereus_core::ids::Epoch;
use cereus_core::money::{MicroUsd, Price};
use cereus_core::time::{Span, Tick};

use crate::stream::{Ratio, Stream, narrow};
use draw::{draw_asks, draw_limits, draw_machines, draw_tasks, draw_warm_min, has};
use faults::draw_faults;
pub use faults::{Damage, Fault, FaultKind, Machines, Outage, Whose};
pub use only::{Only, OnlyError, Part};

/// The true length of an answer to a probe.
pub(super) const PROBE_TOKENS: u32 = 9;

/// How a provider misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lie {
    /// Accepts and never starts.
    BlackHole,
    /// Says of every request that it is wrong.
    Blames,
    /// Fails amid every answer.
    Breaks,
    /// Damages every third piece of an answer.
    Damages,
    /// Never heeds a cancel.
    Deaf,
    /// Sends accepted, complete and error frames twice.
    Doubles,
    /// Sends what is no message.
    Garbage,
    /// Answers its first challenge and no other.
    Mute,
    None,
    /// Claims a thousand times the tokens.
    OverClaim,
    /// Sends answers in the clear.
    Plaintext,
    /// Refuses everything.
    Refuses,
    /// Sends every piece of an answer twice.
    Repeats,
    /// Sends pieces of an answer in another order than it made them.
    Swaps,
    /// Seals with a key that nobody knows.
    WrongKey,
}

impl Lie {
    const ALL: [Self; 14] = [
        Self::BlackHole,
        Self::Blames,
        Self::Breaks,
        Self::Damages,
        Self::Deaf,
        Self::Doubles,
        Self::Garbage,
        Self::Mute,
        Self::OverClaim,
        Self::Plaintext,
        Self::Refuses,
        Self::Repeats,
        Self::Swaps,
        Self::WrongKey,
    ];

    /// Whether an answer may come otherwise than its machine made it, and open all the same.
    #[must_use]
    pub const fn garbles(self) -> bool {
        matches!(self, Self::Repeats | Self::Swaps)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedFault {
    pub at: Tick,
    pub fault: Fault,
}

/// One request of the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedAsk {
    pub at: Tick,
    pub account: u32,
    pub model: u16,
    pub prompt_chars: u32,
    pub output_tokens_max: u32,
    /// The simulator's secret.
    pub output_tokens_true: u32,
    /// The consumer goes away after this long.
    pub leaves_after: Option<Span>,
    /// The arrival is repeated after this long.
    pub repeats_after: Option<Span>,
    /// The consumer reads this late.
    pub reads_after: Span,
    pub is_streamed: bool,
}

/// One machine of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedMachine {
    pub chip: u8,
    pub rows_max: u16,
    pub waiting_max: u16,
    pub kv_tokens: u64,
    pub lie: Lie,
    pub joins_at: Tick,
    /// Has a key that signs, so its trust is more than none.
    pub is_attested: bool,
}

/// How the tasks of the coordinator's process take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskPlan {
    /// A task that something waits for runs within this time; which of several is first is drawn.
    pub lag_max: Span,
    /// Now and then one gets no turn for as long as [`Self::stall_max`].
    pub stalls: Ratio,
    pub stall_max: Span,
    /// Events that may wait for the control task before whoever has more waits too.
    pub inbox_max: u16,
    /// Orders that may wait for a connection's task before it is let go.
    pub orders_max: u16,
}

/// How large a world is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// A handful of machines and of requests: most worlds, since most bugs need no more.
    Small,
    /// Up to 64 machines and hundreds of requests.
    Large,
}

/// See the module. Printed with a failing seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub seed: u64,
    pub scale: Scale,
    pub machines: Vec<PlannedMachine>,
    pub models: u16,
    pub accounts: u32,
    pub balance: MicroUsd,
    pub limits: Limits,
    pub asks: Vec<PlannedAsk>,
    pub faults: Vec<TimedFault>,
    pub latency_min: Span,
    pub latency_spread: Span,
    pub disk_min: Span,
    pub disk_spread: Span,
    /// What is on the disk is heard of within this time.
    pub disk_news_max: Span,
    pub tasks: TaskPlan,
    /// Machines that are to hold each model, where they begin without any; `None`: all do, always.
    pub warm_min: Option<u16>,
    /// Heartbeats that are sent again, late.
    pub stale_beats: Ratio,
    /// Each life of the coordinator is recorded, and replayed once it is over.
    pub has_journal: bool,
    /// Faults end and liars come back honest.
    pub heals_at: Tick,
}

impl Plan {
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut shape = Stream::new(seed, "shape");
        let heals_at = Tick(shape.between(15_000_000, 60_000_000));
        let models = narrow(shape.between(1, 2));
        let models = u16::try_from(models).expect("one or two");
        let mut later = Stream::new(seed, "later shape");
        let scale = match later.chance(Ratio::new(1, 50)) {
            true => Scale::Large,
            false => Scale::Small,
        };
        let machines = draw_machines(seed, scale);
        let machines_count = narrow(machines.len() as u64);
        let accounts = narrow(shape.between(1, 3));
        let is_poor = shape.chance(Ratio::new(1, 6));
        let latency_min = Span(shape.pick(&[200, 2_000, 20_000]));
        Self {
            seed,
            scale,
            limits: draw_limits(seed, machines_count),
            asks: draw_asks(seed, scale, accounts, models, heals_at),
            faults: draw_faults(seed, scale, machines_count, heals_at),
            machines,
            models,
            accounts,
            balance: MicroUsd(if is_poor { 400 } else { 10_000_000 }),
            latency_min,
            latency_spread: Span(shape.pick(&[1_000, 30_000, 400_000])),
            disk_min: Span(shape.pick(&[100, 4_000, 60_000])),
            disk_spread: Span(shape.pick(&[1_000, 20_000, 2_000_000])),
            disk_news_max: Span(later.pick(&[0, 1_000, 500_000])),
            stale_beats: if has(&mut shape) {
                Ratio::new(1, 3)
            } else {
                Ratio::NEVER
            },
            has_journal: later.chance(Ratio::new(1, 6)),
            tasks: draw_tasks(seed),
            warm_min: draw_warm_min(seed),
            heals_at,
        }
    }

    /// Whether a machine may send an answer's pieces otherwise than it made them.
    #[must_use]
    pub fn garbles(&self) -> bool {
        self.machines.iter().any(|machine| machine.lie.garbles())
    }

    /// The number of the coordinator's `life`th life.
    #[must_use]
    pub fn epoch(&self, life: u64) -> Epoch {
        Epoch(u32::try_from(life).expect("few lives"))
    }

    /// The coordinator's configuration in its `life`th life.
    #[must_use]
    pub fn core(&self, life: u64) -> Config {
        let spec = |number: u16| ModelSpec {
            id: model_name(number),
            price: Price::DEFAULT,
            context_tokens: 4_096,
            output_tokens_default: 64,
            weights_bytes: 1_000_000_000,
        };
        let catalog = Catalog::new((0..self.models).map(spec).collect());
        Config {
            epoch: self.epoch(life),
            seed: Seed([self.seed, life]),
            catalog: catalog.expect("the names differ"),
            limits: self.limits.clone(),
            fee_percent: 10,
            trust_min: Trust::None,
        }
    }
}

#[must_use]
pub fn model_name(number: u16) -> String {
    format!("model-{number}")
}
