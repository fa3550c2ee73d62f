//! What is derived from a report and the ledger: whether an offer is open, how fast it is, how long
//! a newcomer would wait. Functions of their arguments.

use super::gate::Gate;
use super::offer::Offer;
use super::pool::Candidate;
use super::supply::Typical;
use super::{Provider, REFERENCE_PROMPT_TOKENS, cost};
use crate::config::{Limits, ModelSpec};
use crate::event::{SlotState, Thermal, Trust};
use crate::memory::{GIB, MemoryCap, MemoryPolicy, Occupancy, loaded_bytes};
use crate::time::Span;
use crate::traits::Traits;

/// Requests that a provider may run at once: few while it says nothing, many where a token budget decides.
const CONCURRENCY_UNREPORTED: u32 = 4;
const CONCURRENCY_BUDGETED: u32 = 24;
/// No machine runs more, whatever it says.
pub(super) const ROWS_MAX: u32 = 1_024;
/// Prefill rate assumed from a decode rate. With four, prompts were refused that would have been in time.
const PREFILL_PER_DECODE: u64 = 12;
/// By so much a machine is put back of which no answer has come yet. What it claims is believed, but
/// not before what others have shown; `choose` tries it all the same.
const UNTRIED_US: u64 = 1_000_000;
/// And what it claims of its speed counts as a good machine's at most: 1,000 tokens of a prompt a second,
/// and 40 of an answer.
const UNTRIED_PREFILL_US_PER_KTOK: u32 = 1_000_000;
const UNTRIED_STEP_US: u32 = 25_000;

pub(super) fn gate_of(
    provider: &Provider,
    offer: &Offer,
    spec: &ModelSpec,
    trust_min: Trust,
) -> Gate {
    let mut gate = Gate::OPEN;
    let state = offer.report.state;
    gate.add_if(Gate::DISTRUSTED, provider.is_distrusted);
    gate.add_if(Gate::UNVERIFIED, !provider.is_verified);
    let is_trusted = provider.has().cover(Traits::of_trust(trust_min));
    gate.add_if(Gate::TRUST_FLOOR, !is_trusted);
    gate.add_if(Gate::CANNOT_SEAL, !provider.spec.can_seal);
    gate.add_if(Gate::DRAINING, provider.report.draining);
    gate.add_if(Gate::THERMAL, provider.report.thermal == Thermal::Critical);
    gate.add_if(Gate::CRASHED, state == SlotState::Crashed);
    gate.add_if(Gate::RELOADING, state == SlotState::Reloading);
    gate.add_if(Gate::WEDGED, offer.report.wedged);
    gate.add_if(Gate::REFUSED, offer.has_refused);
    gate.add_if(Gate::WITHDRAWN, offer.is_withdrawn);
    gate.add_if(Gate::BARRED, provider.is_barred);
    gate.add_if(Gate::STALE, provider.is_stale);
    let is_too_large = !state.is_resident() && !has_room_to_load(provider, spec.weights_bytes);
    gate.add_if(Gate::TOO_LARGE, is_too_large);
    let cap = provider_cap(provider, offer);
    let slot_cap = u32::from(offer.report.concurrency_max);
    let slot_cap = if slot_cap > 0 { slot_cap } else { cap };
    let slot_cap = slot_cap.min(offer.rows_of_quality);
    let is_full = offer.load() >= slot_cap || provider.pending >= cap || offer.room_tokens() == 0;
    gate.add_if(Gate::FULL, is_full);
    gate
}

/// Whether a model that is not in memory can come into it. The machine reports what its own rule for
/// loads allows; of one that says nothing, what the same rule allows an otherwise empty machine.
fn has_room_to_load(provider: &Provider, weights_bytes: u64) -> bool {
    match (provider.report.free_for_load_bytes, provider.spec.memory_gb) {
        (Some(free_bytes), _) => loaded_bytes(weights_bytes) <= free_bytes,
        (None, 0) => true,
        (None, memory_gb) => {
            let physical_bytes = u64::from(memory_gb) * GIB;
            let cap = MemoryCap::new(physical_bytes, MemoryPolicy::reference());
            cap.can_admit(Occupancy::default(), weights_bytes)
        }
    }
}

pub(super) fn candidate_of(
    provider: &Provider,
    ix: u32,
    offer: &Offer,
    limits: &Limits,
) -> Candidate {
    let prefill_us_per_ktok = prefill_us_per_ktok(provider, offer);
    Candidate {
        machine: provider.tag,
        offer: ix,
        wait_us: u32::try_from(wait_us(provider, offer, limits)).unwrap_or(u32::MAX),
        prefill_us_per_ktok: believed(provider, prefill_us_per_ktok, UNTRIED_PREFILL_US_PER_KTOK),
        step_us: believed(provider, alone_us(provider, offer), UNTRIED_STEP_US),
        room_tokens: offer.room_tokens(),
        load: offer.load(),
        has: provider.has(),
    }
}

/// A time that a machine claims, as it counts: times as much as it was found slower, and at least what a
/// good machine takes while nobody knows it.
fn believed(provider: &Provider, claimed_us: u32, untried_us: u32) -> u32 {
    let slow_us = u64::from(claimed_us) * u64::from(provider.slow_milli) / 1_000;
    let slow_us = u32::try_from(slow_us).unwrap_or(u32::MAX);
    match provider.is_unknown() {
        true => slow_us.max(untried_us),
        false => slow_us,
    }
}

/// Requests that the machine may run at once, over all its models: its memory decides where no budget does.
fn provider_cap(provider: &Provider, offer: &Offer) -> u32 {
    if provider.is_on_probation || provider.is_untried || provider.is_lossy {
        return 1;
    }
    if !provider.report.has_capacity {
        return CONCURRENCY_UNREPORTED;
    }
    if offer.report.budget_max > 0 {
        return CONCURRENCY_BUDGETED;
    }
    match provider.spec.memory_gb {
        0..=24 => 2,
        25..=48 => 4,
        49..=96 => 6,
        97..=128 => 8,
        129.. => 12,
    }
}

/// Time that an answer of so many tokens may take by what the machine says of itself: twice the
/// decode steps in the batch that is there at its end.
pub(super) fn answer_time(provider: &Provider, offer: &Offer, tokens: u32) -> Span {
    let step = 2 * step_us(provider, offer);
    Span(step.saturating_mul(u64::from(tokens)))
}

/// Time that the prompts may take that the machine reads for one model: twice what it says.
pub(super) fn reading_us(provider: &Provider, offer: &Offer) -> u64 {
    let per_ktok = 2 * u64::from(prefill_us_per_ktok(provider, offer));
    offer.prefill_tokens.saturating_mul(per_ktok) / 1_000
}

fn step_us(provider: &Provider, offer: &Offer) -> u64 {
    let alone_us = 1_000_000_000 / decode_mtps(provider, offer);
    cost::batch_step_us(alone_us, offer.load())
}

/// One token of a lone answer: as we saw it, by the machine's benchmark, or as it observes itself, which
/// is of its load.
fn alone_us(provider: &Provider, offer: &Offer) -> u32 {
    if offer.lone_step_us > 0 {
        return offer.lone_step_us;
    }
    let mtps = match provider.spec.decode_mtps {
        0 => decode_mtps(provider, offer),
        benchmark => u64::from(benchmark),
    };
    u32::try_from(1_000_000_000 / mtps).unwrap_or(u32::MAX)
}

/// Requests that an offer may run at once without any answer coming more slowly than is pleasant. Of a
/// machine whose speed with this very model nobody knows, as many as it says. It follows from measured
/// figures of the whole fleet, so it is looked at once a report: no other event opens an offer by it.
pub(super) fn rows_of_quality(
    provider: &Provider,
    offer: &Offer,
    typical: Option<Typical>,
    limits: &Limits,
) -> u32 {
    let has_one_model = provider.offers.len() == 1 && provider.spec.decode_mtps > 0;
    let is_known = offer.lone_step_us > 0 || has_one_model;
    if !is_known || limits.pace_min_mtps == 0 {
        return ROWS_MAX;
    }
    let alone_us = u64::from(alone_us(provider, offer)) * u64::from(provider.slow_milli) / 1_000;
    let stalled_us = typical.map_or(0, |typical| {
        let per_ktok = prefill_us_per_ktok(provider, offer);
        let prompt_us = cost::prefill_us(typical.fresh_tokens().into(), per_ktok);
        prompt_us / u64::from(typical.output_tokens())
    });
    let slowest_us = 1_000_000_000_u64.div_ceil(limits.pace_min_mtps.into());
    cost::rows_of_quality(slowest_us, alone_us, stalled_us, ROWS_MAX)
}

/// Thousandths of a token a second, never zero.
fn decode_mtps(provider: &Provider, offer: &Offer) -> u64 {
    if offer.report.decode_mtps > 0 {
        return u64::from(offer.report.decode_mtps);
    }
    if provider.spec.decode_mtps > 0 {
        return u64::from(provider.spec.decode_mtps);
    }
    u64::from(provider.spec.bandwidth_gbs).isqrt().max(1) * 1_000
}

fn prefill_us_per_ktok(provider: &Provider, offer: &Offer) -> u32 {
    let mtps = if offer.report.prefill_mtps > 0 {
        u64::from(offer.report.prefill_mtps)
    } else if provider.spec.prefill_mtps > 0 {
        u64::from(provider.spec.prefill_mtps)
    } else {
        decode_mtps(provider, offer) * PREFILL_PER_DECODE
    };
    u32::try_from(1_000_000_000_000 / mtps).unwrap_or(u32::MAX)
}

/// Expected time to first content of a prompt, by what the machine says of itself.
pub(super) fn forecast(
    provider: &Provider,
    offer: &Offer,
    prompt_tokens: u32,
    limits: &Limits,
) -> Span {
    let per_ktok = prefill_us_per_ktok(provider, offer);
    let prefill_us = cost::prefill_us(prompt_tokens.into(), per_ktok);
    Span(claimed_wait_us(provider, offer, limits).saturating_add(prefill_us))
}

/// Expected time to first content, the arriving request's own prefill aside: a load if the model is
/// cold, the prompts ahead, and one decode step in the batch that it would join; and by how much the
/// machine was later than such a forecast before. What it claims counts only until it was measured.
fn wait_us(provider: &Provider, offer: &Offer, limits: &Limits) -> u64 {
    let doubt_us = if provider.is_unknown() { UNTRIED_US } else { 0 };
    claimed_wait_us(provider, offer, limits) + u64::from(provider.late_us) + doubt_us
}

/// The same by what the machine says of itself.
fn claimed_wait_us(provider: &Provider, offer: &Offer, limits: &Limits) -> u64 {
    let load_us = match (offer.report.state.is_resident(), offer.report.load_ms) {
        (true, _) => 0,
        (false, 0) => limits.cold_load_default.0,
        (false, measured_ms) => u64::from(measured_ms) * 1_000,
    };
    let waiting = u64::from(offer.report.waiting) * REFERENCE_PROMPT_TOKENS;
    let ahead_tokens = offer.prefill_tokens + if offer.others() > 0 { waiting } else { 0 };
    let ahead_us = ahead_tokens * u64::from(prefill_us_per_ktok(provider, offer)) / 1_000;
    load_us + ahead_us + step_us(provider, offer)
}
