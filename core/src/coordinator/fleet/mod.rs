//! The fleet: providers, what they offer, and one ledger of what each offer still has room for.
//!
//! Every reservation debits the ledger at once; every report reconciles it. Frames of one socket
//! arrive in order, so a report reflects exactly the attempts that were accepted before it: whatever
//! it counts beyond these is foreign work. Labels such as "serving" are derived, never stored.
//!
//! `ledger` holds debits and credits, `estimate` derives gates and expected waits, `index` keeps each
//! model's `supply` in line, `memory` knows machines whatever their connection and `standing` what
//! their conduct is worth.

mod estimate;
mod index;
mod ledger;
mod memory;
mod offer;
mod standing;
mod supply;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

pub(crate) use self::ledger::Load;
pub(crate) use self::memory::Handover;
use self::memory::Memory;
use self::offer::Offer;
pub(crate) use self::standing::FAULTS_TO_BAR;
pub(crate) use self::supply::{Reach, Supply};
use super::gate::Gate;
use super::life::TRIED_MAX;
use super::pool::{Candidate, MachineTag};
use crate::config::{Config, Limits};
use crate::event::{MachineReport, MachineSpec, SlotReport, SlotState, Trust};
use crate::ids::{AccountId, ConnId, MachineId, ModelIx};
use crate::lookup::Lookup;
use crate::slab::{Key, Slab};
use crate::time::{Span, Tick};

pub(crate) const NIL: u32 = u32::MAX;
/// A machine whose last report is older gets nothing new (INV-10). Six heartbeats; what is silent for
/// much longer is closed by its link.
pub const REPORT_AGE_MAX: Span = Span::secs(30);
/// Machines that are remembered for each connection that may be here.
const MACHINES_PER_PROVIDER: u32 = 2;
/// Prompt at which machines are compared for the buckets.
const REFERENCE_PROMPT_TOKENS: u64 = 512;

/// One live connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Provider {
    pub(crate) conn: ConnId,
    pub(crate) machine: MachineId,
    pub(crate) tag: MachineTag,
    pub(crate) owner: AccountId,
    trust: Trust,
    spec: MachineSpec,
    is_distrusted: bool,
    pub(crate) is_verified: bool,
    /// It has passed a challenge at least once: whoever speaks holds the machine's key.
    pub(crate) is_proven: bool,
    /// What its machine's record says, so that it need not be looked up.
    is_barred: bool,
    is_on_probation: bool,
    late_us: u32,
    pub(crate) has_faults: bool,
    /// Place of its machine's record.
    record: u32,
    report: MachineReport,
    pub(crate) reported_at: Tick,
    /// Nobody knows how it is: its last report is older than [`REPORT_AGE_MAX`].
    is_stale: bool,
    /// Places in the slab of offers, by model.
    pub(crate) offers: SmallVec<[u32; 4]>,
    /// Our attempts on it, and the first of their list.
    pub(crate) pending: u32,
    pub(crate) first_attempt: u32,
    pub(crate) bar_timer: Key,
    pub(crate) challenge_timer: Key,
    pub(crate) report_timer: Key,
}

impl Provider {
    /// Serves its owner's requests alone.
    pub(crate) const fn is_private(&self) -> bool {
        self.spec.private_only
    }
}

/// Who joins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) conn: ConnId,
    pub(crate) machine: MachineId,
    pub(crate) owner: AccountId,
}

/// Whether all of an inventory could be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stocked {
    Whole,
    /// The limit of models for one provider cut it short.
    InPart,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Fleet {
    pub(crate) providers: Slab<Provider>,
    pub(crate) offers: Slab<Offer>,
    by_conn: Lookup<ConnId>,
    supplies: Vec<Supply>,
    /// Offers of machines that serve their owner alone.
    own: BTreeMap<(ModelIx, AccountId), Vec<u32>>,
    pub(crate) memory: Memory,
    bare: Vec<ModelIx>,
    trust_min: Trust,
}

impl Fleet {
    pub(crate) fn new(config: &Config) -> Self {
        let mut fleet = Self {
            providers: Slab::with_limit(0),
            offers: Slab::with_limit(0),
            by_conn: Lookup::default(),
            supplies: Vec::new(),
            own: BTreeMap::new(),
            memory: Memory::new(0),
            bare: Vec::new(),
            trust_min: config.trust_min,
        };
        fleet.set_limits(&config.limits);
        fleet.grow(config.catalog.count());
        fleet
    }

    pub(crate) fn set_limits(&mut self, limits: &Limits) {
        let models_max = u32::from(limits.models_per_provider_max);
        let offers_max = limits.providers_max.saturating_mul(models_max);
        self.providers.set_limit(limits.providers_max);
        self.offers.set_limit(offers_max.min(NIL - 1));
        let machines_max = limits.providers_max.saturating_mul(MACHINES_PER_PROVIDER);
        self.memory.set_limit(machines_max.max(1));
    }

    /// Models were listed: there is a supply for each of so many places.
    pub(crate) fn grow(&mut self, models: usize) {
        self.supplies.resize_with(models, Supply::new);
    }

    pub(crate) fn find(&self, conn: ConnId) -> Option<u32> {
        self.by_conn.get(conn)
    }

    pub(crate) fn supply(&self, model: ModelIx) -> &Supply {
        &self.supplies[usize::from(model.0)]
    }

    /// Offers of `account`'s own machines that serve nobody else.
    pub(crate) fn own(&self, model: ModelIx, account: AccountId) -> &[u32] {
        self.own.get(&(model, account)).map_or(&[], Vec::as_slice)
    }

    /// Machines that could take work of a model now or later, beside those named.
    pub(crate) fn capable_beside(&self, model: ModelIx, machines: &[MachineTag]) -> u32 {
        let is_counted = |machine: &&MachineTag| {
            let mut slots = self.memory.here_by_tag(**machine).iter();
            slots.any(|&slot| {
                let offer = self.offer_of(slot, model);
                let is_private = self.providers.at(slot).is_private();
                offer.is_some_and(|ix| self.offers.at(ix).gate.is_capable()) && !is_private
            })
        };
        let among = machines.iter().filter(is_counted).count();
        let among = u32::try_from(among).expect("few are tried");
        self.supply(model).capable_count().saturating_sub(among)
    }

    /// Expected time to first content of a prompt, faults of the past aside.
    pub(crate) fn forecast(&self, ix: u32, prompt_tokens: u32, limits: &Limits) -> Span {
        let offer = self.offers.at(ix);
        estimate::forecast(
            self.providers.at(offer.provider),
            offer,
            prompt_tokens,
            limits,
        )
    }

    /// An answer of so many tokens was streamed in this time.
    pub(crate) fn streamed(&mut self, slot: u32, ix: u32, tokens: u32, actual: Span) {
        let offer = self.offers.at(ix);
        let expected = estimate::answer_time(self.providers.at(slot), offer, tokens);
        self.took(slot, expected, actual);
    }

    /// Whether a request of `account` for so many tokens can be served, now or once there is room.
    pub(crate) fn reach(&self, model: ModelIx, account: AccountId, need_tokens: u64) -> Reach {
        let everybody = self.supply(model).reach(need_tokens);
        let mut own = Reach::Nobody;
        for &ix in self.own(model, account) {
            let offer = self.offers.at(ix);
            if offer.gate.is_capable_at_last() {
                if need_tokens <= offer.capacity_tokens {
                    return Reach::Possible;
                }
                own = Reach::NoneLargeEnough;
            }
        }
        match (everybody, own) {
            (Reach::Nobody, Reach::Nobody) => self.last_reach(model, need_tokens),
            (Reach::Nobody, _) => own,
            (Reach::NoneLargeEnough | Reach::Possible, _) => everybody,
        }
    }

    /// The same among barred machines, once nobody else is there.
    fn last_reach(&self, model: ModelIx, need_tokens: u64) -> Reach {
        let mut barred = self.supply(model).last_resort.iter();
        if barred.len() == 0 {
            Reach::Nobody
        } else if barred.any(|&ix| need_tokens <= self.offers.at(ix).capacity_tokens) {
            Reach::Possible
        } else {
            Reach::NoneLargeEnough
        }
    }

    /// The connections of a machine, oldest first.
    pub(crate) fn connections(&self, machine: MachineId) -> &[u32] {
        self.memory.here(machine)
    }

    /// `None` when the fleet is full.
    pub(crate) fn join(
        &mut self,
        now: Tick,
        id: Identity,
        trust: Trust,
        spec: MachineSpec,
    ) -> Option<u32> {
        let provider = Provider {
            conn: id.conn,
            machine: id.machine,
            tag: MachineTag::of(id.machine),
            owner: id.owner,
            trust,
            spec,
            is_distrusted: false,
            is_verified: false,
            is_proven: false,
            is_barred: false,
            is_on_probation: false,
            late_us: 0,
            has_faults: false,
            record: NIL,
            report: MachineReport::default(),
            reported_at: now,
            is_stale: false,
            offers: SmallVec::new(),
            pending: 0,
            first_attempt: NIL,
            bar_timer: Key::NONE,
            challenge_timer: Key::NONE,
            report_timer: Key::NONE,
        };
        let slot = self.providers.insert(provider)?.slot;
        self.by_conn.insert(id.conn, slot);
        let record = self.memory.arrive(now, id.machine, slot);
        self.memory.at_mut(record).standing.serve(now);
        self.providers.at_mut(slot).record = record;
        self.recall(record);
        Some(slot)
    }

    /// Replaces the inventory. What is no longer in it gets nothing more, and keeps its debits until
    /// its last attempt has ended.
    pub(crate) fn restock(&mut self, slot: u32, models: &[ModelIx], limits: &Limits) -> Stocked {
        for ix in self.providers.at(slot).offers.clone() {
            let offer = self.offers.at_mut(ix);
            offer.is_withdrawn = !models.contains(&offer.model);
        }
        self.sweep(slot);
        let mut stocked = Stocked::Whole;
        for &model in models {
            let provider = self.providers.at(slot);
            let at = provider
                .offers
                .binary_search_by_key(&model, |&ix| self.offers.at(ix).model);
            let Err(at) = at else { continue };
            let listed = provider.offers.iter();
            let listed = listed.filter(|&&ix| !self.offers.at(ix).is_withdrawn);
            let has_place = listed.count() < usize::from(limits.models_per_provider_max);
            let key = if has_place {
                self.offers.insert(Offer::cold(slot, model))
            } else {
                None
            };
            let Some(key) = key else {
                stocked = Stocked::InPart;
                break;
            };
            self.providers.at_mut(slot).offers.insert(at, key.slot);
            self.list(key.slot);
        }
        stocked
    }

    /// Forgets a connection. Its attempts were taken off before.
    pub(crate) fn leave(&mut self, now: Tick, slot: u32) {
        for offer in self.providers.at(slot).offers.clone() {
            self.drop_offer(offer);
        }
        let provider = self
            .providers
            .remove(self.providers.key_at(slot))
            .expect("it was there");
        assert_eq!(provider.pending, 0, "a connection leaves without attempts");
        self.by_conn.remove(provider.conn);
        self.memory.leave(now, provider.record, slot);
    }

    /// Applies a report. `false`: it is out of order and counts as a sign of life only.
    pub(crate) fn report(
        &mut self,
        now: Tick,
        slot: u32,
        report: &MachineReport,
        slots: &[SlotReport],
        accepts_stale: bool,
    ) -> bool {
        let provider = self.providers.at_mut(slot);
        if report.seq > 0 && report.seq <= provider.report.seq && !accepts_stale {
            return false;
        }
        provider.report = *report;
        provider.reported_at = now;
        provider.is_stale = false;
        if provider.late_us > 0 {
            let record = provider.record;
            self.memory.at_mut(record).standing.fade();
            self.recall(record);
        }
        self.sweep(slot);
        let offers = core::mem::take(&mut self.providers.at_mut(slot).offers);
        for &ix in &offers {
            let offer = self.offers.at_mut(ix);
            let told = slots.iter().find(|told| told.model == offer.model);
            offer.reconcile(now, told, report.has_capacity);
        }
        self.providers.at_mut(slot).offers = offers;
        true
    }

    /// Closes a machine whose last report is too old. Otherwise says when it will be.
    pub(crate) fn age(&mut self, now: Tick, slot: u32) -> Option<Tick> {
        let provider = self.providers.at_mut(slot);
        let until = provider.reported_at + REPORT_AGE_MAX;
        provider.is_stale = until <= now;
        (!provider.is_stale).then_some(until)
    }

    /// Nobody will look at the age of its reports: that is as if they were old.
    pub(crate) fn presume_stale(&mut self, slot: u32) {
        self.providers.at_mut(slot).is_stale = true;
    }

    /// An answer took `actual` where what the machine says of its speed lets expect `expected`.
    pub(crate) fn took(&mut self, slot: u32, expected: Span, actual: Span) {
        let record = self.providers.at(slot).record;
        self.memory.at_mut(record).standing.took(expected, actual);
        self.recall(record);
    }

    pub(crate) fn distrust(&mut self, slot: u32) {
        self.providers.at_mut(slot).is_distrusted = true;
    }

    pub(crate) fn is_distrusted(&self, slot: u32) -> bool {
        self.providers.at(slot).is_distrusted
    }

    /// A challenge was answered: whoever speaks is the machine.
    pub(crate) fn prove(&mut self, slot: u32) {
        self.providers.at_mut(slot).is_proven = true;
    }

    /// A newer connection proved itself beside one that works.
    pub(crate) fn hand_over(&mut self, now: Tick, slot: u32) -> Handover {
        self.memory.hand_over(now, self.providers.at(slot).record)
    }

    /// It completed work: one fault is made good, and a bar ends.
    /// `true`: that changed what is thought of it.
    pub(crate) fn absolve(&mut self, slot: u32) -> bool {
        let provider = self.providers.at(slot);
        let (had_faults, record) = (provider.has_faults, provider.record);
        if had_faults {
            self.memory.at_mut(record).standing.success();
            self.recall(record);
        }
        had_faults
    }

    /// A machine failed through a fault of its own, which brings it at least to so many.
    pub(crate) fn blame(&mut self, now: Tick, machine: MachineId, faults_min: u8) {
        let record = self.memory.of(now, machine);
        self.memory.at_mut(record).standing.fault(now, faults_min);
        self.recall(record);
    }

    /// When the bar of a provider's machine ends, if there is one.
    pub(crate) fn barred_until(&self, slot: u32) -> Option<Tick> {
        let record = self.providers.at(slot).record;
        self.memory.at(record).standing.barred_until()
    }

    /// Ends a bar whose time is up.
    pub(crate) fn serve_bar(&mut self, now: Tick, slot: u32) {
        let provider = self.providers.at(slot);
        if !provider.is_barred {
            return;
        }
        let record = provider.record;
        self.memory.at_mut(record).standing.serve(now);
        self.recall(record);
    }

    /// A load ended: the model is resident, or it is not.
    pub(crate) fn loaded(&mut self, offer: u32, state: SlotState) {
        self.offers.at_mut(offer).report.state = state;
    }

    pub(crate) fn offer_of(&self, slot: u32, model: ModelIx) -> Option<u32> {
        let offers = &self.providers.at(slot).offers;
        let at = offers
            .binary_search_by_key(&model, |&ix| self.offers.at(ix).model)
            .ok()?;
        Some(offers[at])
    }

    /// Whether an offer may be used now, by a request that those machines have failed. One of a
    /// barred machine is the last resort: while no other machine that serves everybody is left.
    pub(crate) fn may_serve(&self, ix: u32, tried: &[MachineTag]) -> bool {
        let offer = self.offers.at(ix);
        let is_private = self.providers.at(offer.provider).is_private();
        offer.gate.is_open()
            || (offer.gate == Gate::BARRED
                && (is_private || self.capable_beside(offer.model, tried) == 0))
    }

    /// Whether an offer may be used now by any request.
    pub(crate) fn is_usable(&self, ix: u32) -> bool {
        let offer = self.offers.at(ix);
        let others = self.supply(offer.model).capable_count();
        offer.gate.is_open() || (offer.gate == Gate::BARRED && others as usize <= TRIED_MAX)
    }

    /// Whether the offer may be used and has room for a request of that size.
    pub(crate) fn has_room(&self, ix: u32, need_tokens: u64) -> bool {
        self.is_usable(ix) && self.offers.at(ix).fits(need_tokens)
    }

    /// Models that lost a machine in good standing, while barred machines serve them.
    pub(crate) fn take_bare(&mut self) -> Option<ModelIx> {
        self.bare.pop()
    }

    /// What a choice needs to know of an offer that is in no pool.
    pub(crate) fn candidate(&self, ix: u32, limits: &Limits) -> Candidate {
        let offer = self.offers.at(ix);
        estimate::candidate_of(self.providers.at(offer.provider), ix, offer, limits)
    }

    /// Withdrawn offers without attempts go.
    fn sweep(&mut self, slot: u32) {
        for at in (0..self.providers.at(slot).offers.len()).rev() {
            let ix = self.providers.at(slot).offers[at];
            let offer = self.offers.at(ix);
            if offer.is_withdrawn && offer.pending == 0 {
                self.drop_offer(ix);
            }
        }
    }

    /// Copies what a record says of a machine to its connections.
    fn recall(&mut self, record: u32) {
        let record = self.memory.at(record);
        let standing = record.standing;
        for &slot in &record.here {
            let provider = self.providers.at_mut(slot);
            provider.is_barred = standing.barred_until().is_some();
            provider.is_on_probation = standing.is_on_probation();
            provider.late_us = standing.late_us();
            provider.has_faults = standing.has_faults();
        }
    }
}
