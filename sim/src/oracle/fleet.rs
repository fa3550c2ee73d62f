//! Connections: which are alive, proven and told of what. Events of the dead must change nothing.

use std::collections::{BTreeMap, BTreeSet};

use cereus_core::config::Limits;
use cereus_core::coordinator::{Coordinator, REPORT_AGE_MAX};
use cereus_core::effect::{Effect, Effects};
use cereus_core::event::{Event, SlotReport, SlotState, Thermal, Trust};
use cereus_core::ids::{ConnId, ModelIx};
use cereus_core::time::{Span, Tick};

use super::{Origin, Violation, require};

/// Why a machine that is proven and idle may be closed all the same: what it did, and what it is.
pub const ANSWERED_FOR: [&str; 3] = [
    "barred",
    "below the demanded trust",
    "not enough memory for the model",
];

/// Who refuses again and again rests for a moment.
const REFUSED: &str = "refused since its last report";

/// A timer fires this late at most.
const TIMER_GRAIN: Span = Span::millis(1);

#[derive(Clone, Debug, PartialEq, Eq)]
struct ConnModel {
    /// When it last passed a challenge, unless it failed one since.
    verified_at: Option<Tick>,
    is_distrusted: bool,
    can_seal: bool,
    trust: Trust,
    report_seq: u64,
    /// When it last said how it is; its joining is the first time.
    reported_at: Tick,
    /// Models that it last said to be in memory and idle, where nothing else speaks against it.
    idle: BTreeSet<ModelIx>,
    /// What the machine last said it can run of each model.
    rooms: BTreeMap<ModelIx, Room>,
}

/// Zero: not said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) rows_max: u64,
    pub(super) tokens_max: u64,
}

impl ConnModel {
    fn hear(&mut self, now: Tick, event: &Event<'_>) {
        match event {
            Event::ProviderVerified { .. } => self.verified_at = Some(now),
            Event::ProviderUnverified { .. } => self.verified_at = None,
            Event::ProviderDistrusted { .. } => self.is_distrusted = true,
            Event::ProviderReported { report, slots, .. } => {
                self.report_seq = self.report_seq.max(report.seq);
                self.reported_at = now;
                let is_fit = !report.draining && report.thermal != Thermal::Critical;
                let idle = slots.iter().filter(|slot| is_fit && is_idle(slot));
                self.idle = idle.map(|slot| slot.model).collect();
                self.rooms = slots.iter().map(|slot| (slot.model, room(slot))).collect();
            }
            Event::AccountOpened { .. }
            | Event::AccountCredited { .. }
            | Event::HoldRecovered { .. }
            | Event::Persisted { .. }
            | Event::ProviderJoined { .. }
            | Event::ProviderRestocked { .. }
            | Event::ProviderLeft { .. }
            | Event::ModelLoaded { .. }
            | Event::ModelLoadFailed { .. }
            | Event::Arrived(_)
            | Event::ConsumerLeft { .. }
            | Event::AttemptAccepted { .. }
            | Event::AttemptStarted { .. }
            | Event::AttemptProgressed { .. }
            | Event::AttemptCompleted { .. }
            | Event::AttemptFailed { .. }
            | Event::DrainBegan
            | Event::Woke
            | Event::ModelListed { .. }
            | Event::ModelPriced { .. }
            | Event::ModelRetired { .. }
            | Event::LimitsChanged { .. }
            | Event::ProviderAttested { .. }
            | Event::WarmMinChanged { .. } => {}
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct FleetModel {
    /// For how long a challenge that was passed counts.
    challenge_fresh_max: Span,
    alive: BTreeMap<ConnId, ConnModel>,
    /// Events that were stale, by the model's judgement.
    pub stale: u64,
}

impl FleetModel {
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            challenge_fresh_max: limits.challenge_fresh_max,
            alive: BTreeMap::new(),
            stale: 0,
        }
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.alive.len()
    }

    /// What the machine on `conn` last said it can run of `model`.
    pub(super) fn room(&self, conn: ConnId, model: ModelIx) -> Option<Room> {
        self.alive.get(&conn)?.rooms.get(&model).copied()
    }

    /// Whether an event may change anything: its true speaker is alive, and a report is newer than
    /// the last (INV-10).
    pub(super) fn has_force(&self, origin: Origin, event: &Event<'_>) -> bool {
        let Origin::Connection(conn) = origin else {
            return true;
        };
        match event {
            Event::ProviderJoined { .. } => true,
            Event::ProviderReported { report, .. } => self
                .alive
                .get(&conn)
                .is_some_and(|model| report.seq == 0 || report.seq > model.report_seq),
            Event::ProviderRestocked { .. }
            | Event::ProviderVerified { .. }
            | Event::ProviderUnverified { .. }
            | Event::ProviderDistrusted { .. }
            | Event::ProviderLeft { .. }
            | Event::ProviderAttested { .. }
            | Event::ModelLoaded { .. }
            | Event::ModelLoadFailed { .. }
            | Event::AttemptAccepted { .. }
            | Event::AttemptStarted { .. }
            | Event::AttemptProgressed { .. }
            | Event::AttemptCompleted { .. }
            | Event::AttemptFailed { .. } => self.alive.contains_key(&conn),
            // No connection gives these events, so none can be gone.
            Event::AccountOpened { .. }
            | Event::AccountCredited { .. }
            | Event::HoldRecovered { .. }
            | Event::Persisted { .. }
            | Event::Arrived(_)
            | Event::ConsumerLeft { .. }
            | Event::DrainBegan
            | Event::Woke
            | Event::ModelListed { .. }
            | Event::ModelPriced { .. }
            | Event::ModelRetired { .. }
            | Event::LimitsChanged { .. }
            | Event::WarmMinChanged { .. } => true,
        }
    }

    pub(super) fn enter(&mut self, now: Tick, origin: Origin, event: &Event<'_>, out: &Effects) {
        let Origin::Connection(conn) = origin else {
            return;
        };
        if !self.has_force(origin, event) {
            self.stale += 1;
            return;
        }
        if let Event::ProviderJoined { trust, spec, .. } = event {
            let model = ConnModel {
                verified_at: None,
                is_distrusted: false,
                can_seal: spec.can_seal,
                trust: *trust,
                report_seq: 0,
                reported_at: now,
                idle: BTreeSet::new(),
                rooms: BTreeMap::new(),
            };
            self.alive.insert(conn, model);
        }
        if let Some(model) = self.alive.get_mut(&conn) {
            model.hear(now, event);
        }
        if matches!(event, Event::ProviderLeft { .. }) {
            self.alive.remove(&conn);
        }
        // The core closes a connection that was replaced by a newer one, or refused.
        for effect in &out.list {
            if let Effect::Disconnect { conn, .. } = effect {
                self.alive.remove(conn);
            }
        }
    }

    /// INV-32: a machine whose last challenge passed, and whose last report has room, is open at once,
    /// in whatever order the two came, but for what it answers for.
    pub(super) fn require_open(
        &self,
        now: Tick,
        origin: Origin,
        event: &Event<'_>,
        core: &Coordinator,
    ) -> Result<(), Violation> {
        let is_news = matches!(
            event,
            Event::ProviderReported { .. } | Event::ProviderVerified { .. }
        );
        let Origin::Connection(conn) = origin else {
            return Ok(());
        };
        let Some(model) = self.alive.get(&conn).filter(|_| is_news) else {
            return Ok(());
        };
        let proven_for = model.verified_at.map(|at| now.since(at));
        let is_proven = proven_for.is_some_and(|age| age < self.challenge_fresh_max);
        let is_fit = is_proven && !model.is_distrusted && model.can_seal;
        let is_fresh = now.since(model.reported_at) < REPORT_AGE_MAX;
        if !is_fit || !is_fresh || model.idle.is_empty() {
            return Ok(());
        }
        // One that works for us may have no room for more, whatever it said before.
        let present = core.present(conn).filter(|present| present.pending == 0);
        let offers = present.iter().flat_map(|present| &present.offers);
        let closed = offers.filter(|it| it.others == 0 && model.idle.contains(&it.model));
        let closed = closed.flat_map(|offered| &offered.closed);
        let mut unfounded =
            closed.filter(|reason| !ANSWERED_FOR.contains(reason) && **reason != REFUSED);
        let reason = unfounded.next();
        require(reason.is_none(), "INV-32", || {
            format!("{conn:?} is proven, says that it is idle, and is closed: {reason:?}")
        })
    }

    /// INV-07: work goes to live connections that can seal and have lately proven themselves. INV-10: and to those alone that
    /// have lately said how they are.
    pub(super) fn effect(&self, now: Tick, effect: &Effect) -> Result<(), Violation> {
        let Effect::Dispatch { request, conn, .. } = effect else {
            return Ok(());
        };
        let model = self.alive.get(conn);
        let proven_at = model.and_then(|model| model.verified_at);
        let proven_for = proven_at.map(|at| now.since(at).0);
        let is_recent =
            proven_for.is_some_and(|age| age <= self.challenge_fresh_max.0 + TIMER_GRAIN.0);
        let is_proven =
            is_recent && model.is_some_and(|model| !model.is_distrusted && model.can_seal);
        require(is_proven, "INV-07", || {
            format!("{request} goes to {conn:?}, which is {model:?}")
        })?;
        let age = model.map(|model| now.since(model.reported_at));
        let is_fresh = age.is_some_and(|age| age.0 <= REPORT_AGE_MAX.0 + TIMER_GRAIN.0);
        require(is_fresh, "INV-10", || {
            format!("{request} goes to {conn:?} by a report that is {age:?} old")
        })
    }
}

fn is_idle(slot: &SlotReport) -> bool {
    slot.state == SlotState::Idle && slot.running == 0 && slot.waiting == 0 && !slot.wedged
}

fn room(slot: &SlotReport) -> Room {
    Room {
        rows_max: u64::from(slot.concurrency_max),
        tokens_max: slot.budget_max,
    }
}
