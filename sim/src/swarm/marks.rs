//! Rare branches, counted: whether the worlds reach what they are drawn to reach. All of it is read from
//! events, effects and counters, so that the coordinator knows nothing of it.

use std::collections::BTreeMap;

use cereus_core::coordinator::{Coordinator, Counts, WakeReason};
use cereus_core::denial::Denial;
use cereus_core::effect::{Alarm, Effect, Effects, TransferKind};
use cereus_core::event::{AttemptFault, Ending, Event, GoneCause};
use cereus_core::ids::ConnId;

use super::plan::FaultKind;

/// Something that a world may come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mark {
    Alarm(&'static str),
    /// What broke in the world.
    Broke(FaultKind),
    /// A connection ended for this reason.
    Closed(&'static str),
    /// A step of the coordinator.
    Core(&'static str),
    /// An attempt failed for this reason.
    Failed(&'static str),
    /// A request was turned down by this code.
    Refused(&'static str),
    /// Something in the world around the coordinator.
    World(&'static str),
    Woke(&'static str),
}

const CORE: [&str; 24] = [
    "a charge to one who left got its receipt",
    "a connection that is gone was heard",
    "a hold of an earlier process was voided",
    "a hold was voided after a disconnect",
    "a load failed",
    "a load was ordered",
    "a load was ordered elsewhere",
    "a machine failed its challenge",
    "a machine loaded a model of itself",
    "a machine was distrusted",
    "a machine was lost at work again and again",
    "a report came out of order",
    "a request came twice",
    "a request ended amid its answer",
    "a request waited anew",
    "a second attempt began",
    "a second attempt won",
    "a waiter was shed for another account",
    "an answer that went on beyond its bound was cut",
    "another machine took over",
    "content waited for its hold",
    "more was claimed than was shown",
    "somebody waited for a machine",
    "two processes shared an identity",
];

const WORLD: [&str; 9] = [
    "a clock stood still",
    "a commit was not heard of before a crash",
    "a dial found nobody",
    "a journal was torn before its first checkpoint",
    "a journal was torn in its header",
    "a start found a damaged end of the log",
    "a start found a hole in the log",
    "a write failed",
    "a write was under way at a crash",
];

impl Mark {
    /// Every mark that there is.
    pub fn all() -> impl Iterator<Item = Self> {
        let alarms = ALARMS.into_iter().map(Self::Alarm);
        let broke = FaultKind::ALL.into_iter().map(Self::Broke);
        let closed = CAUSES.into_iter().map(Self::Closed);
        let core = CORE.into_iter().map(Self::Core);
        let failed = FAULTS.into_iter().map(Self::Failed);
        let refused = Denial::CODES.into_iter().map(Self::Refused);
        let world = WORLD.into_iter().map(Self::World);
        let woke = WakeReason::ALL.into_iter().map(|it| Self::Woke(woke(it)));
        let first = alarms.chain(broke).chain(closed).chain(core);
        first.chain(failed).chain(refused).chain(world).chain(woke)
    }

    /// Why no world comes by it, where that is so.
    #[must_use]
    pub fn unreachable(self) -> Option<&'static str> {
        let found = UNREACHABLE.iter().find(|(mark, _)| *mark == self);
        found.map(|(_, why)| *why)
    }
}

impl core::fmt::Display for Mark {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Alarm(name) => write!(f, "alarm: {name}"),
            Self::Broke(kind) => write!(f, "fault: {}", kind.name()),
            Self::Closed(name) => write!(f, "a connection ended: {name}"),
            Self::Core(name) | Self::World(name) => f.write_str(name),
            Self::Failed(name) => write!(f, "an attempt failed: {name}"),
            Self::Refused(code) => write!(f, "turned down: {code}"),
            Self::Woke(name) => write!(f, "woken: {name}"),
        }
    }
}

/// How often each was reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Marks(BTreeMap<Mark, u64>);

impl Marks {
    pub(super) fn hit(&mut self, mark: Mark) {
        self.hits(mark, 1);
    }

    fn hits(&mut self, mark: Mark, count: u64) {
        if count > 0 {
            *self.0.entry(mark).or_default() += count;
        }
    }

    pub fn add(&mut self, other: &Self) {
        for (mark, count) in &other.0 {
            self.hits(*mark, *count);
        }
    }

    #[must_use]
    pub fn count(&self, mark: Mark) -> u64 {
        self.0.get(&mark).copied().unwrap_or(0)
    }

    /// Those that are not reached, and could be.
    pub fn missing(&self) -> impl Iterator<Item = Mark> {
        let missing = Mark::all().filter(|mark| self.count(*mark) == 0);
        missing.filter(|mark| mark.unreachable().is_none())
    }
}

/// Reads marks from what goes in and what comes out of a coordinator.
#[derive(Clone, Debug, Default)]
pub(super) struct Marker {
    pub(super) marks: Marks,
    counts: Counts,
    wakes_for: Option<WakeReason>,
}

impl Marker {
    pub(super) fn see(&mut self, event: &Event<'_>, effects: &Effects, core: &Coordinator) {
        if let (Event::Woke, Some(reason)) = (event, self.wakes_for) {
            self.marks.hit(Mark::Woke(woke(reason)));
        }
        self.wakes_for = core.next_wake().map(|(_, reason)| reason);
        self.compare(*core.counts());
        self.hear(event);
        for effect in &effects.list {
            self.follow(event, effect, effects);
        }
    }

    fn compare(&mut self, counts: Counts) {
        let before = core::mem::replace(&mut self.counts, counts);
        for (name, now, then) in [
            (
                "a connection that is gone was heard",
                counts.stale_events,
                before.stale_events,
            ),
            (
                "a machine loaded a model of itself",
                counts.loads_unasked,
                before.loads_unasked,
            ),
            (
                "a report came out of order",
                counts.stale_reports,
                before.stale_reports,
            ),
            ("a request came twice", counts.duplicates, before.duplicates),
            ("a request waited anew", counts.requeued, before.requeued),
            ("a second attempt began", counts.seconds, before.seconds),
            (
                "a second attempt won",
                counts.seconds_won,
                before.seconds_won,
            ),
            (
                "another machine took over",
                counts.failovers,
                before.failovers,
            ),
            (
                "more was claimed than was shown",
                counts.over_claims,
                before.over_claims,
            ),
            (
                "somebody waited for a machine",
                counts.queued,
                before.queued,
            ),
        ] {
            self.marks.hits(Mark::Core(name), now - then);
        }
    }

    fn hear(&mut self, event: &Event<'_>) {
        let mark = match event {
            Event::AttemptFailed { fault, .. } => Mark::Failed(fault_name(*fault)),
            Event::AttemptCompleted {
                ending: Ending::Cut,
                ..
            } => Mark::Core("an answer that went on beyond its bound was cut"),
            Event::ModelLoadFailed { .. } => Mark::Core("a load failed"),
            Event::ProviderDistrusted { .. } => Mark::Core("a machine was distrusted"),
            Event::ProviderLeft { cause, .. } => Mark::Closed(cause_name(*cause)),
            Event::ProviderUnverified { .. } => Mark::Core("a machine failed its challenge"),
            _ => return,
        };
        self.marks.hit(mark);
    }

    fn follow(&mut self, event: &Event<'_>, effect: &Effect, effects: &Effects) {
        let mark = match *effect {
            Effect::Alarm { alarm, .. } => Mark::Alarm(alarm_name(alarm)),
            Effect::Charge { .. } => Mark::Core("a charge to one who left got its receipt"),
            Effect::Disconnect { cause, .. } => Mark::Closed(cause_name(cause)),
            Effect::Fail { denial, .. } => {
                self.marks.hit(Mark::Refused(denial.code()));
                Mark::Core("a request ended amid its answer")
            }
            Effect::LoadModel { conn, .. } => self.load(event, conn),
            Effect::Post { transfer } => {
                let voids = effects.transfers[transfer as usize].kind == TransferKind::Void;
                match event {
                    Event::HoldRecovered { .. } if voids => {
                        Mark::Core("a hold of an earlier process was voided")
                    }
                    Event::ProviderLeft { .. } if voids => {
                        Mark::Core("a hold was voided after a disconnect")
                    }
                    _ => return,
                }
            }
            Effect::Refuse { request, denial } => {
                self.marks.hit(Mark::Refused(denial.code()));
                match event {
                    Event::Arrived(ask) if ask.request != request => {
                        Mark::Core("a waiter was shed for another account")
                    }
                    _ => return,
                }
            }
            Effect::Release { .. } if matches!(event, Event::Persisted { .. }) => {
                Mark::Core("content waited for its hold")
            }
            Effect::TellContested { .. } => Mark::Core("two processes shared an identity"),
            Effect::TellLossy { .. } => Mark::Core("a machine was lost at work again and again"),
            Effect::CancelAttempt { .. }
            | Effect::Dispatch { .. }
            | Effect::Drained
            | Effect::Finish { .. }
            | Effect::Release { .. } => return,
        };
        self.marks.hit(mark);
    }

    fn load(&mut self, event: &Event<'_>, conn: ConnId) -> Mark {
        self.marks.hit(Mark::Core("a load was ordered"));
        match event {
            Event::ModelLoadFailed { conn: from, .. } | Event::ProviderLeft { conn: from, .. }
                if *from != conn =>
            {
                Mark::Core("a load was ordered elsewhere")
            }
            _ => Mark::Core("a load was ordered"),
        }
    }
}

const ALARMS: [&str; 11] = [
    "accounts full",
    "balance out of bounds",
    "faults forgotten",
    "identity contested",
    "lost at work",
    "models cut",
    "over-claim",
    "proofs full",
    "providers full",
    "requests full",
    "timers full",
];

const fn alarm_name(alarm: Alarm) -> &'static str {
    match alarm {
        Alarm::AccountsFull => ALARMS[0],
        Alarm::BalanceOutOfBounds => ALARMS[1],
        Alarm::FaultsForgotten => ALARMS[2],
        Alarm::IdentityContested => ALARMS[3],
        Alarm::LostAtWork => ALARMS[4],
        Alarm::ModelsCut => ALARMS[5],
        Alarm::OverClaim => ALARMS[6],
        Alarm::ProofsFull => ALARMS[7],
        Alarm::ProvidersFull => ALARMS[8],
        Alarm::RequestsFull => ALARMS[9],
        Alarm::TimersFull => ALARMS[10],
    }
}

const CAUSES: [&str; 7] = [
    "closed",
    "contested",
    "lost",
    "replaced",
    "silent",
    "violation",
    "write stalled",
];

const fn cause_name(cause: GoneCause) -> &'static str {
    match cause {
        GoneCause::Closed => CAUSES[0],
        GoneCause::Contested => CAUSES[1],
        GoneCause::Lost => CAUSES[2],
        GoneCause::Replaced => CAUSES[3],
        GoneCause::Silent => CAUSES[4],
        GoneCause::Violation => CAUSES[5],
        GoneCause::WriteStalled => CAUSES[6],
    }
}

const FAULTS: [&str; 10] = [
    "busy",
    "cancelled",
    "client",
    "consumer stalled",
    "encryption",
    "hold overdue",
    "internal",
    "model unavailable",
    "unsent",
    "answer too large",
];

const fn fault_name(fault: AttemptFault) -> &'static str {
    match fault {
        AttemptFault::Busy => FAULTS[0],
        AttemptFault::Cancelled => FAULTS[1],
        AttemptFault::Client(_) => FAULTS[2],
        AttemptFault::ConsumerStalled => FAULTS[3],
        AttemptFault::Encryption => FAULTS[4],
        AttemptFault::HoldOverdue => FAULTS[5],
        AttemptFault::Internal => FAULTS[6],
        AttemptFault::ModelUnavailable => FAULTS[7],
        AttemptFault::Unsent => FAULTS[8],
        AttemptFault::AnswerTooLarge => FAULTS[9],
    }
}

const fn woke(reason: WakeReason) -> &'static str {
    match reason {
        WakeReason::AcceptOverdue => "nothing was accepted",
        WakeReason::BarLifted => "a bar ended",
        WakeReason::ChallengeExpired => "a challenge grew old",
        WakeReason::FirstContentOverdue => "no content came",
        WakeReason::IdleOverdue => "an answer paused",
        WakeReason::LoadOverdue => "a load took long",
        WakeReason::ParkedOverdue => "somebody kept a place for long",
        WakeReason::ProofExpired => "a proof expired",
        WakeReason::QueueOverdue => "somebody waited for long",
        WakeReason::ReportStale => "a report grew old",
        WakeReason::SecondDue => "a second attempt was due",
    }
}

/// What no world comes by, and why.
const UNREACHABLE: [(Mark, &str); 22] = [
    (Mark::Alarm(ALARMS[0]), "a million accounts have room"),
    (Mark::Alarm(ALARMS[1]), "balances are small"),
    (
        Mark::Alarm(ALARMS[2]),
        "thousands of machines would have to have gone",
    ),
    (Mark::Alarm(ALARMS[3]), NO_TWINS),
    (Mark::Alarm(ALARMS[5]), "a machine has one model or two"),
    (Mark::Alarm(ALARMS[7]), NO_PROOFS),
    (Mark::Alarm(ALARMS[10]), "there is a place for each timer"),
    (Mark::Closed(CAUSES[1]), NO_TWINS),
    (
        Mark::Core("a machine loaded a model of itself"),
        NO_OWN_LOADS,
    ),
    (Mark::Core("two processes shared an identity"), NO_TWINS),
    (Mark::Failed(FAULTS[3]), SHORT),
    (Mark::Failed(FAULTS[5]), SHORT),
    (Mark::Failed(FAULTS[7]), NO_OWN_LOADS),
    (Mark::Failed(FAULTS[9]), SHORT),
    (Mark::Refused("answer_too_large"), SHORT),
    (Mark::Refused("context_length_exceeded"), SHORT),
    (
        Mark::Refused("internal_error"),
        "nothing is wrong with the shell",
    ),
    (Mark::Refused("invalid_api_key"), KNOWN),
    (Mark::Refused("ledger_busy"), SHORT),
    (Mark::Refused("model_not_found"), KNOWN),
    (Mark::Refused("no_provider_suited"), NO_PROOFS),
    (Mark::Woke("a proof expired"), NO_PROOFS),
];

const KNOWN: &str = "who asks is known, and asks for what is sold";
const NO_OWN_LOADS: &str =
    "machines say from the start what they hold, and tell of no load before it is ordered";
const NO_PROOFS: &str = "requests demand no proof";
const NO_TWINS: &str = "no machine has two processes";
const SHORT: &str = "prompts and answers are short";
