//! The fleet: providers, what they offer, and one ledger of what each offer still has room for.
//!
//! Every reservation debits the ledger at once; every report reconciles it. Frames of one socket
//! arrive in order, so a report reflects exactly the attempts that were accepted before it: whatever
//! it counts beyond these is foreign work. Labels such as "serving" are derived, never stored.

mod estimate;
mod offer;

use std::collections::btree_map::Entry;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use self::estimate::{gate_of, prefill_us_per_ktok, unbarred_wait_us, wait_us};
use self::offer::Offer;
use super::gate::Gate;
use super::pool::{Candidate, MachineTag, Place, Pool, bucket_of};
use crate::config::{Config, Limits};
use crate::digest::Mix;
use crate::event::{MachineReport, MachineSpec, SlotReport, SlotState, Trust};
use crate::ids::{AccountId, ConnId, MachineId, ModelIx};
use crate::lookup::Lookup;
use crate::slab::{Key, Slab};
use crate::time::{Span, Tick};

pub(crate) const NIL: u32 = u32::MAX;
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
    pub(crate) is_barred: bool,
    /// Its record has faults; most have none, and the record need not be looked up.
    pub(crate) has_faults: bool,
    report: MachineReport,
    pub(crate) reported_at: Tick,
    /// Places in the slab of offers, by model.
    pub(crate) offers: SmallVec<[u32; 4]>,
    /// Our attempts on it, and the first of their list.
    pub(crate) pending: u32,
    pub(crate) first_attempt: u32,
    pub(crate) challenge_timer: Key,
}

/// What survives a reconnect (INV-13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct MachineRecord {
    /// Place of the live provider, or [`NIL`].
    pub(crate) live: u32,
    pub(crate) faults: u8,
    pub(crate) barred_until: Tick,
}

impl MachineRecord {
    const BLANK: Self = Self {
        live: NIL,
        faults: 0,
        barred_until: Tick::ZERO,
    };
}

/// Size of a reservation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) prompt_tokens: u32,
    pub(crate) need_tokens: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Fleet {
    pub(crate) providers: Slab<Provider>,
    pub(crate) offers: Slab<Offer>,
    by_conn: Lookup<ConnId>,
    by_tag: Lookup<MachineTag>,
    pools: Vec<Pool>,
    /// Offers of each model that are open or closed only for want of capacity.
    capable: Vec<u32>,
    /// Largest token budget that any machine ever reported for each model.
    budget_seen: Vec<u64>,
    pub(crate) machines: std::collections::BTreeMap<MachineId, MachineRecord>,
    machines_max: usize,
    trust_min: Trust,
}

impl Fleet {
    pub(crate) fn new(config: &Config) -> Self {
        let models = config.catalog.count();
        let limits = &config.limits;
        let offers_max = limits
            .providers_max
            .saturating_mul(u32::from(limits.models_per_provider_max));
        Self {
            providers: Slab::with_limit(limits.providers_max),
            offers: Slab::with_limit(offers_max.min(NIL - 1)),
            by_conn: Lookup::default(),
            by_tag: Lookup::default(),
            pools: vec![Pool::new(); models],
            capable: vec![0; models],
            budget_seen: vec![0; models],
            machines: std::collections::BTreeMap::new(),
            machines_max: 2 * limits.providers_max as usize,
            trust_min: config.trust_min,
        }
    }

    pub(crate) fn find(&self, conn: ConnId) -> Option<u32> {
        self.by_conn.get(conn)
    }

    pub(crate) fn pool(&self, model: ModelIx) -> &Pool {
        &self.pools[usize::from(model.0)]
    }

    pub(crate) fn capable_count(&self, model: ModelIx) -> u32 {
        self.capable[usize::from(model.0)]
    }

    /// Whether a request of that size could fit an empty machine, as far as we know.
    /// Machines that could take work of a model now or later, beside those named.
    pub(crate) fn capable_beside(&self, model: ModelIx, machines: &[MachineTag]) -> u32 {
        let is_capable = |machine: &&MachineTag| {
            let slot = self.by_tag.get(**machine);
            let offer = slot.and_then(|slot| self.offer_of(slot, model));
            offer.is_some_and(|offer| self.offers.at(offer).gate.is_capable())
        };
        let among = machines.iter().filter(is_capable).count();
        let among = u32::try_from(among).expect("few are tried");
        self.capable_count(model).saturating_sub(among)
    }

    /// Expected time to first content of a prompt, faults of the past aside.
    pub(crate) fn forecast(&self, ix: u32, prompt_tokens: u32, limits: &Limits) -> Span {
        let offer = self.offers.at(ix);
        let provider = self.providers.at(offer.provider);
        let per_ktok = u64::from(prefill_us_per_ktok(provider, offer));
        let prefill_us = u64::from(prompt_tokens) * per_ktok / 1_000;
        Span(unbarred_wait_us(provider, offer, limits).saturating_add(prefill_us))
    }

    pub(crate) fn could_ever_fit(&self, model: ModelIx, need_tokens: u64) -> bool {
        let seen = self.budget_seen[usize::from(model.0)];
        seen == 0 || need_tokens <= seen
    }

    /// `None` when the fleet is full.
    pub(crate) fn join(
        &mut self,
        conn: ConnId,
        machine: MachineId,
        owner: AccountId,
        trust: Trust,
        spec: MachineSpec,
    ) -> Option<u32> {
        let record = self.machines.get(&machine);
        let provider = Provider {
            conn,
            machine,
            tag: MachineTag(Mix::of(&machine) as u64),
            owner,
            trust,
            spec,
            is_distrusted: false,
            is_verified: false,
            is_barred: record.is_some_and(|record| record.barred_until > Tick::ZERO),
            has_faults: record.is_some_and(|record| record.faults > 0),
            report: MachineReport::default(),
            reported_at: Tick::ZERO,
            offers: SmallVec::new(),
            pending: 0,
            first_attempt: NIL,
            challenge_timer: Key::NONE,
        };
        let slot = self.providers.insert(provider)?.slot;
        if self.machines.len() >= self.machines_max {
            self.machines.retain(|_, record| record.live != NIL); // INV-12
        }
        self.by_conn.insert(conn, slot);
        self.by_tag.insert(self.providers.at(slot).tag, slot);
        let record = self.machines.entry(machine);
        record.or_insert(MachineRecord::BLANK).live = slot;
        Some(slot)
    }

    /// What is remembered of a machine, here or not; `None` when nothing more can be (INV-12).
    pub(crate) fn record(&mut self, machine: MachineId) -> Option<&mut MachineRecord> {
        let has_room = self.machines.len() < self.machines_max;
        match self.machines.entry(machine) {
            Entry::Occupied(entry) => Some(entry.into_mut()),
            Entry::Vacant(entry) if has_room => Some(entry.insert(MachineRecord::BLANK)),
            Entry::Vacant(_) => None,
        }
    }

    /// Replaces the inventory. Offers with attempts out keep their debits.
    pub(crate) fn restock(&mut self, slot: u32, models: &[ModelIx], limits: &Limits) {
        let kept = self.providers.at(slot).offers.clone();
        for offer in kept {
            let is_gone = !models.contains(&self.offers.at(offer).model);
            if is_gone && self.offers.at(offer).pending == 0 {
                self.drop_offer(offer);
            }
        }
        for &model in models {
            let provider = self.providers.at(slot);
            let at = provider
                .offers
                .binary_search_by_key(&model, |&ix| self.offers.at(ix).model);
            let Err(at) = at else { continue };
            if provider.offers.len() >= usize::from(limits.models_per_provider_max) {
                break;
            }
            let Some(key) = self.offers.insert(Offer::cold(slot, model)) else {
                break;
            };
            self.providers.at_mut(slot).offers.insert(at, key.slot);
        }
    }

    /// Forgets a connection. Its attempts were taken off before.
    pub(crate) fn leave(&mut self, slot: u32) {
        for offer in self.providers.at(slot).offers.clone() {
            self.drop_offer(offer);
        }
        let provider = self
            .providers
            .remove(self.providers.key_at(slot))
            .expect("it was there");
        assert_eq!(provider.pending, 0, "a connection leaves without attempts");
        self.by_conn.remove(provider.conn);
        self.by_tag.remove(provider.tag);
        let record = self
            .machines
            .get_mut(&provider.machine)
            .expect("a live machine has a record");
        if record.live == slot {
            record.live = NIL;
            if record.faults == 0 {
                self.machines.remove(&provider.machine);
            }
        }
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
        let offers = core::mem::take(&mut provider.offers);
        for &ix in &offers {
            let offer = self.offers.at_mut(ix);
            let told = slots.iter().find(|told| told.model == offer.model);
            offer.reconcile(told, report.has_capacity);
            let seen = &mut self.budget_seen[usize::from(offer.model.0)];
            *seen = (*seen).max(offer.report.budget_max);
        }
        self.providers.at_mut(slot).offers = offers;
        true
    }

    pub(crate) fn distrust(&mut self, slot: u32) {
        self.providers.at_mut(slot).is_distrusted = true;
    }

    pub(crate) fn is_distrusted(&self, slot: u32) -> bool {
        self.providers.at(slot).is_distrusted
    }

    /// It completed work as it should: that takes one of its faults away.
    pub(crate) fn absolve(&mut self, slot: u32) {
        let provider = self.providers.at_mut(slot);
        if provider.has_faults {
            let record = self
                .machines
                .get_mut(&provider.machine)
                .expect("a live machine has a record");
            record.faults = record.faults.saturating_sub(1);
            provider.has_faults = record.faults > 0;
        }
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

    /// Debits one attempt (INV-08: never beyond what is believed to be there).
    pub(crate) fn reserve(&mut self, ix: u32, load: Load) {
        let offer = self.offers.at_mut(ix);
        assert!(offer.gate.is_open(), "work goes to open offers only");
        assert!(
            offer.fits(load.need_tokens),
            "a reservation fits the believed budget"
        );
        offer.pending += 1;
        offer.reserved_tokens += load.need_tokens;
        offer.prefill_tokens += u64::from(load.prompt_tokens);
        let provider = offer.provider;
        self.providers.at_mut(provider).pending += 1;
    }

    /// The provider counts this attempt in its reports from now on.
    pub(crate) fn accepted(&mut self, ix: u32, load: Load) {
        let offer = self.offers.at_mut(ix);
        offer.accepted += 1;
        offer.accepted_tokens += load.need_tokens;
    }

    /// First content came: the prompt is no longer ahead of anybody.
    pub(crate) fn prefilled(&mut self, ix: u32, load: Load) {
        self.offers.at_mut(ix).prefill_tokens -= u64::from(load.prompt_tokens);
    }

    /// Credits one attempt back. What the engine may still run (`lingers`) counts as foreign until
    /// the next report says otherwise: a cancelled attempt's load stays visible.
    pub(crate) fn release(
        &mut self,
        ix: u32,
        load: Load,
        was_accepted: bool,
        was_started: bool,
        lingers: bool,
    ) {
        let offer = self.offers.at_mut(ix);
        offer.pending -= 1;
        offer.reserved_tokens -= load.need_tokens;
        if was_accepted {
            offer.accepted -= 1;
            offer.accepted_tokens -= load.need_tokens;
        }
        if !was_started {
            offer.prefill_tokens -= u64::from(load.prompt_tokens);
        }
        if lingers {
            offer.foreign += 1;
            offer.foreign_tokens += load.need_tokens;
        }
        let provider = offer.provider;
        self.providers.at_mut(provider).pending -= 1;
    }

    /// Believed full until its next report.
    pub(crate) fn refused(&mut self, ix: u32) {
        self.offers.at_mut(ix).has_refused = true;
    }

    /// Brings the index in line with the ledger for every offer of a provider.
    pub(crate) fn refresh(&mut self, slot: u32, config: &Config) {
        let count = self.providers.at(slot).offers.len();
        for at in 0..count {
            let ix = self.providers.at(slot).offers[at];
            self.refresh_offer(ix, config);
        }
    }

    /// Whether the offer is open and has room for a request of that size.
    pub(crate) fn has_room(&self, ix: u32, need_tokens: u64) -> bool {
        let offer = self.offers.at(ix);
        offer.gate.is_open() && offer.fits(need_tokens)
    }

    fn refresh_offer(&mut self, ix: u32, config: &Config) {
        let offer = self.offers.at(ix);
        let provider = self.providers.at(offer.provider);
        let spec = config
            .catalog
            .spec(offer.model)
            .expect("offers name models of the catalogue");
        let gate = gate_of(provider, offer, spec, self.trust_min);
        let (was, place, model) = (offer.gate, offer.place, usize::from(offer.model.0));
        let wait_us = wait_us(provider, offer, &config.limits);
        let per_ktok = prefill_us_per_ktok(provider, offer);
        let candidate = Candidate {
            machine: provider.tag,
            offer: ix,
            wait_us: u32::try_from(wait_us).unwrap_or(u32::MAX),
            prefill_us_per_ktok: per_ktok,
            room_tokens: offer.room_tokens(),
            load: offer.load(),
        };
        let bucket = bucket_of(wait_us + REFERENCE_PROMPT_TOKENS * u64::from(per_ktok) / 1_000);
        self.capable[model] += u32::from(gate.is_capable());
        self.capable[model] -= u32::from(was.is_capable());
        let place = match place {
            Some(place) if gate.is_open() && place.bucket == bucket => {
                self.pools[model].replace(place, candidate);
                Some(place)
            }
            _ => {
                self.take_out(ix);
                gate.is_open()
                    .then(|| self.pools[model].put(bucket, candidate))
            }
        };
        let offer = self.offers.at_mut(ix);
        offer.gate = gate;
        offer.place = place;
    }

    fn take_out(&mut self, ix: u32) {
        let offer = self.offers.at_mut(ix);
        let Some(place) = offer.place.take() else {
            return;
        };
        let model = usize::from(offer.model.0);
        if let Some(moved) = self.pools[model].take(place) {
            self.offers.at_mut(moved).place = Some(place);
        }
    }

    fn drop_offer(&mut self, ix: u32) {
        self.take_out(ix);
        let offer = self
            .offers
            .remove(self.offers.key_at(ix))
            .expect("it was there");
        self.capable[usize::from(offer.model.0)] -= u32::from(offer.gate.is_capable());
        self.providers
            .at_mut(offer.provider)
            .offers
            .retain(|other| *other != ix);
    }

    /// What the index says of an offer, for the checks.
    pub(crate) fn place_of(&self, ix: u32) -> (Gate, Option<Place>) {
        let offer = self.offers.at(ix);
        (offer.gate, offer.place)
    }
}
