//! Which rows run which tokens next, for one loaded model: pure, no clock, no tensors.
//!
//! The engine thread asks for a [`StepPlan`], computes it and commits what came of it; the simulator
//! drives the very same code and jumps over runs of plain decode with [`Scheduler::advance_decode`].
//! Rows that decode go first in each step, then prompts, in order; among waiting rows the higher
//! priority goes first, then who came first. Nobody overtakes a row that does not fit yet: small prompts
//! that pass a large one would let it starve.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod config;
pub mod flow;
pub mod leases;
mod outcome;
mod plan;
mod planner;
mod row;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

pub use config::{Admission, ConfigError, SchedulerConfig};
pub use plan::{
    Admitted, Capacity, Decode, EndReason, Ended, Preempted, Prefill, Restore, Save, StepPlan,
};
pub use row::{Cancelled, Refused, RowId, RowRequest, RowSlot};

use crate::kv::{BlockHash, KvLayout, KvLimits, Ledger, PageId, TakenIn};
use row::Row;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scheduler {
    config: SchedulerConfig,
    kv: Ledger,
    /// By slot.
    rows: Vec<Option<Row>>,
    /// Running slots in order of admission.
    order: Vec<RowSlot>,
    /// Last in, first out.
    free: Vec<RowSlot>,
    /// By priority, then by arrival.
    waiting: VecDeque<Row>,
    /// Of ended rows, for rows to come.
    spare_hashes: Vec<Vec<BlockHash>>,
    arrivals: u64,
    /// Worst case of all waiting rows.
    queued_bytes: u64,
    prefilling_count: u16,
    /// Tokens whose KV is written, over all running rows.
    context_tokens_live: u64,
}

impl Scheduler {
    /// # Errors
    /// The limits or the layout contradict themselves or each other.
    pub fn new(config: SchedulerConfig, layout: KvLayout) -> Result<Self, ConfigError> {
        let config = config.checked()?;
        let limits = KvLimits {
            rows_max: config.rows_max,
            chunk_tokens: config.prefill_chunk_tokens,
            solo_tokens: config.solo_prefill_tokens,
            hit_limit: config.hit_limit,
        };
        let kv = Ledger::new(layout, limits)?;
        let scheduler = Self {
            config,
            kv,
            rows: vec![None; usize::from(config.rows_max)],
            order: Vec::with_capacity(usize::from(config.rows_max)),
            free: (0..config.rows_max).rev().map(RowSlot).collect(),
            waiting: VecDeque::new(),
            spare_hashes: Vec::new(),
            arrivals: 0,
            queued_bytes: 0,
            prefilling_count: 0,
            context_tokens_live: 0,
        };
        if scheduler.kv.bytes(2) > scheduler.bytes_max() {
            return Err(ConfigError::NoKv);
        }
        Ok(scheduler)
    }

    #[must_use]
    pub const fn config(&self) -> &SchedulerConfig {
        &self.config
    }

    #[must_use]
    pub const fn kv(&self) -> &Ledger {
        &self.kv
    }

    /// The pages of the row in `slot`, in one group of layers. See [`Ledger::table`].
    #[must_use]
    pub fn page_table(&self, slot: RowSlot, group: usize) -> &[PageId] {
        self.kv.table(slot.0, group)
    }

    /// Takes a row into the queue. It is admitted by a later [`Self::plan`]. `hashes` are the names
    /// of the prompt's full blocks; without any, nothing is looked up.
    ///
    /// # Errors
    /// The row can never run, or not now.
    pub fn submit(&mut self, ask: RowRequest, hashes: &[BlockHash]) -> Result<(), Refused> {
        if ask.prompt_tokens == 0 || ask.output_tokens_max == 0 {
            return Err(Refused::Empty);
        }
        if ask.tokens_max() > self.config.context_tokens {
            return Err(Refused::TooLong);
        }
        if self.kv.bytes(ask.tokens_max()) > self.bytes_max() {
            return Err(Refused::NeverFits);
        }
        if self.holds(ask.id) {
            return Err(Refused::Duplicate);
        }
        if self.waiting.len() >= usize::from(self.config.waiting_max) {
            return Err(Refused::QueueFull);
        }
        let blocks = (ask.prompt_tokens / self.kv.layout().block_tokens) as usize;
        let mut own = self.spare_hashes.pop().unwrap_or_default();
        own.extend(hashes.iter().take(blocks));
        let row = Row {
            ask,
            arrival: self.arrivals,
            hashes: own,
            computed: 0,
            generated: 0,
            prefill_end: ask.prompt_tokens,
            cached: None,
            is_paused: false,
            has_left: false,
        };
        self.arrivals += 1;
        self.wait(row);
        Ok(())
    }

    /// Names of blocks that generated tokens completed, in order after those that are known. Told
    /// before the step that writes a block's last token is planned, they are of use at once.
    pub fn extend_chain(&mut self, id: RowId, hashes: &[BlockHash]) {
        let block = self.kv.layout().block_tokens;
        if let Some(row) = self.row_mut(id) {
            row.hashes.extend_from_slice(hashes);
            let tokens = u64::from(row.tokens());
            let named = row.hashes.len() as u64 * u64::from(block);
            assert!(named <= tokens, "only blocks that are full have names");
        }
    }

    /// Leading tokens of the row's prompt that were found when it was first admitted; 0 before.
    #[must_use]
    pub fn cached_tokens(&self, id: RowId) -> u32 {
        let mut running = self.order.iter().map(|&slot| occupied(&self.rows, slot));
        let row = running.find(|row| row.ask.id == id);
        let row = row.or_else(|| self.waiting.iter().find(|row| row.ask.id == id));
        row.and_then(|row| row.cached).unwrap_or(0)
    }

    /// The row's consumer does not read: it keeps its place and all that it has, and is not planned.
    pub fn pause(&mut self, id: RowId) {
        self.set_paused(id, true);
    }

    pub fn resume(&mut self, id: RowId) {
        self.set_paused(id, false);
    }

    /// Room for blocks that were kept elsewhere, between two steps. See [`Ledger::take_in`].
    pub fn take_in(&mut self, chain: &[BlockHash], from: usize) -> Vec<TakenIn> {
        self.kv.take_in(chain, from)
    }

    /// The block's pages were not filled after all.
    pub fn forget_block(&mut self, hash: BlockHash) {
        self.kv.forget_block(hash);
    }

    /// The model gets another grant. Rows that a smaller one cannot hold together are preempted by
    /// the next plans. Those that it cannot hold even alone are appended to `out`, and the caller
    /// cancels them: they would wait for ever.
    pub fn resize(&mut self, grant_bytes: u64, out: &mut Vec<RowId>) {
        self.kv.resize(grant_bytes);
        let running = self.order.iter().map(|&slot| occupied(&self.rows, slot));
        for row in running.chain(&self.waiting) {
            if self.kv.bytes(row.ask.tokens_max()) > self.bytes_max() {
                out.push(row.ask.id);
            }
        }
    }

    /// Takes a row out, wherever it is. Its slot is free at once, so the caller calls this between
    /// steps, never while a step may still read the row's KV. Blocks that it has completed stay of
    /// use to others.
    pub fn cancel(&mut self, id: RowId) -> Cancelled {
        if let Some(place) = self.waiting.iter().position(|row| row.ask.id == id) {
            let row = self.take_waiting(place);
            self.recycle(row);
            return Cancelled::Waiting;
        }
        let Some(slot) = self.slot(id) else {
            return Cancelled::Unknown;
        };
        let row = self.remove(slot);
        self.recycle(row);
        Cancelled::Running(slot)
    }

    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.order.is_empty() && self.waiting.is_empty()
    }

    /// Tokens whose KV is written, over all running rows: what a decode step reads.
    #[must_use]
    pub const fn context_tokens_live(&self) -> u64 {
        self.context_tokens_live
    }

    /// Running rows, in order of admission.
    pub fn running(&self) -> impl Iterator<Item = (RowSlot, RowId)> + '_ {
        self.order
            .iter()
            .map(|&slot| (slot, occupied(&self.rows, slot).ask.id))
    }

    /// The longest prompt plus output that [`Self::submit`] takes.
    #[must_use]
    pub fn tokens_max(&self) -> u32 {
        let bytes_max = self.bytes_max();
        let (mut fits, mut too_many) = (0, self.config.context_tokens.saturating_add(1));
        while too_many - fits > 1 {
            let middle = fits + (too_many - fits) / 2;
            if self.kv.bytes(middle) <= bytes_max {
                fits = middle;
            } else {
                too_many = middle;
            }
        }
        fits
    }

    /// What a heartbeat reports.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        let prefill_left = self
            .order
            .iter()
            .map(|&slot| u64::from(occupied(&self.rows, slot).prefill_left()));
        let layout = self.kv.layout();
        let page_bytes = u128::from(layout.bytes_per_page_of_row());
        let tokens = |bytes: u64| u128::from(bytes) * u128::from(layout.page_tokens);
        let floor = |bytes| u64::try_from(tokens(bytes) / page_bytes).unwrap_or(u64::MAX);
        let ceil = |bytes| u64::try_from(tokens(bytes).div_ceil(page_bytes)).unwrap_or(u64::MAX);
        Capacity {
            running: count(self.order.len()),
            waiting: count(self.waiting.len()),
            concurrency_max: self.config.rows_max,
            budget_used: ceil(self.kv.reserved_bytes()),
            budget_max: floor(self.bytes_max()),
            budget_queued: ceil(self.queued_bytes),
            prefill_left_tokens: prefill_left.sum(),
        }
    }

    /// What one row may come to hold when it is alone.
    fn bytes_max(&self) -> u64 {
        let grant = self.kv.layout().grant_bytes;
        grant - self.held_back_bytes()
    }

    /// Kept for the growth of rows that run.
    fn held_back_bytes(&self) -> u64 {
        match self.config.admission {
            Admission::Optimistic { watermark_ppm } => {
                let part = u128::from(watermark_ppm.min(1_000_000));
                let wide = u128::from(self.kv.layout().grant_bytes) * part;
                u64::try_from(wide.div_ceil(1_000_000)).expect("a part of a u64")
            }
            Admission::WorstCase => 0,
        }
    }

    fn worst_bytes(&self, row: &Row) -> u64 {
        self.kv.bytes(row.ask.tokens_max())
    }

    /// For how many tokens the row reserves room, when it is to have so many now: for these, or for
    /// all that it may come to have.
    fn reserved_tokens(&self, row: &Row, tokens: u32) -> u32 {
        match self.config.admission {
            Admission::Optimistic { .. } if !row.has_left => tokens,
            Admission::Optimistic { .. } | Admission::WorstCase => row.ask.tokens_max(),
        }
    }

    /// Puts a row behind those that go first. One that was preempted came before all that wait in
    /// its class, so it is the first of them.
    fn wait(&mut self, row: Row) {
        let key = |row: &Row| (core::cmp::Reverse(row.ask.priority), row.arrival);
        let own = key(&row);
        let place = self.waiting.partition_point(|other| key(other) < own);
        self.queued_bytes += self.worst_bytes(&row);
        self.waiting.insert(place, row);
    }

    fn take_waiting(&mut self, place: usize) -> Row {
        let row = self.waiting.remove(place).expect("the caller found it");
        self.queued_bytes -= self.worst_bytes(&row);
        row
    }

    /// Takes a running row out of its slot.
    fn remove(&mut self, slot: RowSlot) -> Row {
        let row = self.rows[usize::from(slot.0)]
            .take()
            .expect("only an occupied slot is emptied");
        self.order.retain(|&other| other != slot);
        self.free.push(slot);
        self.kv.release(slot.0);
        self.context_tokens_live -= u64::from(row.computed);
        self.prefilling_count -= u16::from(row.is_prefilling());
        row
    }

    fn recycle(&mut self, row: Row) {
        let mut hashes = row.hashes;
        hashes.clear();
        self.spare_hashes.push(hashes);
    }

    fn set_paused(&mut self, id: RowId, is_paused: bool) {
        if let Some(row) = self.row_mut(id) {
            row.is_paused = is_paused;
        }
    }

    fn row_mut(&mut self, id: RowId) -> Option<&mut Row> {
        if let Some(slot) = self.slot(id) {
            return self.rows[usize::from(slot.0)].as_mut();
        }
        self.waiting.iter_mut().find(|row| row.ask.id == id)
    }

    fn holds(&self, id: RowId) -> bool {
        self.slot(id).is_some() || self.waiting.iter().any(|row| row.ask.id == id)
    }

    fn slot(&self, id: RowId) -> Option<RowSlot> {
        self.order
            .iter()
            .copied()
            .find(|&slot| occupied(&self.rows, slot).ask.id == id)
    }
}

fn occupied(rows: &[Option<Row>], slot: RowSlot) -> &Row {
    rows[usize::from(slot.0)]
        .as_ref()
        .expect("order lists occupied slots")
}

fn occupied_mut(rows: &mut [Option<Row>], slot: RowSlot) -> &mut Row {
    rows[usize::from(slot.0)]
        .as_mut()
        .expect("order lists occupied slots")
}

fn count(len: usize) -> u16 {
    u16::try_from(len).expect("queues are bounded by u16 limits")
}
