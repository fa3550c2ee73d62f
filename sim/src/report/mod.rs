//! What users would have seen: tallies while a run goes on, a report at its end.

mod histogram;
mod text;

use std::collections::BTreeMap;

use cereus_core::denial::Denial;
use cereus_core::digest::Mix;
use cereus_core::effect::{Alarm, Receipt};
use cereus_core::event::SlotReport;
use cereus_core::time::{Span, Tick};
use serde::Serialize;

pub use histogram::Histogram;

use crate::machine::Prompts;
use crate::world::config::Slo;
use crate::world::crowd::Asked;
use crate::world::ledger::Totals;
use crate::world::living::Living;

/// Counts and distributions of a run under way.
#[derive(Clone, Debug)]
pub struct Tally {
    slo: Slo,
    pub asked: u64,
    pub finished: u64,
    refusals: BTreeMap<&'static str, u64>,
    failures: BTreeMap<&'static str, u64>,
    alarms: BTreeMap<Alarm, u64>,
    /// Finished without a word.
    empty: u64,
    good: u64,
    good_tokens: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
    attempts: u64,
    ttft_us: Histogram,
    tpot_us: Histogram,
    latency_us: Histogram,
    queue_us: Histogram,
    /// All but the machines' steps.
    pub events: u64,
    /// The only figure that depends on the pace.
    pub step_events: u64,
    pub core_steps: u64,
    pub effects: u64,
    pub reports: u64,
    /// Of all reports: rows that run and could, tokens that are reserved and could be.
    rows: Used,
    kv_tokens: Used,
    pub wakes: u64,
    pub cancels: u64,
    pub machine_refusals: u64,
}

/// What the consumer of a whole answer saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// None where nothing was said.
    pub ttft: Option<Span>,
    /// For each token after the first; none where there is no such token.
    pub tpot: Option<Span>,
    /// Whether it met the objective.
    pub is_good: bool,
}

/// A part of a whole, summed over samples.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    part: u128,
    whole: u128,
}

impl Used {
    fn add(&mut self, part: u64, whole: u64) {
        self.part += u128::from(part);
        self.whole += u128::from(whole);
    }

    fn ppm(self) -> u64 {
        share(self.part, self.whole, 1_000_000)
    }
}

/// What only the world knows at the end.
#[derive(Clone, Debug)]
pub struct Closing {
    pub began: Tick,
    pub ended: Tick,
    pub machines: u64,
    /// How many there are of each kind.
    pub fleet: BTreeMap<String, u32>,
    pub seed: u64,
    pub busy_ns: u128,
    pub engine_steps: u64,
    pub prompts: Prompts,
    pub messages: u64,
    pub resends: u64,
    pub store_writes: u64,
    pub money: Totals,
    pub core_digest: u128,
    pub living: Living,
}

/// Percentiles of one distribution, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Percentiles {
    pub count: u64,
    pub mean_us: u64,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p95_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

/// Where the money is at the end, in micro-USD; the sum is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Money {
    pub deposited: i64,
    pub consumers: i64,
    pub held: i64,
    pub platform: i64,
    pub providers: i64,
    pub sum: i64,
}

/// Work done, for `--stats`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Work {
    /// All but the machines' steps.
    pub events: u64,
    /// The only figure that depends on the pace.
    pub step_events: u64,
    pub core_steps: u64,
    pub effects: u64,
    pub reports: u64,
    pub wakes: u64,
    pub cancels: u64,
    pub machine_refusals: u64,
    pub engine_steps: u64,
    pub messages: u64,
    pub resends: u64,
    pub store_writes: u64,
}

/// See the module. Everything in it is the same on every machine, and all but `work.step_events` at
/// either pace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Report {
    pub seed: u64,
    pub machines: u64,
    pub fleet: BTreeMap<String, u32>,
    /// From the first request to the last event.
    pub simulated_us: u64,
    pub asked: u64,
    pub finished: u64,
    /// By error code, as the API shows it.
    pub refused: BTreeMap<&'static str, u64>,
    /// After the first token.
    pub failed: BTreeMap<&'static str, u64>,
    pub alarms: BTreeMap<String, u64>,
    pub slo_ttft_us: u64,
    pub slo_tpot_us: u64,
    /// Finished without a word; they have no time to the first token.
    pub empty: u64,
    /// Finished inside both limits.
    pub good: u64,
    pub goodput_ppm: u64,
    pub good_tokens_per_s_milli: u64,
    pub ttft: Percentiles,
    /// Per token after the first.
    pub tpot: Percentiles,
    pub latency: Percentiles,
    /// From arrival to dispatch.
    pub queued: Percentiles,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    /// Attempts of finished requests.
    pub attempts: u64,
    /// Of all prompts that machines began, whether or not their answers were finished.
    pub begun_prompt_tokens: u64,
    /// Of these, found in a prefix cache.
    pub cached_prompt_tokens: u64,
    pub prefix_hit_ppm: u64,
    /// Of all machines' time, with at least one row to compute.
    pub busy_ppm: u64,
    /// Of the rows that machines can compute together, and of the tokens that they can hold.
    pub rows_ppm: u64,
    pub kv_tokens_ppm: u64,
    pub money: Money,
    pub work: Work,
    #[serde(flatten)]
    pub living: Living,
    /// Of every event that the coordinator handled and every effect that it had.
    pub digest: String,
}

impl Tally {
    #[must_use]
    pub fn new(slo: Slo) -> Self {
        Self {
            slo,
            asked: 0,
            finished: 0,
            refusals: BTreeMap::new(),
            failures: BTreeMap::new(),
            alarms: BTreeMap::new(),
            empty: 0,
            good: 0,
            good_tokens: 0,
            prompt_tokens: 0,
            completion_tokens: 0,
            attempts: 0,
            ttft_us: Histogram::default(),
            tpot_us: Histogram::default(),
            latency_us: Histogram::default(),
            queue_us: Histogram::default(),
            events: 0,
            step_events: 0,
            core_steps: 0,
            effects: 0,
            reports: 0,
            rows: Used::default(),
            kv_tokens: Used::default(),
            wakes: 0,
            cancels: 0,
            machine_refusals: 0,
        }
    }

    pub fn refuse(&mut self, denial: Denial) {
        *self.refusals.entry(denial.code()).or_default() += 1;
    }

    pub fn fail(&mut self, denial: Denial) {
        *self.failures.entry(denial.code()).or_default() += 1;
    }

    pub fn alarm(&mut self, alarm: Alarm, count: u64) {
        *self.alarms.entry(alarm).or_default() += count;
    }

    /// A whole answer reached its consumer at `at`.
    pub fn finish(&mut self, at: Tick, asked: &Asked, receipt: &Receipt) -> Served {
        self.finished += 1;
        self.attempts += u64::from(receipt.attempts);
        self.prompt_tokens += u64::from(receipt.usage.prompt_tokens);
        self.completion_tokens += u64::from(receipt.usage.completion_tokens);
        // An answer that is over before its hold was seen to be durable comes all at once.
        let first_at = asked.first_at.unwrap_or(at);
        let ttft = first_at.since(asked.sent_at);
        let has_content = receipt.usage.completion_tokens > 0;
        if has_content {
            self.ttft_us.note(ttft.0);
        } else {
            self.empty += 1;
        }
        self.latency_us.note(at.since(asked.sent_at).0);
        self.queue_us
            .note(receipt.dispatched_at.since(receipt.arrived_at).0);
        let later_tokens = u64::from(receipt.usage.completion_tokens.saturating_sub(1));
        let tpot_us = at.since(first_at).0.checked_div(later_tokens).unwrap_or(0);
        if later_tokens > 0 {
            self.tpot_us.note(tpot_us);
        }
        let is_good = ttft <= self.slo.ttft && tpot_us <= self.slo.tpot.0;
        if is_good {
            self.good += 1;
            self.good_tokens += u64::from(receipt.usage.completion_tokens);
        }
        Served {
            ttft: has_content.then_some(ttft),
            tpot: (later_tokens > 0).then_some(Span(tpot_us)),
            is_good,
        }
    }

    /// A machine's report arrived.
    pub fn sample(&mut self, slot: &SlotReport) {
        self.reports += 1;
        self.rows
            .add(slot.running.into(), slot.concurrency_max.into());
        self.kv_tokens.add(slot.budget_used, slot.budget_max);
    }

    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refusals.values().sum()
    }

    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    #[must_use]
    pub fn report(self, closing: Closing) -> Report {
        let simulated_us = closing.ended.since(closing.began).0;
        let capacity_ns = u128::from(simulated_us) * 1_000 * u128::from(closing.machines);
        let work = Work {
            events: self.events,
            step_events: 0,
            core_steps: self.core_steps,
            effects: self.effects,
            reports: self.reports,
            wakes: self.wakes,
            cancels: self.cancels,
            machine_refusals: self.machine_refusals,
            engine_steps: closing.engine_steps,
            messages: closing.messages,
            resends: closing.resends,
            store_writes: closing.store_writes,
        };
        let mut report = Report {
            seed: closing.seed,
            machines: closing.machines,
            fleet: closing.fleet,
            simulated_us,
            asked: self.asked,
            finished: self.finished,
            refused: self.refusals,
            failed: self.failures,
            alarms: self
                .alarms
                .iter()
                .map(|(alarm, count)| (format!("{alarm:?}"), *count))
                .collect(),
            slo_ttft_us: self.slo.ttft.0,
            slo_tpot_us: self.slo.tpot.0,
            empty: self.empty,
            good: self.good,
            goodput_ppm: share(u128::from(self.good), u128::from(self.asked), 1_000_000),
            good_tokens_per_s_milli: share(
                u128::from(self.good_tokens),
                u128::from(simulated_us),
                1_000_000_000,
            ),
            ttft: percentiles(&self.ttft_us),
            tpot: percentiles(&self.tpot_us),
            latency: percentiles(&self.latency_us),
            queued: percentiles(&self.queue_us),
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
            attempts: self.attempts,
            begun_prompt_tokens: closing.prompts.tokens,
            cached_prompt_tokens: closing.prompts.cached_tokens,
            prefix_hit_ppm: share(
                u128::from(closing.prompts.cached_tokens),
                u128::from(closing.prompts.tokens),
                1_000_000,
            ),
            busy_ppm: share(closing.busy_ns, capacity_ns, 1_000_000),
            rows_ppm: self.rows.ppm(),
            kv_tokens_ppm: self.kv_tokens.ppm(),
            money: money(&closing.money),
            work,
            living: closing.living,
            digest: String::new(),
        };
        let mut mix = Mix::default();
        // What the core was told and decided; how its state lies in memory is no result.
        mix.wide(closing.core_digest);
        mix.wide(Mix::of(&report));
        report.digest = format!("{:032x}", mix.end_wide());
        report.work.step_events = self.step_events;
        report
    }
}

fn share(part: u128, whole: u128, unit: u128) -> u64 {
    u64::try_from(part * unit / whole.max(1)).unwrap_or(u64::MAX)
}

fn percentiles(histogram: &Histogram) -> Percentiles {
    Percentiles {
        count: histogram.count(),
        mean_us: histogram.mean(),
        p50_us: histogram.per_mille(500),
        p90_us: histogram.per_mille(900),
        p95_us: histogram.per_mille(950),
        p99_us: histogram.per_mille(990),
        max_us: histogram.max(),
    }
}

fn money(totals: &Totals) -> Money {
    let narrow = |amount: i128| i64::try_from(amount).expect("no more money than was deposited");
    Money {
        deposited: narrow(-totals.clearing),
        consumers: narrow(totals.consumers),
        held: narrow(totals.held),
        platform: narrow(totals.platform),
        providers: narrow(totals.providers),
        sum: narrow(totals.sum()),
    }
}
