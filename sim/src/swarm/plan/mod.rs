//! Everything that one seed decides before its world begins. Features are switched on and off per
//! seed, so that each world has a character, and limits are drawn small, so that they are hit.

use cereus_core::config::{Catalog, Config, Limits, ModelSpec};
use cereus_core::draw::Seed;
use cereus_core::event::Trust;
use cereus_core::ids::Epoch;
use cereus_core::money::{MicroUsd, Price};
use cereus_core::time::{Span, Tick};

use crate::stream::{Ratio, Stream, narrow};

/// The true length of an answer to a probe.
pub(super) const PROBE_TOKENS: u32 = 9;

/// How a provider misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lie {
    /// Accepts and never starts.
    BlackHole,
    /// Never heeds a cancel.
    Deaf,
    /// Sends accepted, complete and error frames twice.
    Doubles,
    /// Sends what is no message.
    Garbage,
    None,
    /// Claims a thousand times the tokens.
    OverClaim,
    /// Sends answers in the clear.
    Plaintext,
    /// Refuses everything.
    Refuses,
    /// Seals with a key that nobody knows.
    WrongKey,
}

impl Lie {
    const ALL: [Self; 8] = [
        Self::BlackHole,
        Self::Deaf,
        Self::Doubles,
        Self::Garbage,
        Self::OverClaim,
        Self::Plaintext,
        Self::Refuses,
        Self::WrongKey,
    ];
}

/// What breaks, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The machine's link becomes slow.
    Clog {
        machine: u32,
        extra: Span,
        lasts: Span,
    },
    /// The provider's process dies; the other end of its socket hears of it late.
    Crash {
        machine: u32,
        down: Span,
        heard_after: Span,
    },
    /// The socket dies; both ends hear of it, each at its time.
    Cut { machine: u32, heard_after: Span },
    /// The provider's process is asked to end; it finishes what it has and comes back.
    Drain { machine: u32 },
    /// The store answers late.
    DiskStall { lasts: Span },
    /// The coordinator's process dies and comes back from its store.
    CoordinatorCrash { down: Span },
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

/// See the module. Printed with a failing seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub seed: u64,
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
    pub tasks: TaskPlan,
    /// Machines that are to hold each model, where they begin without any; `None`: all do, always.
    pub warm_min: Option<u16>,
    /// Heartbeats that are sent again, late.
    pub stale_beats: Ratio,
    /// Faults end and liars come back honest.
    pub heals_at: Tick,
}

/// A switch of this seed: half of all worlds have the feature.
fn has(stream: &mut Stream) -> bool {
    stream.chance(Ratio::new(1, 2))
}

impl Plan {
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut shape = Stream::new(seed, "shape");
        let heals_at = Tick(shape.between(15_000_000, 60_000_000));
        let models = narrow(shape.between(1, 2));
        let models = u16::try_from(models).expect("one or two");
        let machines = draw_machines(seed);
        let accounts = narrow(shape.between(1, 3));
        let is_poor = shape.chance(Ratio::new(1, 6));
        let latency_min = Span(shape.pick(&[200, 2_000, 20_000]));
        Self {
            seed,
            limits: draw_limits(seed, narrow(machines.len() as u64)),
            asks: draw_asks(seed, accounts, models, heals_at),
            faults: draw_faults(seed, narrow(machines.len() as u64), heals_at),
            machines,
            models,
            accounts,
            balance: MicroUsd(if is_poor { 400 } else { 10_000_000 }),
            latency_min,
            latency_spread: Span(shape.pick(&[1_000, 30_000, 400_000])),
            disk_min: Span(shape.pick(&[100, 4_000, 60_000])),
            disk_spread: Span(shape.pick(&[1_000, 20_000, 2_000_000])),
            stale_beats: if has(&mut shape) {
                Ratio::new(1, 3)
            } else {
                Ratio::NEVER
            },
            tasks: draw_tasks(seed),
            warm_min: draw_warm_min(seed),
            heals_at,
        }
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

fn draw_warm_min(seed: u64) -> Option<u16> {
    let mut stream = Stream::new(seed, "warm");
    has(&mut stream).then(|| u16::try_from(stream.below(3)).expect("few machines"))
}

fn draw_machines(seed: u64) -> Vec<PlannedMachine> {
    let mut stream = Stream::new(seed, "machines");
    let has_liars = has(&mut stream);
    let has_attested = stream.chance(Ratio::new(1, 8));
    let count = stream.between(1, 4);
    let one = |_| PlannedMachine {
        chip: u8::try_from(stream.below(3)).expect("three chips"),
        rows_max: u16::try_from(stream.between(1, 4)).expect("few rows"),
        waiting_max: stream.pick(&[1, 4, 16]),
        kv_tokens: stream.pick(&[700, 4_096, 40_000]),
        lie: if has_liars && has(&mut stream) {
            stream.pick(&Lie::ALL)
        } else {
            Lie::None
        },
        joins_at: Tick(stream.below(3_000_000)),
        is_attested: has_attested,
    };
    (0..count).map(one).collect()
}

fn draw_tasks(seed: u64) -> TaskPlan {
    let mut stream = Stream::new(seed, "task plan");
    let stalls = [Ratio::NEVER, Ratio::new(1, 30), Ratio::new(1, 300)];
    TaskPlan {
        lag_max: Span(stream.pick(&[0, 50, 2_000, 50_000])),
        stalls: stream.pick(&stalls),
        stall_max: Span(stream.pick(&[300_000, 3_000_000])),
        inbox_max: stream.pick(&[1, 8, 16_384]),
        orders_max: stream.pick(&[1, 4, 1_024]),
    }
}

fn draw_limits(seed: u64, machines: u32) -> Limits {
    let mut stream = Stream::new(seed, "limits");
    let is_tight = has(&mut stream);
    let tight = |narrow_to: u32, wide: u32| if is_tight { narrow_to } else { wide };
    Limits {
        providers_max: tight(machines.saturating_sub(1).max(1), 64),
        requests_max: tight(stream.pick(&[2, 8]), 4_096),
        queue_depth_max: stream.pick(&[1, 3, 256]),
        queue_wait_max: Span::secs(stream.pick(&[2, 10])),
        accept_wait_max: Span::millis(stream.pick(&[800, 4_000])),
        first_content_wait_max: Span::secs(stream.pick(&[5, 20])),
        idle_wait_max: Span::secs(stream.pick(&[5, 20])),
        attempts_max: u8::try_from(stream.between(1, 4)).expect("few"),
        capacity_refusals_max: u8::try_from(stream.between(1, 3)).expect("few"),
        challenge_fresh_max: Span::secs(stream.pick(&[20, 960])),
        candidates_max: u8::try_from(stream.between(1, 4)).expect("few"),
        second_attempt_percent: stream.pick(&[0, 0, 5, 50]),
        ..Limits::reference()
    }
}

fn draw_asks(seed: u64, accounts: u32, models: u16, heals_at: Tick) -> Vec<PlannedAsk> {
    let mut stream = Stream::new(seed, "asks");
    let has_leavers = has(&mut stream);
    let has_repeats = has(&mut stream);
    let has_slow_readers = has(&mut stream);
    let is_bursty = has(&mut stream);
    let output_tokens_most = stream.pick(&[30, 200, 900]);
    let count = stream.between(3, 30);
    let mut at = 4_000_000;
    let mut asks = Vec::new();
    for _ in 0..count {
        let mean_us = heals_at.0 / count;
        at += stream.exponential(if is_bursty { mean_us / 8 } else { mean_us });
        let output_tokens_max = narrow(stream.between(1, output_tokens_most));
        asks.push(PlannedAsk {
            at: Tick(at),
            account: narrow(stream.below(u64::from(accounts))),
            model: u16::try_from(stream.below(u64::from(models))).expect("few models"),
            prompt_chars: stream.pick(&[4, 100, 1_500]),
            output_tokens_max,
            output_tokens_true: narrow(stream.between(1, u64::from(output_tokens_max) * 2)),
            leaves_after: (has_leavers && stream.chance(Ratio::new(1, 3)))
                .then(|| Span(stream.below(4_000_000))),
            repeats_after: (has_repeats && stream.chance(Ratio::new(1, 3)))
                .then(|| Span(stream.below(2_000_000))),
            reads_after: Span(if has_slow_readers && stream.chance(Ratio::new(1, 3)) {
                stream.below(1_500_000)
            } else {
                0
            }),
            is_streamed: stream.chance(Ratio::new(4, 5)),
        });
    }
    asks
}

fn draw_faults(seed: u64, machines: u32, heals_at: Tick) -> Vec<TimedFault> {
    let mut stream = Stream::new(seed, "faults");
    let kinds = [
        has(&mut stream),
        has(&mut stream),
        has(&mut stream),
        has(&mut stream),
        stream.chance(Ratio::new(1, 4)),
        has(&mut stream),
    ];
    let count = stream.below(12);
    let mut faults = Vec::new();
    for _ in 0..count {
        let at = Tick(stream.between(1_000_000, heals_at.0));
        let machine = narrow(stream.below(u64::from(machines)));
        let heard_after = Span(stream.pick(&[1_000, 500_000, 15_000_000]));
        let down = Span(stream.pick(&[1_000, 700_000, 8_000_000]));
        let lasts = Span(stream.below(10_000_000));
        let kind = usize::try_from(stream.below(6)).expect("six kinds");
        if !kinds[kind] {
            continue;
        }
        let fault = match kind {
            0 => Fault::Clog {
                machine,
                extra: Span(stream.below(3_000_000)),
                lasts,
            },
            1 => Fault::Crash {
                machine,
                down,
                heard_after,
            },
            2 => Fault::Cut {
                machine,
                heard_after,
            },
            3 => Fault::DiskStall { lasts },
            4 => Fault::CoordinatorCrash { down },
            _ => Fault::Drain { machine },
        };
        faults.push(TimedFault { at, fault });
    }
    faults.sort_by_key(|timed| timed.at);
    faults
}
