//! What breaks, and when.

use cereus_core::time::{Span, Tick};

use super::{Scale, TimedFault};
use crate::stream::{Ratio, Stream, narrow};

/// What breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A process's clock jumps. A clock that would go back stands still instead, as a monotonic one
    /// does, until time has caught up with it.
    Clock { whose: Whose, jump_us: i64 },
    /// The machine's link becomes slow.
    Clog {
        machine: u32,
        extra: Span,
        lasts: Span,
    },
    /// The coordinator's process dies and comes back from its store. What of a write that was under
    /// way is in the log is drawn.
    CoordinatorCrash { down: Span },
    /// The coordinator's process is asked to end, takes nothing new for so long, and comes back.
    CoordinatorDrain { lasts: Span },
    /// The provider's process dies; the other end of its socket hears of it late.
    Crash {
        machine: u32,
        down: Span,
        heard_after: Span,
    },
    /// The socket dies; both ends hear of it, each at its time.
    Cut { machine: u32, heard_after: Span },
    /// The machine under the coordinator dies, and what its disk had promised is not all there.
    DiskDamage { damage: Damage, down: Span },
    /// The store answers late.
    DiskStall { lasts: Span },
    /// The provider's process is asked to end; it finishes what it has and comes back.
    Drain { machine: u32 },
    /// Nothing passes between these machines and the coordinator for a while, and nobody is told.
    Partition {
        machines: Machines,
        lasts: Span,
        outage: Outage,
    },
    /// The next write of the log fails, so the coordinator's process ends.
    WriteError,
}

/// Whose clock it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    Coordinator,
    Machine(u32),
}

/// What a disk makes of the last lines of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// One line that is not the last is gone, and whole ones follow it.
    Hole { lines: u8 },
    /// The last line ends in its middle.
    Torn,
    /// The last lines are zeros.
    Zeroed { lines: u8 },
}

/// What becomes of the sockets across a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// What was sent arrives once it has healed.
    Delivers,
    /// They are dead for good, and no end hears of it.
    Silent,
}

/// A set of machines, one bit for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machines(pub u64);

impl Machines {
    #[must_use]
    pub const fn has(self, machine: u32) -> bool {
        self.0 >> (machine & 63) & 1 == 1
    }
}

/// Kinds of faults, each of which a world has or has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    Clock,
    Clog,
    CoordinatorCrash,
    CoordinatorDrain,
    Crash,
    Cut,
    DiskDamage,
    DiskStall,
    Drain,
    Partition,
    WriteError,
}

impl FaultKind {
    pub const ALL: [Self; 11] = [
        Self::Clock,
        Self::Clog,
        Self::CoordinatorCrash,
        Self::CoordinatorDrain,
        Self::Crash,
        Self::Cut,
        Self::DiskDamage,
        Self::DiskStall,
        Self::Drain,
        Self::Partition,
        Self::WriteError,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clock => "clock",
            Self::Clog => "clog",
            Self::CoordinatorCrash => "coordinator-crash",
            Self::CoordinatorDrain => "coordinator-drain",
            Self::Crash => "crash",
            Self::Cut => "cut",
            Self::DiskDamage => "disk-damage",
            Self::DiskStall => "disk-stall",
            Self::Drain => "drain",
            Self::Partition => "partition",
            Self::WriteError => "write-error",
        }
    }

    /// How many of so many worlds have it.
    const fn odds(self) -> Ratio {
        match self {
            Self::Clog | Self::Crash | Self::Cut | Self::DiskStall | Self::Drain => {
                Ratio::new(1, 2)
            }
            Self::Clock
            | Self::CoordinatorCrash
            | Self::CoordinatorDrain
            | Self::DiskDamage
            | Self::Partition
            | Self::WriteError => Ratio::new(1, 4),
        }
    }
}

impl Fault {
    #[must_use]
    pub const fn kind(&self) -> FaultKind {
        match self {
            Self::Clock { .. } => FaultKind::Clock,
            Self::Clog { .. } => FaultKind::Clog,
            Self::CoordinatorCrash { .. } => FaultKind::CoordinatorCrash,
            Self::CoordinatorDrain { .. } => FaultKind::CoordinatorDrain,
            Self::Crash { .. } => FaultKind::Crash,
            Self::Cut { .. } => FaultKind::Cut,
            Self::DiskDamage { .. } => FaultKind::DiskDamage,
            Self::DiskStall { .. } => FaultKind::DiskStall,
            Self::Drain { .. } => FaultKind::Drain,
            Self::Partition { .. } => FaultKind::Partition,
            Self::WriteError => FaultKind::WriteError,
        }
    }
}

pub(super) fn draw_faults(
    seed: u64,
    scale: Scale,
    machines: u32,
    heals_at: Tick,
) -> Vec<TimedFault> {
    let mut stream = Stream::new(seed, "faults");
    let mut kinds = FaultKind::ALL.to_vec();
    kinds.retain(|kind| stream.chance(kind.odds()));
    let most = match scale {
        Scale::Small => 12,
        Scale::Large => 40,
    };
    let count = if kinds.is_empty() {
        0
    } else {
        stream.below(most)
    };
    let mut faults: Vec<TimedFault> = (0..count)
        .map(|_| {
            let at = Tick(stream.between(1_000_000, heals_at.0));
            let kind = stream.pick(&kinds);
            let fault = draw(&mut stream, kind, machines, heals_at.since(at));
            TimedFault { at, fault }
        })
        .collect();
    faults.sort_by_key(|timed| timed.at);
    faults
}

/// `left` is the time until everything heals.
fn draw(stream: &mut Stream, kind: FaultKind, machines: u32, left: Span) -> Fault {
    let machine = narrow(stream.below(u64::from(machines)));
    let heard_after = Span(stream.pick(&[1_000, 500_000, 15_000_000]));
    let down = Span(stream.pick(&[1_000, 700_000, 8_000_000]));
    let lasts = Span(stream.below(10_000_000));
    match kind {
        FaultKind::Clock => Fault::Clock {
            // The coordinator's decides more, and it has but one.
            whose: match stream.chance(Ratio::new(3, 4)) {
                true => Whose::Coordinator,
                false => Whose::Machine(machine),
            },
            jump_us: stream.pick(&[
                2_000_000,
                // Past the age of a report, and past that of a challenge.
                40_000_000,
                90_000_000,
                1_200_000_000,
                1_200_000_000,
                -3_000_000,
                -20_000_000,
            ]),
        },
        FaultKind::Clog => Fault::Clog {
            machine,
            extra: Span(stream.below(3_000_000)),
            lasts,
        },
        FaultKind::CoordinatorCrash => Fault::CoordinatorCrash { down },
        FaultKind::CoordinatorDrain => Fault::CoordinatorDrain {
            lasts: Span(lasts.0.min(left.0)),
        },
        FaultKind::Crash => Fault::Crash {
            machine,
            down,
            heard_after,
        },
        FaultKind::Cut => Fault::Cut {
            machine,
            heard_after,
        },
        FaultKind::DiskDamage => {
            let lines = u8::try_from(stream.between(1, 4)).expect("few lines");
            let damages = [
                Damage::Hole { lines },
                Damage::Torn,
                Damage::Zeroed { lines },
            ];
            let damage = stream.pick(&damages);
            Fault::DiskDamage { damage, down }
        }
        FaultKind::DiskStall => Fault::DiskStall { lasts },
        FaultKind::Drain => Fault::Drain { machine },
        FaultKind::Partition => Fault::Partition {
            machines: draw_several(stream, machines, machine),
            lasts: Span(
                stream
                    .pick(&[1_500_000, 15_000_000, 50_000_000])
                    .min(left.0),
            ),
            outage: stream.pick(&[Outage::Delivers, Outage::Silent]),
        },
        FaultKind::WriteError => Fault::WriteError,
    }
}

/// One machine, about half of them, or all: what shares a switch, a site or a provider.
fn draw_several(stream: &mut Stream, machines: u32, one: u32) -> Machines {
    let all = u64::MAX >> 64u32.saturating_sub(machines).min(63);
    let some = (stream.word() | 1 << one) & all;
    Machines(stream.pick(&[1 << one, some, all]))
}
