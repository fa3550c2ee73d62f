//! Requests and attempts: each ends exactly once, and none is given up behind its provider's back.

use std::collections::BTreeMap;

use cereus_core::config::Limits;
use cereus_core::effect::{Effect, Effects, Receipt};
use cereus_core::event::{Delivery, Event};
use cereus_core::ids::{AttemptKey, ConnId, ModelIx, RequestId};

use super::fleet::{FleetModel, Room};
use super::money::MoneyModel;
use super::{Violation, require};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AttemptModel {
    request: RequestId,
    conn: ConnId,
    /// The provider was told to stop.
    is_cancelled: bool,
    /// Content of it has come.
    has_started: bool,
    model: ModelIx,
    need_tokens: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct AskModel {
    is_streamed: bool,
    is_released: bool,
    attempts: u8,
    model: ModelIx,
    need_tokens: u64,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct RequestModel {
    open: BTreeMap<RequestId, AskModel>,
    attempts: BTreeMap<AttemptKey, AttemptModel>,
    arrived: u64,
    ended: u64,
    attempts_max: u8,
    /// Whether a request may have two attempts at a time.
    has_seconds: bool,
}

impl RequestModel {
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            attempts_max: limits.attempts_max,
            has_seconds: limits.second_attempt_percent > 0,
            ..Self::default()
        }
    }

    #[must_use]
    pub fn open(&self) -> usize {
        self.open.len()
    }

    #[must_use]
    pub const fn arrived(&self) -> u64 {
        self.arrived
    }

    #[must_use]
    pub const fn ended(&self) -> u64 {
        self.ended
    }

    #[must_use]
    pub fn is_open(&self, request: RequestId) -> bool {
        self.open.contains_key(&request)
    }

    /// INV-16: a repeated arrival changes nothing.
    pub(super) fn has_force(&self, event: &Event<'_>) -> bool {
        match event {
            Event::Arrived(ask) => !self.open.contains_key(&ask.request),
            Event::AccountOpened { .. }
            | Event::AccountCredited { .. }
            | Event::HoldRecovered { .. }
            | Event::Persisted { .. }
            | Event::ProviderJoined { .. }
            | Event::ProviderRestocked { .. }
            | Event::ProviderVerified { .. }
            | Event::ProviderUnverified { .. }
            | Event::ProviderDistrusted { .. }
            | Event::ProviderReported { .. }
            | Event::ProviderLeft { .. }
            | Event::ModelLoaded { .. }
            | Event::ModelLoadFailed { .. }
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
            | Event::WarmMinChanged { .. } => true,
        }
    }

    pub(super) fn enter(&mut self, event: &Event<'_>) -> Result<(), Violation> {
        match event {
            Event::Arrived(ask) => {
                if self.open.contains_key(&ask.request) {
                    return Ok(());
                }
                self.arrived += 1;
                let need = u64::from(ask.prompt_tokens) + u64::from(ask.output_tokens_max);
                let model = AskModel {
                    is_streamed: ask.delivery == Delivery::Streamed,
                    model: ask.model,
                    need_tokens: need,
                    ..AskModel::default()
                };
                self.open.insert(ask.request, model);
            }
            Event::AttemptCompleted { conn, attempt, .. }
            | Event::AttemptFailed { conn, attempt, .. } => {
                let model = self.attempts.remove(attempt);
                if let Some(model) = model.filter(|model| model.conn != *conn) {
                    self.attempts.insert(*attempt, model);
                }
            }
            Event::AttemptStarted { conn, attempt } => {
                let model = self.attempts.get_mut(attempt);
                if let Some(model) = model.filter(|model| model.conn == *conn) {
                    model.has_started = true;
                }
            }
            Event::ProviderLeft { conn, .. } => self.drop_conn(*conn),
            Event::AccountOpened { .. }
            | Event::AccountCredited { .. }
            | Event::HoldRecovered { .. }
            | Event::Persisted { .. }
            | Event::ProviderJoined { .. }
            | Event::ProviderRestocked { .. }
            | Event::ProviderVerified { .. }
            | Event::ProviderUnverified { .. }
            | Event::ProviderDistrusted { .. }
            | Event::ProviderReported { .. }
            | Event::ModelLoaded { .. }
            | Event::ModelLoadFailed { .. }
            | Event::ConsumerLeft { .. }
            | Event::AttemptAccepted { .. }
            | Event::AttemptProgressed { .. }
            | Event::DrainBegan
            | Event::Woke
            | Event::ModelListed { .. }
            | Event::ModelPriced { .. }
            | Event::ModelRetired { .. }
            | Event::LimitsChanged { .. }
            | Event::ProviderAttested { .. }
            | Event::WarmMinChanged { .. } => {}
        }
        Ok(())
    }

    /// INV-02, INV-05, INV-08, INV-14, INV-22.
    pub(super) fn effect(
        &mut self,
        effect: &Effect,
        out: &Effects,
        money: &MoneyModel,
        fleet: &FleetModel,
    ) -> Result<(), Violation> {
        match *effect {
            Effect::Dispatch {
                request,
                attempt,
                conn,
                ..
            } => {
                self.require_room_beside(request)?;
                let Some(ask) = self.open.get_mut(&request) else {
                    return Err(late(request));
                };
                ask.attempts += 1;
                require(ask.attempts <= self.attempts_max, "INV-14", || {
                    format!("{request} is tried {} times", ask.attempts)
                })?;
                let model = AttemptModel {
                    request,
                    conn,
                    is_cancelled: false,
                    has_started: false,
                    model: ask.model,
                    need_tokens: ask.need_tokens,
                };
                self.attempts.insert(attempt, model);
                self.require_room(fleet.room(conn, model.model), &model)?;
            }
            Effect::CancelAttempt { attempt, .. } => {
                if let Some(model) = self.attempts.get_mut(&attempt) {
                    model.is_cancelled = true;
                }
            }
            Effect::Release { request, attempt } => {
                self.require_winner(request, attempt)?;
                require(money.is_hold_durable(request), "INV-05", || {
                    format!("{request} is released before its hold is durable")
                })?;
                let Some(ask) = self.open.get_mut(&request) else {
                    return Err(late(request));
                };
                require(!ask.is_released, "INV-05", || {
                    format!("{request} is released twice")
                })?;
                ask.is_released = true;
            }
            Effect::Charge { request, receipt } => {
                require_durable(request, &out.receipts[receipt as usize], money)?;
                require(!self.is_open(request), "INV-02", || {
                    format!("{request} is charged as one that has ended, and goes on")
                })?;
            }
            Effect::Refuse { request, .. } => self.end(request)?,
            Effect::Fail { request, .. } => self.end(request)?,
            Effect::Finish { request, receipt } => {
                require_durable(request, &out.receipts[receipt as usize], money)?;
                self.end(request)?;
            }
            // The connection that a machine's newer one replaces: what ran on it has no machine any
            // more.
            Effect::Disconnect { conn, .. } => self.drop_conn(conn),
            Effect::Alarm { .. }
            | Effect::Drained
            | Effect::LoadModel { .. }
            | Effect::Post { .. }
            | Effect::TellContested { .. }
            | Effect::TellLossy { .. } => {}
        }
        Ok(())
    }

    fn end(&mut self, request: RequestId) -> Result<(), Violation> {
        if self.open.remove(&request).is_none() {
            return Err(late(request));
        }
        self.ended += 1;
        self.require_abandoned(request)
    }

    /// INV-22: nobody works for a request that has moved on without having been told to stop.
    fn require_abandoned(&self, request: RequestId) -> Result<(), Violation> {
        let mut live = self.attempts.values();
        let forgotten = live.find(|model| model.request == request && !model.is_cancelled);
        require(forgotten.is_none(), "INV-22", || {
            format!("{request} moves on and {forgotten:?} was never cancelled")
        })
    }

    /// INV-25: a second attempt runs beside one that has shown nothing, where the limits allow it.
    /// What was gathered of a plain answer that broke off is shown to nobody.
    fn require_room_beside(&self, request: RequestId) -> Result<(), Violation> {
        let others = self.live_of(request).count();
        let mut live = self.live_of(request);
        let has_started = live.any(|attempt| self.attempts[&attempt].has_started);
        let ask = self.open.get(&request);
        let is_shown = ask.is_some_and(|ask| ask.is_released && ask.is_streamed);
        let most = usize::from(self.has_seconds && !is_shown && !has_started);
        require(others <= most, "INV-25", || {
            format!("{request} is sent out beside {others} attempts")
        })
    }

    /// INV-25: what the consumer may see is of one live attempt, and nobody else is at it.
    fn require_winner(&self, request: RequestId, winner: AttemptKey) -> Result<(), Violation> {
        let live: Vec<AttemptKey> = self.live_of(request).collect();
        require(live == [winner], "INV-25", || {
            format!("{request} is released for {winner:?} while {live:?} are out")
        })
    }

    /// The attempts of a request that are out and were not told to stop.
    fn live_of(&self, request: RequestId) -> impl Iterator<Item = AttemptKey> {
        let live = self.attempts.iter();
        let live = live.filter(move |(_, it)| it.request == request && !it.is_cancelled);
        live.map(|(key, _)| *key)
    }

    /// INV-08: what was sent and neither ended nor was given up fits what the machine last said.
    fn require_room(&self, room: Option<Room>, new: &AttemptModel) -> Result<(), Violation> {
        let Some(room) = room else {
            return Ok(());
        };
        let there = self.attempts.values().filter(|other| {
            other.conn == new.conn && other.model == new.model && !other.is_cancelled
        });
        let (rows, tokens) = there.fold((0, 0), |(rows, tokens), other| {
            (rows + 1, tokens + other.need_tokens)
        });
        let fits = (room.rows_max == 0 || rows <= room.rows_max)
            && (room.tokens_max == 0 || tokens <= room.tokens_max);
        require(fits, "INV-08", || {
            format!(
                "{:?} gets {rows} rows of {tokens} tokens into {room:?}",
                new.conn
            )
        })
    }

    fn drop_conn(&mut self, conn: ConnId) {
        self.attempts.retain(|_, model| model.conn != conn);
    }
}

/// INV-05: a receipt says what is on disk.
fn require_durable(
    request: RequestId,
    receipt: &Receipt,
    money: &MoneyModel,
) -> Result<(), Violation> {
    let durable = money.durable_charge(request);
    require(durable == Some(receipt.charged.0), "INV-05", || {
        format!("{request} has a receipt before its settlement is durable")
    })
}

fn late(request: RequestId) -> Violation {
    Violation {
        law: "INV-02",
        what: format!("{request} goes on after its end"),
    }
}
