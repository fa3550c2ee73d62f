//! The fleet: providers, what they offer, and one ledger of what each offer still has room for.
//!
//! Every reservation debits the ledger at once; every report reconciles it. Frames of one socket
//! arrive in order, so a report reflects exactly the attempts that were accepted before it: whatever
//! it counts beyond these is foreign work. Labels such as "serving" are derived, never stored.
//!
//! `ledger` holds debits and credits, `estimate` derives gates and expected waits, `index` keeps each
//! model's `supply` in line, `choose` draws from it by a `policy`, `memory` knows machines whatever their connection
//! and `standing` what their conduct is worth.
//!
//! Each change says what it found; afterwards [`Fleet::refresh`] brings the index in line.

mod check;
mod choose;
mod cost;
mod estimate;
mod gate;
mod habits;
mod index;
mod ledger;
mod loads;
mod losses;
mod memory;
mod offer;
mod policy;
mod pool;
mod prefixes;
mod proofs;
mod roster;
mod rota;
mod sights;
mod standing;
mod strangers;
mod supply;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

pub(crate) use self::choose::{Choice, Want, Weighed};
#[cfg(test)]
pub(crate) use self::choose::{INSPECTED_MAX, INSPECTED_PER_SOURCE_MAX};
use self::gate::Gate;
pub(crate) use self::ledger::Load;
#[cfg(test)]
pub(crate) use self::loads::LOAD_WAIT_MAX;
pub(crate) use self::loads::LoadEnd;
use self::loads::Loads;
#[cfg(test)]
pub(crate) use self::losses::{ANSWERS_OWED, LOSSES_WITHIN};
pub(crate) use self::memory::Handover;
use self::memory::Memory;
use self::offer::Offer;
pub use self::policy::Policy;
use self::pool::Candidate;
pub(crate) use self::pool::MachineTag;
use self::prefixes::Prefixes;
#[cfg(test)]
pub(crate) use self::proofs::PROOFS_MAX;
use self::proofs::Proofs;
pub(crate) use self::rota::First;
pub(crate) use self::standing::{FAULTS_TO_BAR, Refusing};
use self::supply::Typical;
pub(crate) use self::supply::{Reach, Supply};
use super::requests::TRIED_MAX;
use crate::config::{Config, Limits};
use crate::event::{MachineReport, MachineSpec, Machines, SlotReport, SlotState, Trust};
use crate::ids::{AccountId, ConnId, MachineId, ModelIx};
use crate::lookup::Lookup;
use crate::slab::{Key, Slab};
use crate::time::{Span, Tick};
use crate::traits::Traits;

const NIL: u32 = u32::MAX;
/// A machine whose last report is older gets nothing new (INV-10). Six heartbeats; what is silent for
/// much longer is closed by its link.
pub const REPORT_AGE_MAX: Span = Span::secs(30);
/// Machines that are remembered for each connection that may be here.
const MACHINES_PER_PROVIDER: u32 = 2;
/// Prompt at which machines are compared for the buckets.
const REFERENCE_PROMPT_TOKENS: u64 = 512;
/// Tokens of an answer from which on it tells how fast its machine is.
const TOKENS_MEASURED: u32 = 16;

/// One live connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Provider {
    conn: ConnId,
    machine: MachineId,
    tag: MachineTag,
    owner: AccountId,
    /// What it said of itself when it joined, as far as its link could check that.
    trust: Trust,
    /// What was proven since.
    proofs: Proofs,
    loads: Loads,
    spec: MachineSpec,
    is_distrusted: bool,
    is_verified: bool,
    /// It has passed a challenge at least once: whoever speaks holds the machine's key.
    is_proven: bool,
    /// No answer of this connection has come beyond its first words: it gets one request at a time.
    is_untried: bool,
    /// What its machine's record says, so that it need not be looked up.
    is_barred: bool,
    is_on_probation: bool,
    is_lossy: bool,
    late_us: u32,
    slow_milli: u32,
    has_faults: bool,
    is_credible: bool,
    /// Place of its machine's record.
    record: u32,
    report: MachineReport,
    reported_at: Tick,
    /// Nobody knows how it is: its last report is older than [`REPORT_AGE_MAX`].
    is_stale: bool,
    /// Places in the slab of offers, by model.
    offers: SmallVec<[u32; 4]>,
    /// Our attempts on it.
    pending: u32,
    /// When it last had more than one request at a time.
    crowded_at: Tick,
}

impl Provider {
    /// What requests can demand of it, at this moment.
    fn has(&self) -> Traits {
        Traits::of_trust(self.trust).and(self.proofs.traits())
    }

    /// Nobody has had an answer of it, on this connection or as far as its machine is remembered.
    const fn is_unknown(&self) -> bool {
        self.is_untried && !self.is_credible
    }

    /// And nothing speaks against it: somebody should try it.
    const fn is_stranger(&self) -> bool {
        self.is_unknown() && !self.has_faults && self.late_us == 0
    }

    /// Serves its owner's requests alone.
    const fn is_private(&self) -> bool {
        self.spec.private_only
    }
}

/// Who a connection says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) conn: ConnId,
    pub(crate) machine: MachineId,
    pub(crate) owner: AccountId,
}

/// Whose offer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seller {
    /// Its place in the fleet.
    pub(crate) provider: u32,
    pub(crate) id: Identity,
    pub(crate) tag: MachineTag,
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
    providers: Slab<Provider>,
    offers: Slab<Offer>,
    by_conn: Lookup<ConnId>,
    supplies: Vec<Supply>,
    /// Offers of machines that serve their owner alone.
    own: BTreeMap<(ModelIx, AccountId), Vec<u32>>,
    memory: Memory,
    prefixes: Prefixes,
    bare: Vec<ModelIx>,
    short: Vec<ModelIx>,
    trust_min: Trust,
    policy: Policy,
    /// Where the newest attempt went.
    last_sent: u32,
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
            prefixes: Prefixes::new(),
            bare: Vec::new(),
            short: Vec::new(),
            trust_min: config.trust_min,
            policy: Policy::default(),
            last_sent: NIL,
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

    pub(crate) fn count(&self) -> usize {
        self.providers.count()
    }

    pub(crate) fn offers_count(&self) -> usize {
        self.offers.count()
    }

    /// The name of a connection that is here, for what may come after it is gone.
    pub(crate) fn key(&self, slot: u32) -> Key {
        self.providers.key_at(slot)
    }

    pub(crate) fn is_here(&self, key: Key) -> bool {
        self.providers.get(key).is_some()
    }

    pub(crate) fn id(&self, slot: u32) -> Identity {
        let provider = self.providers.at(slot);
        Identity {
            conn: provider.conn,
            machine: provider.machine,
            owner: provider.owner,
        }
    }

    pub(crate) fn seller(&self, offer: u32) -> Seller {
        let provider = self.offers.at(offer).provider;
        Seller {
            provider,
            id: self.id(provider),
            tag: self.providers.at(provider).tag,
        }
    }

    /// The offers of a connection, by their number, and the model of each.
    pub(crate) fn offer_at(&self, slot: u32, at: usize) -> Option<(u32, ModelIx)> {
        let &offer = self.providers.at(slot).offers.get(at)?;
        Some((offer, self.offers.at(offer).model))
    }

    /// Whom alone a connection serves; `None`: everybody.
    pub(crate) fn serves_only(&self, slot: u32) -> Option<AccountId> {
        let provider = self.providers.at(slot);
        provider.is_private().then_some(provider.owner)
    }

    pub(crate) fn supply(&self, model: ModelIx) -> &Supply {
        &self.supplies[usize::from(model.0)]
    }

    /// Offers of `account`'s own machines that serve nobody else.
    pub(crate) fn own(&self, model: ModelIx, account: AccountId) -> &[u32] {
        self.own.get(&(model, account)).map_or(&[], Vec::as_slice)
    }

    /// Machines that have what a request demands and could take it now or later, beside those that
    /// it was sent to.
    pub(crate) fn capable_beside(&self, want: &Want<'_>) -> u32 {
        let is_counted = |machine: &&MachineTag| {
            let mut slots = self.memory.here_by_tag(**machine).iter();
            slots.any(|&slot| {
                let offer = self.offer_of(slot, want.model);
                let provider = self.providers.at(slot);
                let is_for_it = !provider.is_private() && provider.has().cover(want.demands);
                offer.is_some_and(|ix| self.offers.at(ix).gate.is_capable()) && is_for_it
            })
        };
        let among = want.tried.iter().filter(is_counted).count();
        let among = u32::try_from(among).expect("few are tried");
        let supply = self.supply(want.model);
        supply.capable_with(want.demands).saturating_sub(among)
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

    /// Whether an offer is for its machine's owner alone.
    pub(crate) fn is_for_one(&self, ix: u32) -> bool {
        self.providers.at(self.offers.at(ix).provider).is_private()
    }

    /// How long a request would wait at an offer before its prompt is begun. `None`: for nobody.
    pub(crate) fn wait_of(&self, ix: u32, limits: &Limits) -> Option<Span> {
        let candidate = self.candidate(ix, limits);
        let waits = candidate.load > 0;
        waits.then_some(Span(candidate.wait_us.into()))
    }

    /// Time that an answer of so many tokens may take by what its machine says of itself.
    pub(crate) fn answer_time(&self, ix: u32, tokens: u32) -> Span {
        let offer = self.offers.at(ix);
        estimate::answer_time(self.providers.at(offer.provider), offer, tokens)
    }

    /// Time that the prompts may take that a machine reads, by what it says of itself.
    pub(crate) fn reading_time(&self, slot: u32) -> Span {
        let provider = self.providers.at(slot);
        let offers = provider.offers.iter().map(|ix| self.offers.at(*ix));
        let reading_us = offers.map(|offer| estimate::reading_us(provider, offer));
        Span(reading_us.fold(0, u64::saturating_add))
    }

    /// A request of a model was like this.
    pub(crate) fn learn(&mut self, model: ModelIx, fresh_tokens: u32, output_tokens: u32) {
        let first = Typical::first(fresh_tokens, output_tokens);
        let typical = &mut self.supplies[usize::from(model.0)].typical;
        typical
            .get_or_insert(first)
            .push(fresh_tokens, output_tokens);
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
            proofs: Proofs::default(),
            loads: Loads::default(),
            spec,
            is_distrusted: false,
            is_verified: false,
            is_proven: false,
            is_untried: true,
            is_barred: false,
            is_on_probation: false,
            is_lossy: false,
            late_us: 0,
            slow_milli: 1_000,
            has_faults: false,
            is_credible: false,
            record: NIL,
            report: MachineReport::default(),
            reported_at: now,
            is_stale: false,
            offers: SmallVec::new(),
            pending: 0,
            crowded_at: Tick::ZERO,
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
        self.drop_loads(slot);
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
        limits: &Limits,
    ) -> bool {
        let provider = self.providers.at_mut(slot);
        if report.seq > 0 && report.seq <= provider.report.seq && !accepts_stale {
            return false;
        }
        provider.report = *report;
        provider.reported_at = now;
        provider.is_stale = false;
        if provider.late_us > 0 || provider.slow_milli > 1_000 {
            let record = provider.record;
            self.memory.at_mut(record).standing.fade(now);
            self.recall(record);
        }
        self.sweep(slot);
        for at in 0..self.providers.at(slot).offers.len() {
            let provider = self.providers.at(slot);
            let offer = self.offers.at_mut(provider.offers[at]);
            let told = slots.iter().find(|told| told.model == offer.model);
            offer.reconcile(now, told, report.has_capacity);
            let typical = self.supplies[usize::from(offer.model.0)].typical;
            offer.rows_of_quality = estimate::rows_of_quality(provider, offer, typical, limits);
        }
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

    pub(crate) fn distrust(&mut self, slot: u32) {
        self.providers.at_mut(slot).is_distrusted = true;
    }

    /// A planted bug: a machine without a connection is as if it had never been here.
    pub(crate) fn forget(&mut self, machine: MachineId) {
        self.memory.forget_gone(machine);
    }

    pub(crate) fn is_proven(&self, slot: u32) -> bool {
        self.providers.at(slot).is_proven
    }

    /// Whether its last challenge counts.
    pub(crate) fn set_verified(&mut self, slot: u32, is_verified: bool) {
        self.providers.at_mut(slot).is_verified = is_verified;
    }

    /// `true`, once: a machine that had something to answer for was forgotten.
    pub(crate) const fn take_forgotten(&mut self) -> bool {
        self.memory.take_forgotten()
    }

    pub(crate) fn is_distrusted(&self, slot: u32) -> bool {
        self.providers.at(slot).is_distrusted
    }

    /// A challenge was answered: whoever speaks is the machine.
    pub(crate) fn prove(&mut self, slot: u32) {
        self.providers.at_mut(slot).is_proven = true;
    }

    /// An answer goes on, or has come whole. `true`, once: it may get more than one request at a time.
    pub(crate) fn goes_on(&mut self, slot: u32) -> bool {
        core::mem::take(&mut self.providers.at_mut(slot).is_untried)
    }

    /// A newer connection proved itself beside one that works.
    pub(crate) fn hand_over(&mut self, now: Tick, slot: u32) -> Handover {
        self.memory.hand_over(now, self.providers.at(slot).record)
    }

    /// A model is not there after all, until its machine reports it anew.
    pub(crate) fn crashes(&mut self, offer: u32) {
        self.offers.at_mut(offer).report.state = SlotState::Crashed;
    }

    pub(crate) fn offer_of(&self, slot: u32, model: ModelIx) -> Option<u32> {
        let offers = &self.providers.at(slot).offers;
        let at = offers
            .binary_search_by_key(&model, |&ix| self.offers.at(ix).model)
            .ok()?;
        Some(offers[at])
    }

    /// Whether an offer may be used now by a request. One of a barred machine is the last resort:
    /// while no other machine that serves everybody, and that could take it, is left.
    fn may_serve(&self, ix: u32, want: &Want<'_>) -> bool {
        let offer = self.offers.at(ix);
        let is_private = self.providers.at(offer.provider).is_private();
        offer.gate.is_open()
            || (offer.gate == Gate::BARRED && (is_private || self.capable_beside(want) == 0))
    }

    /// Whether an offer may be used now by some request. What a barred machine could take, each of
    /// these others could: one that is left of them is enough.
    fn is_usable(&self, ix: u32) -> bool {
        let offer = self.offers.at(ix);
        let provider = self.providers.at(offer.provider);
        let others = || self.supply(offer.model).capable_with(provider.has());
        offer.gate.is_open()
            || (offer.gate == Gate::BARRED
                && (provider.is_private() || others() as usize <= TRIED_MAX))
    }

    /// Whether the offer may be used and has room for a request of that size.
    pub(crate) fn has_room(&self, ix: u32, need_tokens: u64) -> bool {
        self.is_usable(ix) && self.offers.at(ix).fits(need_tokens)
    }

    /// Whether the offer may be used now for exactly that request, and has room for it.
    pub(crate) fn suits(&self, ix: u32, want: &Want<'_>) -> bool {
        let provider = self.providers.at(self.offers.at(ix).provider);
        let is_for_it = match want.machines {
            Machines::Any | Machines::OwnFirst => true,
            Machines::Own => provider.is_private(),
        };
        let tag = provider.tag;
        is_for_it
            && provider.has().cover(want.demands)
            && self.has_room(ix, want.need_tokens)
            && !want.tried.contains(&tag)
            && self.may_serve(ix, want)
    }

    /// Providers of barred machines that serve a model. A copy: who gets work changes its place there.
    pub(crate) fn last_resort(&self, model: ModelIx) -> Vec<u32> {
        let offers = self.supply(model).last_resort.iter();
        offers.map(|&ix| self.offers.at(ix).provider).collect()
    }

    /// Models that lost a machine in good standing, while barred machines serve them.
    pub(crate) fn take_bare(&mut self) -> Option<ModelIx> {
        self.bare.pop()
    }

    /// What a choice needs to know of an offer that is in no pool.
    fn candidate(&self, ix: u32, limits: &Limits) -> Candidate {
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
}
