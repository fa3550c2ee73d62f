//! Which rows run which tokens next, for one loaded model: pure, no clock, no tensors.
//!
//! The engine thread asks for a [`StepPlan`], computes it and commits what came of it; the simulator
//! drives the very same code and jumps over runs of plain decode with [`Scheduler::advance_decode`].
//! First come, first served within a priority; a row is admitted only when its worst case (prompt
//! plus output bound) fits the KV budget, so a running row is never preempted.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod config;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

pub use config::{ConfigError, SchedulerConfig};
pub use plan::{Capacity, Decode, EndReason, Ended, Prefill, StepPlan};

/// Names a row: chosen by the caller, never used twice while the row lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId(pub u64);

/// Where a running row lives: below `rows_max`, reused after the row ends. The engine keys its KV
/// caches by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowSlot(pub u16);

/// One sequence to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowRequest {
    pub id: RowId,
    pub prompt_tokens: u32,
    pub output_tokens_max: u32,
    /// Higher goes first; equals in order of arrival.
    pub priority: u8,
}

/// Why a row was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refused {
    /// A row of this id waits or runs.
    Duplicate,
    /// No prompt, or no room for a single token of output.
    Empty,
    /// Would not fit the KV budget even alone.
    NeverFits,
    /// Too many rows wait.
    QueueFull,
    /// Prompt plus output exceed the model's context.
    TooLong,
}

impl core::fmt::Display for Refused {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Duplicate => "a row with this id waits or runs already",
            Self::Empty => "a row needs at least one prompt token and one output token",
            Self::NeverFits => "prompt and output bound exceed the KV budget; lower max_tokens",
            Self::QueueFull => "the queue of waiting rows is full; try again later",
            Self::TooLong => "prompt and output bound exceed the context; lower max_tokens",
        })
    }
}

impl core::error::Error for Refused {}

/// Where a cancelled row was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    Running(RowSlot),
    /// Neither waits nor runs: it ended before.
    Unknown,
    Waiting,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Row {
    ask: RowRequest,
    /// Prompt tokens whose KV is written.
    prefilled: u32,
    /// Tokens sampled so far; the first comes with the last prefill chunk.
    generated: u32,
}

impl Row {
    const fn kv_worst_tokens(&self) -> u64 {
        worst_case(&self.ask)
    }

    const fn is_prefilling(&self) -> bool {
        self.prefilled < self.ask.prompt_tokens
    }

    const fn remaining(&self) -> u32 {
        self.ask.output_tokens_max - self.generated
    }
}

const fn worst_case(ask: &RowRequest) -> u64 {
    // Widening only; `u64::from` is not const.
    ask.prompt_tokens as u64 + ask.output_tokens_max as u64
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scheduler {
    config: SchedulerConfig,
    /// By slot.
    rows: Vec<Option<Row>>,
    /// Running slots in order of admission.
    order: Vec<RowSlot>,
    /// Last in, first out.
    free: Vec<RowSlot>,
    /// By priority, then by arrival.
    waiting: VecDeque<RowRequest>,
    kv_used: u64,
    kv_queued: u64,
    prefilling_count: u16,
    /// Tokens whose KV is written, over all running rows.
    context_tokens_live: u64,
}

impl Scheduler {
    pub fn new(config: SchedulerConfig) -> Result<Self, ConfigError> {
        let config = config.checked()?;
        Ok(Self {
            config,
            rows: vec![None; usize::from(config.rows_max)],
            order: Vec::with_capacity(usize::from(config.rows_max)),
            free: (0..config.rows_max).rev().map(RowSlot).collect(),
            waiting: VecDeque::with_capacity(usize::from(config.waiting_max)),
            kv_used: 0,
            kv_queued: 0,
            prefilling_count: 0,
            context_tokens_live: 0,
        })
    }

    #[must_use]
    pub const fn config(&self) -> &SchedulerConfig {
        &self.config
    }

    /// Takes a row into the queue. It is admitted by a later [`Self::plan`].
    pub fn submit(&mut self, ask: RowRequest) -> Result<(), Refused> {
        if ask.prompt_tokens == 0 || ask.output_tokens_max == 0 {
            return Err(Refused::Empty);
        }
        let worst = worst_case(&ask);
        if worst > u64::from(self.config.context_tokens) {
            return Err(Refused::TooLong);
        }
        if worst > self.config.kv_token_budget {
            return Err(Refused::NeverFits);
        }
        if self.holds(ask.id) {
            return Err(Refused::Duplicate);
        }
        if self.waiting.len() >= usize::from(self.config.waiting_max) {
            return Err(Refused::QueueFull);
        }
        let place = self
            .waiting
            .partition_point(|other| other.priority >= ask.priority);
        self.waiting.insert(place, ask);
        self.kv_queued += worst;
        Ok(())
    }

    /// Admits what fits and writes the next step into `out` (which is cleared). An empty plan means
    /// that there is nothing to do until the next [`Self::submit`].
    pub fn plan(&mut self, out: &mut StepPlan) {
        out.clear();
        self.admit();
        for &slot in &self.order {
            let row = occupied(&self.rows, slot);
            if !row.is_prefilling() {
                out.decode.push(Decode {
                    row: row.ask.id,
                    slot,
                    position: row.ask.prompt_tokens + row.generated - 1,
                });
            }
        }
        if self.prefilling_count == 0 {
            return;
        }
        let decoding = u32::try_from(out.decode.len()).expect("rows are counted in u16");
        let mut quota = self.config.step_token_budget - decoding;
        if decoding > 0 {
            quota = quota.min(self.config.prefill_chunk_tokens);
        }
        for &slot in &self.order {
            let row = occupied(&self.rows, slot);
            if quota == 0 {
                break;
            }
            if !row.is_prefilling() {
                continue;
            }
            let left = row.ask.prompt_tokens - row.prefilled;
            let len = left.min(quota);
            quota -= len;
            out.prefill.push(Prefill {
                row: row.ask.id,
                slot,
                start: row.prefilled,
                len,
                is_last: len == left,
            });
        }
    }

    /// The step of `plan` was computed. `stopped` names the rows whose newest token ended them (end
    /// of text, stop string); a name that the step gave no token is ignored. Rows that ended are
    /// appended to `out`. Rows cancelled since the plan are passed over.
    pub fn commit(&mut self, plan: &StepPlan, stopped: &[RowId], out: &mut Vec<Ended>) {
        for chunk in &plan.prefill {
            let Some(row) = live(&mut self.rows, chunk.slot, chunk.row) else {
                continue;
            };
            assert_eq!(row.prefilled, chunk.start, "a plan is committed once");
            row.prefilled += chunk.len;
            self.context_tokens_live += u64::from(chunk.len);
            if !chunk.is_last {
                continue;
            }
            assert_eq!(
                row.prefilled, row.ask.prompt_tokens,
                "the last chunk is last"
            );
            self.prefilling_count -= 1;
            row.generated = 1;
            self.end_if_due(chunk.slot, stopped, out);
        }
        for decode in &plan.decode {
            let Some(row) = live(&mut self.rows, decode.slot, decode.row) else {
                continue;
            };
            row.generated += 1;
            self.context_tokens_live += 1;
            self.end_if_due(decode.slot, stopped, out);
        }
    }

    /// How many steps of plain decode lie ahead: nothing can be admitted, no prompt is unfinished,
    /// and no row reaches its bound before the last of them. `None` when the next step is not plain
    /// decode.
    #[must_use]
    pub fn steps_until_change(&self) -> Option<u32> {
        if self.prefilling_count > 0 || self.can_admit() {
            return None;
        }
        self.remaining_min()
    }

    /// Computes `steps` decode steps at once: the same as that many plans and commits, of which only
    /// the last may end rows. `stopped` names the rows that the last token ended. A row that came
    /// meanwhile enters by the next plan, so the caller lets the macro step end with the step during
    /// which it came.
    pub fn advance_decode(&mut self, steps: u32, stopped: &[RowId], out: &mut Vec<Ended>) {
        assert_eq!(self.prefilling_count, 0, "only plain decode is advanced");
        let bound = self.remaining_min().expect("a row decodes");
        assert!(
            steps <= bound,
            "no row runs past its bound inside a macro step"
        );
        assert!(steps > 0, "a macro step has a last step");
        let mut ix = 0;
        while ix < self.order.len() {
            let slot = self.order[ix];
            let row = self.rows[usize::from(slot.0)]
                .as_mut()
                .expect("order lists occupied slots");
            row.generated += steps;
            self.context_tokens_live += u64::from(steps);
            if !self.end_if_due(slot, stopped, out) {
                ix += 1;
            }
        }
    }

    /// Takes a row out, wherever it is. Its slot is free at once, so the caller calls this between
    /// steps, never while a step may still read the row's KV.
    pub fn cancel(&mut self, id: RowId) -> Cancelled {
        if let Some(place) = self.waiting.iter().position(|ask| ask.id == id) {
            let ask = self.waiting.remove(place).expect("just found");
            self.kv_queued -= worst_case(&ask);
            return Cancelled::Waiting;
        }
        let Some(slot) = self.slot(id) else {
            return Cancelled::Unknown;
        };
        self.remove(slot);
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

    /// What a heartbeat reports.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        let prefill_left: u64 = self
            .order
            .iter()
            .map(|&slot| {
                let row = occupied(&self.rows, slot);
                u64::from(row.ask.prompt_tokens - row.prefilled)
            })
            .sum();
        Capacity {
            running: count(self.order.len()),
            waiting: count(self.waiting.len()),
            concurrency_max: self.config.rows_max,
            budget_used: self.kv_used,
            budget_max: self.config.kv_token_budget,
            budget_queued: self.kv_queued,
            prefill_left_tokens: prefill_left,
        }
    }

    fn remaining_min(&self) -> Option<u32> {
        let running = self.order.iter();
        running
            .map(|&slot| occupied(&self.rows, slot).remaining())
            .min()
    }

    fn admit(&mut self) {
        while self.can_admit() {
            let ask = self.waiting.pop_front().expect("a waiting row can enter");
            let slot = self.free.pop().expect("a slot is free");
            let worst = worst_case(&ask);
            self.kv_queued -= worst;
            self.kv_used += worst;
            self.prefilling_count += 1;
            self.order.push(slot);
            self.rows[usize::from(slot.0)] = Some(Row {
                ask,
                prefilled: 0,
                generated: 0,
            });
        }
        assert!(
            self.kv_used <= self.config.kv_token_budget,
            "admission keeps to the KV budget (INV-08)"
        );
    }

    /// The head of the queue blocks the rest: nobody overtakes, so nobody starves.
    fn can_admit(&self) -> bool {
        let Some(head) = self.waiting.front() else {
            return false;
        };
        !self.free.is_empty() && self.kv_used + worst_case(head) <= self.config.kv_token_budget
    }

    /// Ends the row in `slot` when its newest token was its last, and says whether it did.
    fn end_if_due(&mut self, slot: RowSlot, stopped: &[RowId], out: &mut Vec<Ended>) -> bool {
        let row = occupied(&self.rows, slot);
        let reason = if stopped.contains(&row.ask.id) {
            EndReason::Stopped
        } else if row.remaining() == 0 {
            EndReason::LimitReached
        } else {
            return false;
        };
        let row = self.remove(slot);
        out.push(Ended {
            row: row.ask.id,
            slot,
            generated: row.generated,
            reason,
        });
        true
    }

    fn remove(&mut self, slot: RowSlot) -> Row {
        let row = self.rows[usize::from(slot.0)]
            .take()
            .expect("only an occupied slot is emptied");
        self.order.retain(|&other| other != slot);
        self.free.push(slot);
        self.kv_used -= row.kv_worst_tokens();
        let written = u64::from(row.prefilled) + u64::from(row.generated.saturating_sub(1));
        self.context_tokens_live -= written;
        if row.is_prefilling() {
            self.prefilling_count -= 1;
        }
        row
    }

    fn holds(&self, id: RowId) -> bool {
        self.slot(id).is_some() || self.waiting.iter().any(|ask| ask.id == id)
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

/// The row that a plan meant, unless it ended since.
fn live(rows: &mut [Option<Row>], slot: RowSlot, id: RowId) -> Option<&mut Row> {
    rows.get_mut(usize::from(slot.0))?
        .as_mut()
        .filter(|row| row.ask.id == id)
}

fn count(len: usize) -> u16 {
    u16::try_from(len).expect("queues are bounded by u16 limits")
}
