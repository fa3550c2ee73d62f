//! Models that machines were told to load.
//!
//! A model can have a least number of machines that hold it in memory. Where fewer do, one that has
//! it on disk and nothing to do is told to load it: one model at a time for each machine. A machine
//! that failed, or of which nothing was heard, rests before it is told the same again.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::{Candidate, Fleet};
use crate::config::Config;
use crate::draw::Purpose;
use crate::event::SlotState;
use crate::ids::{ConnId, ModelIx};
use crate::memory::loaded_bytes;
use crate::time::{Span, Tick};

/// A load of which nothing was heard for so long has failed: twice what the largest models take.
pub(crate) const LOAD_WAIT_MAX: Span = Span::secs(120);
/// Before a machine is told again what it failed to do; its memory may have room by then.
const REST: Span = Span::secs(120);
/// The same for one that was about to restart.
const REST_DRAINING: Span = Span::secs(30);
/// Machines that one choice looks at.
const INSPECTED_MAX: usize = 256;
/// Of them, of machines that are about equally fast.
const INSPECTED_PER_CLASS_MAX: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Phase {
    Ordered,
    /// Not to be ordered again yet.
    Resting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Load {
    model: ModelIx,
    until: Tick,
    phase: Phase,
}

/// The loads of one connection: at most one for each model that it offers, and at most one that is
/// under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Loads(SmallVec<[Load; 1]>);

/// How a load ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoadEnd {
    Loaded,
    Failed,
    /// The machine is about to restart.
    Draining,
}

/// A machine was chosen to load a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) provider: u32,
    pub(crate) conn: ConnId,
    /// When its timer is due.
    pub(crate) look_at: Tick,
}

impl Loads {
    pub(super) fn under_way(&self) -> Option<ModelIx> {
        let ordered = self.0.iter().find(|load| load.phase == Phase::Ordered);
        ordered.map(|load| load.model)
    }

    fn may_order(&self, model: ModelIx) -> bool {
        self.under_way().is_none() && self.0.iter().all(|load| load.model != model)
    }

    fn put(&mut self, load: Load) {
        self.0.retain(|other| other.model != load.model);
        self.0.push(load);
    }

    fn forget(&mut self, model: ModelIx) {
        self.0.retain(|load| load.model != model);
    }

    fn next_end(&self) -> Option<Tick> {
        self.0.iter().map(|load| load.until).min()
    }
}

impl Fleet {
    pub(crate) fn set_warm_min(&mut self, model: ModelIx, machines: u16) {
        self.supplies[usize::from(model.0)].warm_min = u32::from(machines);
        self.note_short(model);
    }

    /// Models of which too few machines have, or load, the weights, since somebody asked.
    pub(crate) fn take_short(&mut self) -> Option<ModelIx> {
        self.short.pop()
    }

    pub(super) fn note_short(&mut self, model: ModelIx) {
        if self.supply(model).is_short() && !self.short.contains(&model) {
            self.short.push(model);
        }
    }

    /// Chooses a machine that is to load the model, where one is wanted and one is fit: of those that
    /// hold the fewest models, the one whose memory fits best, so that large machines stay free for
    /// large models.
    pub(crate) fn place_load(
        &mut self,
        now: Tick,
        model: ModelIx,
        config: &Config,
    ) -> Option<Placed> {
        let supply = self.supply(model);
        if !supply.is_short() || !config.catalog.is_sold(model) {
            return None;
        }
        let spec = config.catalog.spec(model)?;
        let rank = |candidate: &Candidate| {
            let slot = self.offers.at(candidate.offer).provider;
            let free = self.free_for_load(candidate.offer)?;
            let spare = free.checked_sub(loaded_bytes(spec.weights_bytes))?;
            let offers = self.providers.at(slot).offers.iter();
            let resident = offers.filter(|&&ix| self.offers.at(ix).report.state.is_resident());
            let tag = candidate.machine.0;
            let model = u128::from(model.0);
            let tie = config.seed.draw(Purpose::Load, model, u128::from(tag));
            Some((resident.count(), spare, tie, tag, slot))
        };
        // Cold machines wait the longest, so they stand last in each class.
        let last = |class| {
            let shelves: Vec<&[Candidate]> = supply.pool.shelves(class).collect();
            let last = shelves.into_iter().rev().flatten();
            last.take(INSPECTED_PER_CLASS_MAX)
        };
        let candidates = supply.pool.classes().flat_map(last).take(INSPECTED_MAX);
        let (.., provider) = candidates.filter_map(rank).min()?;
        let until = now + LOAD_WAIT_MAX;
        let chosen = self.providers.at_mut(provider);
        chosen.loads.put(Load {
            model,
            until,
            phase: Phase::Ordered,
        });
        let placed = Placed {
            provider,
            conn: chosen.conn,
            look_at: chosen.loads.next_end().unwrap_or(until),
        };
        self.supplies[usize::from(model.0)].loading += 1;
        Some(placed)
    }

    /// Bytes that an offer's machine has free, if it could be told to load the offer's model now.
    fn free_for_load(&self, ix: u32) -> Option<u64> {
        let offer = self.offers.at(ix);
        let provider = self.providers.at(offer.provider);
        let is_cold = matches!(
            offer.report.state,
            SlotState::Absent | SlotState::IdleShutdown
        );
        let is_idle = provider.pending == 0
            && provider
                .offers
                .iter()
                .all(|&other| self.offers.at(other).load() == 0);
        (is_cold && is_idle && provider.loads.may_order(offer.model))
            .then_some(provider.report.free_for_load_bytes)?
    }

    /// What came of a load. `false`: nobody had asked for it.
    pub(crate) fn end_load(&mut self, now: Tick, slot: u32, model: ModelIx, end: LoadEnd) -> bool {
        let loads = &mut self.providers.at_mut(slot).loads;
        if loads.under_way() != Some(model) {
            return false;
        }
        let rest = match end {
            LoadEnd::Loaded => None,
            LoadEnd::Failed => Some(REST),
            LoadEnd::Draining => Some(REST_DRAINING),
        };
        match rest {
            None => loads.forget(model),
            Some(rest) => loads.put(Load {
                model,
                until: now + rest,
                phase: Phase::Resting,
            }),
        }
        let state = match end {
            LoadEnd::Loaded => SlotState::Idle,
            LoadEnd::Failed | LoadEnd::Draining => SlotState::Absent,
        };
        if let Some(offer) = self.offer_of(slot, model) {
            self.offers.at_mut(offer).report.state = state;
        }
        self.supplies[usize::from(model.0)].loading -= 1;
        self.note_short(model);
        true
    }

    /// A model of this size came into memory, and the machine's last report does not know that yet.
    pub(crate) fn debit_load(&mut self, slot: u32, weights_bytes: u64) {
        let free = &mut self.providers.at_mut(slot).report.free_for_load_bytes;
        *free = free.map(|bytes| bytes.saturating_sub(loaded_bytes(weights_bytes)));
    }

    /// Ends what is overdue by now, and says when to look again.
    pub(crate) fn expire_loads(&mut self, now: Tick, slot: u32) -> Option<Tick> {
        let loads = &self.providers.at(slot).loads;
        let mut due = loads.0.iter().filter(|load| load.until <= now);
        let overdue = due.find(|load| load.phase == Phase::Ordered);
        if let Some(model) = overdue.map(|load| load.model) {
            self.end_load(now, slot, model, LoadEnd::Failed);
        }
        let loads = &mut self.providers.at_mut(slot).loads;
        let rested = loads.0.iter().filter(|load| load.until <= now);
        let rested: SmallVec<[ModelIx; 1]> = rested.map(|load| load.model).collect();
        loads.0.retain(|load| load.until > now);
        let next = loads.next_end();
        for model in rested {
            self.note_short(model);
        }
        next
    }

    /// When a provider's loads are to be looked at.
    pub(crate) fn loads_end_at(&self, slot: u32) -> Option<Tick> {
        self.providers.at(slot).loads.next_end()
    }

    /// The connection is about to go, and its load with it.
    pub(super) fn drop_loads(&mut self, slot: u32) {
        let loads = core::mem::take(&mut self.providers.at_mut(slot).loads);
        if let Some(model) = loads.under_way() {
            self.supplies[usize::from(model.0)].loading -= 1;
            self.note_short(model);
        }
    }

    /// INV-30: each load that is under way is counted, once.
    pub(crate) fn invariant_loads(&self) {
        let under_way = self.providers.iter();
        let under_way: Vec<ModelIx> = under_way
            .filter_map(|(_, provider)| provider.loads.under_way())
            .collect();
        for (model, supply) in (0u16..).map(ModelIx).zip(&self.supplies) {
            let count = under_way.iter().filter(|other| **other == model).count();
            assert_eq!(
                count, supply.loading as usize,
                "INV-30: loads under way are miscounted"
            );
        }
    }
}
