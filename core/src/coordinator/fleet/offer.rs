//! One model on one connection: what it reports, and what we have debited since.

use serde::{Deserialize, Serialize};

use super::gate::Gate;
use super::pool::Place;
use super::strangers::Turn;
use crate::event::{SlotReport, SlotState};
use crate::ids::ModelIx;
use crate::time::Tick;
use crate::traits::Traits;

/// One model on one connection, with our debits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Offer {
    pub(super) provider: u32,
    pub(super) model: ModelIx,
    pub(super) report: SlotReport,
    /// Our attempts, and the tokens that they may use.
    pub(super) pending: u32,
    pub(super) reserved_tokens: u64,
    /// Of these, what the provider has accepted and so counts in its reports.
    pub(super) accepted: u32,
    pub(super) accepted_tokens: u64,
    /// Prompt tokens sent whose first content has not come.
    pub(super) prefill_tokens: u64,
    /// All that was sent on this connection, in blocks of prompts.
    pub(super) sent_blocks: u64,
    /// For a token of an answer that had the machine to itself, as we saw it come; 0 = never.
    pub(super) lone_step_us: u32,
    /// Requests at once that leave each answer at a pleasant pace, at its last report.
    pub(super) rows_of_quality: u32,
    /// Work that is not ours, as last reported.
    foreign: u32,
    foreign_tokens: u64,
    /// Work that was ours and may still run: given up since the last report.
    lingering: u32,
    lingering_tokens: u64,
    pub(super) has_refused: bool,
    /// Refusals in a row, and how long the last one is believed whatever is reported.
    pub(super) refusals: u8,
    pub(super) refused_until: Tick,
    /// No longer in the inventory: gets nothing more, and goes once its last attempt has ended.
    pub(super) is_withdrawn: bool,
    /// The largest request that an empty machine holds, as last reported; `u64::MAX` as long as it
    /// never said.
    pub(super) capacity_tokens: u64,
    /// The capacity under which the model's supply counts this offer.
    pub(super) counted_tokens: u64,
    /// The same of its machine's traits, and whether the model is in memory.
    pub(super) counted_has: Traits,
    pub(super) counted_warm: bool,
    pub(super) gate: Gate,
    pub(super) place: Option<Place>,
    /// Its turn among the supply's strangers, and how often it was tried as one.
    pub(super) stranger_at: Option<Turn>,
    pub(super) trials: u32,
    /// And on its rota.
    pub(super) turn_at: Option<u32>,
    /// When it was last sent anything.
    pub(super) sent_at: Tick,
}

impl Offer {
    pub(super) fn cold(provider: u32, model: ModelIx) -> Self {
        let mut gate = Gate::OPEN;
        gate.add_if(Gate::UNVERIFIED, true);
        Self {
            provider,
            model,
            report: SlotReport {
                model,
                state: SlotState::Absent,
                running: 0,
                waiting: 0,
                concurrency_max: 0,
                budget_used: 0,
                budget_max: 0,
                budget_queued: 0,
                decode_mtps: 0,
                prefill_mtps: 0,
                load_ms: 0,
                wedged: false,
            },
            pending: 0,
            reserved_tokens: 0,
            accepted: 0,
            accepted_tokens: 0,
            prefill_tokens: 0,
            sent_blocks: 0,
            lone_step_us: 0,
            rows_of_quality: super::estimate::ROWS_MAX,
            foreign: 0,
            foreign_tokens: 0,
            lingering: 0,
            lingering_tokens: 0,
            has_refused: false,
            refusals: 0,
            refused_until: Tick::ZERO,
            is_withdrawn: false,
            capacity_tokens: u64::MAX,
            counted_tokens: u64::MAX,
            counted_has: Traits::NONE,
            counted_warm: false,
            gate,
            place: None,
            stranger_at: None,
            trials: 0,
            turn_at: None,
            sent_at: Tick::ZERO,
        }
    }

    pub(super) fn reconcile(&mut self, now: Tick, told: Option<&SlotReport>, has_capacity: bool) {
        let model = self.model;
        self.has_refused &= now < self.refused_until;
        // What was given up had the time from one report to the next to end; if it still runs, the
        // report counts it.
        self.lingering = 0;
        self.lingering_tokens = 0;
        match told {
            Some(told) => self.report = *told,
            // Slots alone say what is in memory: without one the model is not loaded, whatever else was said;
            // what was measured before still holds.
            None if has_capacity => {
                let SlotReport {
                    decode_mtps,
                    prefill_mtps,
                    load_ms,
                    ..
                } = self.report;
                self.report = Self::cold(0, model).report;
                self.report.decode_mtps = decode_mtps;
                self.report.prefill_mtps = prefill_mtps;
                self.report.load_ms = load_ms;
            }
            // Not a word about work: what was counted before has no support any more.
            None => {
                self.foreign = 0;
                self.foreign_tokens = 0;
                return;
            }
        }
        let told_rows = u32::from(self.report.running) + u32::from(self.report.waiting);
        self.foreign = told_rows.saturating_sub(self.accepted);
        let told_tokens = self
            .report
            .budget_used
            .saturating_add(self.report.budget_queued);
        self.foreign_tokens = told_tokens.saturating_sub(self.accepted_tokens);
        if let Some(capacity_tokens) = self.report.capacity_tokens() {
            self.capacity_tokens = capacity_tokens;
        }
    }

    /// An attempt was given up; the engine may still be running it.
    pub(super) fn linger(&mut self, need_tokens: u64) {
        self.lingering += 1;
        self.lingering_tokens = self.lingering_tokens.saturating_add(need_tokens);
    }

    /// Rows that the machine runs or has waiting beside our attempts.
    pub(super) fn others(&self) -> u32 {
        self.foreign + self.lingering
    }

    pub(super) fn load(&self) -> u32 {
        self.pending + self.others()
    }

    pub(super) fn used_tokens(&self) -> u64 {
        self.reserved_tokens
            .saturating_add(self.foreign_tokens)
            .saturating_add(self.lingering_tokens)
    }

    pub(super) fn fits(&self, need_tokens: u64) -> bool {
        let max = self.report.budget_max;
        max == 0 || self.used_tokens().saturating_add(need_tokens) <= max
    }

    pub(super) fn room_tokens(&self) -> u32 {
        if self.report.budget_max == 0 {
            return u32::MAX;
        }
        let room = self.report.budget_max.saturating_sub(self.used_tokens());
        u32::try_from(room).unwrap_or(u32::MAX - 1)
    }
}
