//! What the network that this one is compatible with charges a machine for, by its earlier published
//! formula: the state of the model, what is queued and pending there, the backlog by reported
//! tokens, the request itself at its largest, and health. All of it in microseconds.
//!
//! Left out: a share of the graphics processor and of the processor, which machines here do not
//! report, and its discount for cached prefixes.

use super::super::choose::Want;
use super::super::offer::Offer;
use super::super::{Fleet, Provider};
use crate::draw::{Purpose, Seed};
use crate::event::{SlotState, Thermal};

const MS: u64 = 1_000;
const IDLE_SHUTDOWN_US: u64 = 20_000 * MS;
const ABSENT_US: u64 = 30_000 * MS;
const QUEUED_US: u64 = 3_000 * MS;
const PENDING_US: u64 = 750 * MS;
const PRESSURE_US: u64 = 4_000 * MS;
const FAIR_US: u64 = 2_000 * MS;
const SERIOUS_US: u64 = 8_000 * MS;
/// Costs that are no further apart are the same.
const NEAR_US: u64 = 3_000 * MS;
/// Static rates: prefill is so many times decode; decode falls by so much for each row, in thousandths.
const PREFILL_PER_DECODE: u64 = 12;
const ROW_SLOWDOWN_MILLI: u64 = 390;
/// It believes no prefill beyond 5,000 tokens a second.
const PREFILL_MTPS_MAX: u64 = 5_000_000;

/// One machine's cost, and what decides between near ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    cost_us: u64,
    queued: u32,
    pending: u32,
}

impl Fleet {
    /// The cheapest of `fit` offers; among near ones the fewest queued, then the fewest pending, then
    /// chance.
    pub(super) fn cheapest_by_reference(
        &self,
        fit: impl Iterator<Item = u32>,
        want: &Want<'_>,
        seed: Seed,
    ) -> Option<u32> {
        let costs: Vec<(Cost, u32)> = fit.map(|ix| (self.reference_cost(ix, want), ix)).collect();
        let best_us = costs.iter().map(|(cost, _)| cost.cost_us).min()?;
        let near = costs
            .into_iter()
            .filter(|(cost, _)| cost.cost_us - best_us <= NEAR_US);
        let ranked = near.min_by_key(|(cost, ix)| {
            let machine = self.providers.at(self.offers.at(*ix).provider).tag;
            let which = u128::from(machine.0);
            let chance = seed.draw(Purpose::Tie, want.request.0, which);
            (cost.queued, cost.pending, chance, machine)
        });
        ranked.map(|(_, ix)| ix)
    }

    fn reference_cost(&self, ix: u32, want: &Want<'_>) -> Cost {
        let offer = self.offers.at(ix);
        let provider = self.providers.at(offer.provider);
        let told = u32::from(offer.report.running) + u32::from(offer.report.waiting);
        let queued = offer.pending.max(told);
        let pending = provider.pending;
        let decode_mtps = decode_mtps(provider, offer);
        let output_tokens = want
            .need_tokens
            .saturating_sub(u64::from(want.prompt_tokens));
        let backlog_tokens = offer
            .report
            .budget_used
            .saturating_add(offer.report.budget_queued);
        let terms = [
            state_us(offer.report.state),
            QUEUED_US * u64::from(queued),
            PENDING_US * u64::from(pending),
            at_rate(backlog_tokens, decode_mtps),
            at_rate(want.prompt_tokens.into(), prefill_mtps(provider, offer)),
            at_rate(output_tokens, decode_mtps),
            health_us(provider),
        ];
        Cost {
            cost_us: terms.into_iter().fold(0, u64::saturating_add),
            queued,
            pending,
        }
    }
}

const fn state_us(state: SlotState) -> u64 {
    match state {
        SlotState::Idle | SlotState::Running => 0,
        SlotState::IdleShutdown => IDLE_SHUTDOWN_US,
        SlotState::Absent | SlotState::Crashed | SlotState::Reloading => ABSENT_US,
    }
}

fn health_us(provider: &Provider) -> u64 {
    let pressure_ppm = u64::from(provider.report.memory_pressure_ppm);
    let heat_us = match provider.report.thermal {
        Thermal::Nominal => 0,
        Thermal::Fair => FAIR_US,
        Thermal::Serious | Thermal::Critical => SERIOUS_US,
    };
    PRESSURE_US * pressure_ppm / 1_000_000 + heat_us
}

/// Observed, or what a machine said when it joined, less what the rows cost that it runs.
fn decode_mtps(provider: &Provider, offer: &Offer) -> u64 {
    if offer.report.decode_mtps > 0 {
        return u64::from(offer.report.decode_mtps);
    }
    let slowed = 1_000 + ROW_SLOWDOWN_MILLI * u64::from(offer.report.running);
    (static_mtps(provider) * 1_000 / slowed).max(1_000)
}

fn prefill_mtps(provider: &Provider, offer: &Offer) -> u64 {
    let observed = u64::from(offer.report.prefill_mtps);
    let said = u64::from(provider.spec.prefill_mtps);
    let known = [observed, said].into_iter().find(|mtps| *mtps > 0);
    let mtps = known.unwrap_or_else(|| static_mtps(provider) * PREFILL_PER_DECODE);
    mtps.min(PREFILL_MTPS_MAX)
}

fn static_mtps(provider: &Provider) -> u64 {
    if provider.spec.decode_mtps > 0 {
        return u64::from(provider.spec.decode_mtps);
    }
    u64::from(provider.spec.bandwidth_gbs).isqrt().max(1) * 1_000
}

fn at_rate(tokens: u64, mtps: u64) -> u64 {
    tokens.saturating_mul(1_000_000_000) / mtps.max(1)
}
