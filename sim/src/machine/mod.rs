//! One simulated machine: the engine's own scheduler under a model of its chip's speed.
//!
//! In [`Pace::Leap`] a run of plain decode in which nothing can happen is one event; in
//! [`Pace::Step`] each token is. Both give the same notes at the same ticks, which a test proves.

mod prefix;
#[cfg(test)]
mod tests;

use cereus_core::ewma::Ewma;
use cereus_core::ids::AttemptKey;
use cereus_core::time::Tick;
use cereus_engine::kv::{BlockHash, KvLayout};
use cereus_engine::scheduler::{
    Cancelled, Capacity, ConfigError, Ended, Refused, RowId, RowRequest, Scheduler,
    SchedulerConfig, StepPlan,
};

use crate::hardware::{Chip, StepLoad, mtps};

pub use prefix::names;

/// How decode advances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Arithmetic over runs of plain decode.
    Leap,
    /// Token by token.
    Step,
}

/// Tokens between two progress notes of one row.
pub const PROGRESS_TOKENS: u32 = 128;
/// The newest sample weighs one quarter: the power of two nearest to the 0.3 that providers report by.
const RATE_SHIFT: u8 = 2;

/// Work for a machine. `output_tokens_true` is the simulator's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    pub attempt: AttemptKey,
    pub prompt_tokens: u32,
    pub output_tokens_max: u32,
    pub output_tokens_true: u32,
}

/// What a machine tells while it works, at the tick of the step that made it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    Cancelled {
        attempt: AttemptKey,
    },
    Completed {
        attempt: AttemptKey,
        prompt_tokens: u32,
        /// Of the prompt, found and not computed.
        cached_tokens: u32,
        completion_tokens: u32,
    },
    /// The row would not fit any more, even alone, into what the model may take.
    Evicted {
        attempt: AttemptKey,
    },
    Progressed {
        attempt: AttemptKey,
        tokens: u32,
    },
    Started {
        attempt: AttemptKey,
    },
}

/// Tokens of the prompts that were admitted. A row that was preempted and came back counts again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prompts {
    pub tokens: u64,
    /// Of these, what was found and not computed.
    pub cached_tokens: u64,
}

/// The next step event to schedule: at this tick, bound to this epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepDue {
    pub at: Tick,
    pub epoch: u32,
}

#[derive(Clone, Copy, Debug)]
struct Truth {
    attempt: AttemptKey,
    row: RowId,
    prompt_tokens: u32,
    /// The text ends after this many tokens, if the bound does not come first.
    stop_after: u32,
    /// The first token is the end: nothing is said.
    is_empty: bool,
    generated: u32,
    /// When its prompt began to be read, and how much of it was not found.
    admitted_ns: u64,
    computed_tokens: u32,
    started_ns: u64,
    is_decoding: bool,
}

#[derive(Clone, Copy, Debug)]
enum Work {
    Idle,
    /// The step in `plan`.
    Step {
        ends_ns: u64,
    },
    /// `steps` decode steps from `began_ns`.
    Leap {
        began_ns: u64,
        steps: u32,
        rows: u64,
        context_tokens: u64,
    },
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Machine {
    pub chip: Chip,
    /// The chip at its best, and what it is from the next step on.
    best: Chip,
    next: Option<Chip>,
    /// What its keys and values may take from the next step on.
    next_grant: Option<u64>,
    pace: Pace,
    progress_tokens: u32,
    scheduler: Scheduler,
    plan: StepPlan,
    /// The rows of the leap under way.
    leaping: Vec<RowId>,
    work: Work,
    epoch: u32,
    next_row: u64,
    /// Rows that wait or run, in order of submission.
    truths: Vec<Truth>,
    cancels: Vec<AttemptKey>,
    stopped: Vec<RowId>,
    ended: Vec<Ended>,
    decode_rate: Option<Ewma>,
    prefill_rate: Option<Ewma>,
    busy_ns: u64,
    /// Steps computed.
    pub steps: u64,
    pub prompts: Prompts,
}

impl Machine {
    pub fn new(
        chip: Chip,
        config: SchedulerConfig,
        layout: KvLayout,
        pace: Pace,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            chip,
            best: chip,
            next: None,
            next_grant: None,
            pace,
            progress_tokens: PROGRESS_TOKENS,
            scheduler: Scheduler::new(config, layout)?,
            plan: StepPlan::default(),
            leaping: Vec::new(),
            work: Work::Idle,
            epoch: 0,
            next_row: 0,
            truths: Vec::new(),
            cancels: Vec::new(),
            stopped: Vec::new(),
            ended: Vec::new(),
            decode_rate: None,
            prefill_rate: None,
            busy_ns: 0,
            steps: 0,
            prompts: Prompts::default(),
        })
    }

    /// Progress is noted every so many tokens of a row.
    #[must_use]
    pub const fn with_progress(mut self, tokens: u32) -> Self {
        assert!(tokens > 0, "progress is made of tokens");
        self.progress_tokens = tokens;
        self
    }

    #[must_use]
    pub fn capacity(&self) -> Capacity {
        self.scheduler.capacity()
    }

    /// Observed decode rate of a row, in thousandths of a token a second; 0 before the first.
    #[must_use]
    pub fn decode_mtps(&self) -> u32 {
        self.decode_rate.map_or(0, Ewma::value)
    }

    /// Observed rate at which prompts are read, in thousandths of a token a second; 0 before the first.
    #[must_use]
    pub fn prefill_mtps(&self) -> u32 {
        self.prefill_rate.map_or(0, Ewma::value)
    }

    #[must_use]
    pub const fn busy_ns(&self) -> u64 {
        self.busy_ns
    }

    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.truths.is_empty()
    }

    /// Of the blocks that prompts are found by.
    #[must_use]
    pub const fn block_tokens(&self) -> u32 {
        self.scheduler.kv().layout().block_tokens
    }

    /// Takes a job; `names` are those of its prompt's blocks, none when nothing is to be looked up. A
    /// step event is due when the machine was idle or its leap must end early.
    pub fn submit(
        &mut self,
        now: Tick,
        job: &Job,
        names: &[BlockHash],
    ) -> Result<Option<StepDue>, Refused> {
        let row = RowId(self.next_row);
        let ask = RowRequest {
            id: row,
            prompt_tokens: job.prompt_tokens,
            output_tokens_max: job.output_tokens_max,
            priority: 0,
        };
        self.scheduler.submit(ask, names)?;
        self.next_row += 1;
        self.truths.push(Truth {
            attempt: job.attempt,
            row,
            prompt_tokens: job.prompt_tokens,
            stop_after: job.output_tokens_true.max(1),
            is_empty: job.output_tokens_true == 0,
            generated: 0,
            admitted_ns: 0,
            computed_tokens: 0,
            started_ns: 0,
            is_decoding: false,
        });
        if matches!(self.work, Work::Idle) {
            return Ok(self.begin(now.0 * 1_000));
        }
        if self.scheduler.steps_until_change().is_some() {
            return Ok(None);
        }
        Ok(self.cut_leap(now))
    }

    /// Stops an attempt at the end of the step in progress. The note comes with that step's event.
    pub fn cancel(&mut self, now: Tick, attempt: AttemptKey) -> Option<StepDue> {
        if !self.truths.iter().any(|truth| truth.attempt == attempt) {
            return None;
        }
        assert!(!matches!(self.work, Work::Idle), "rows are worked on");
        if !self.cancels.contains(&attempt) {
            self.cancels.push(attempt);
        }
        self.cut_leap(now)
    }

    /// Computes at so many millionths of its best from the next step on.
    pub fn set_speed(&mut self, now: Tick, speed_ppm: u32) -> Option<StepDue> {
        let chip = self.best.slowed(speed_ppm);
        if matches!(self.work, Work::Idle) {
            self.chip = chip;
            return None;
        }
        self.next = Some(chip);
        self.cut_leap(now)
    }

    /// Its keys and values may take so much from the next step on.
    pub fn set_grant(&mut self, now: Tick, grant_bytes: u64) -> Option<StepDue> {
        if matches!(self.work, Work::Idle) {
            self.scheduler.resize(grant_bytes, &mut Vec::new());
            return None;
        }
        self.next_grant = Some(grant_bytes);
        self.cut_leap(now)
    }

    /// Its weights have come into memory anew, with so much for keys and values.
    ///
    /// # Panics
    /// So much holds nothing.
    pub fn load(&mut self, now: Tick, grant_bytes: u64) {
        self.drop_rows(now);
        let bytes_per_token = self.chip.kv_size_per_token;
        let layout = layout(bytes_per_token, grant_bytes);
        let fresh = Scheduler::new(*self.scheduler.config(), layout);
        self.scheduler = fresh.expect("a grant is worth serving with");
        self.next_grant = None;
        self.decode_rate = None;
        self.prefill_rate = None;
    }

    /// The step event of `epoch` came. Notes are appended to `out`; an event of a past epoch is
    /// stale and does nothing.
    pub fn step_done(&mut self, epoch: u32, out: &mut Vec<Note>) -> Option<StepDue> {
        if epoch != self.epoch {
            return None;
        }
        let ends_ns = self.finish_work(out);
        let ends_ns = ends_ns.expect("an idle machine has no epoch in flight");
        self.apply_cancels(out);
        self.apply_grant(out);
        self.begin(ends_ns)
    }

    /// Drops all rows, as a provider does whose connection is gone. The step in progress is still
    /// computed, nobody hears of it, and what prompts are found by stays. Returns how many rows ended.
    pub fn drop_rows(&mut self, now: Tick) -> usize {
        self.cut_leap(now);
        self.finish_work(&mut Vec::new());
        for truth in &self.truths {
            let found = self.scheduler.cancel(truth.row);
            assert_ne!(found, Cancelled::Unknown, "truths mirror the scheduler");
        }
        let count = self.truths.len();
        self.truths.clear();
        self.cancels.clear();
        self.epoch = self.epoch.wrapping_add(1);
        self.work = Work::Idle;
        count
    }

    /// The process ends and another begins: rows, what prompts were found by and measured rates are
    /// gone; what was counted stays.
    pub fn restart(&mut self, now: Tick) -> usize {
        let count = self.drop_rows(now);
        let layout = self.scheduler.kv().layout().clone();
        let fresh = Scheduler::new(*self.scheduler.config(), layout);
        self.scheduler = fresh.expect("the configuration was good before");
        self.decode_rate = None;
        self.prefill_rate = None;
        count
    }

    /// Ends what is computed now. Returns when it ends; `None` where nothing is.
    fn finish_work(&mut self, out: &mut Vec<Note>) -> Option<u64> {
        match self.work {
            Work::Idle => None,
            Work::Step { ends_ns } => {
                self.finish_step(ends_ns, out);
                Some(ends_ns)
            }
            Work::Leap {
                began_ns,
                steps,
                rows,
                context_tokens,
            } => {
                let took_ns = self.chip.decode(u64::from(steps), rows, context_tokens);
                self.finish_leap(steps, began_ns + took_ns, out);
                self.busy_ns += took_ns;
                Some(began_ns + took_ns)
            }
        }
    }

    /// Loses everything, as a crash does.
    pub fn reset(&mut self) {
        let layout = self.scheduler.kv().layout().clone();
        let fresh = Self::new(self.best, *self.scheduler.config(), layout, self.pace);
        let epoch = self.epoch.wrapping_add(1);
        let progress_tokens = self.progress_tokens;
        *self = fresh.expect("the configuration was good before");
        self.epoch = epoch;
        self.progress_tokens = progress_tokens;
    }

    fn begin(&mut self, now_ns: u64) -> Option<StepDue> {
        self.epoch = self.epoch.wrapping_add(1);
        if let Some(chip) = self.next.take() {
            self.chip = chip;
        }
        if self.pace == Pace::Leap
            && let Some(steps) = self.leap_bound()
        {
            return Some(self.begin_leap(now_ns, steps));
        }
        self.scheduler.plan(&mut self.plan);
        if self.plan.is_empty() {
            assert!(
                self.scheduler.is_idle(),
                "a row that fits alone is admitted"
            );
            self.work = Work::Idle;
            return None;
        }
        self.count_prompts(now_ns);
        let took_ns = self.chip.step(load_of(&self.plan));
        self.busy_ns += took_ns;
        let ends_ns = now_ns + took_ns;
        self.work = Work::Step { ends_ns };
        Some(self.due(ends_ns))
    }

    fn count_prompts(&mut self, now_ns: u64) {
        for ix in 0..self.plan.admitted.len() {
            let admitted = self.plan.admitted[ix];
            let truth = self.truth_mut(admitted.row);
            truth.admitted_ns = now_ns;
            truth.computed_tokens = truth.prompt_tokens.saturating_sub(admitted.cached_tokens);
            let prompt_tokens = truth.prompt_tokens;
            self.prompts.tokens += u64::from(prompt_tokens);
            self.prompts.cached_tokens += u64::from(admitted.cached_tokens);
        }
    }

    fn begin_leap(&mut self, began_ns: u64, steps: u32) -> StepDue {
        self.leaping.clear();
        let rows = self.scheduler.running().map(|(_, row)| row);
        self.leaping.extend(rows);
        let rows = self.leaping.len() as u64;
        let context_tokens = self.scheduler.context_tokens_live();
        self.work = Work::Leap {
            began_ns,
            steps,
            rows,
            context_tokens,
        };
        let took_ns = self.chip.decode(u64::from(steps), rows, context_tokens);
        self.due(began_ns + took_ns)
    }

    /// Steps until a row ends or has a note to send.
    fn leap_bound(&self) -> Option<u32> {
        let bound = self.scheduler.steps_until_change()?;
        let running = self.truths.iter().filter(|truth| truth.is_decoding);
        let quiet = running.map(|truth| {
            let to_stop = truth.stop_after - truth.generated;
            let to_note = self.progress_tokens - truth.generated % self.progress_tokens;
            to_stop.min(to_note)
        });
        quiet.min().map(|quiet| quiet.min(bound))
    }

    fn finish_step(&mut self, ends_ns: u64, out: &mut Vec<Note>) {
        self.steps += 1;
        self.stopped.clear();
        for ix in 0..self.plan.prefill.len() {
            let chunk = self.plan.prefill[ix];
            if chunk.is_last {
                let truth = self.truth_mut(chunk.row);
                truth.started_ns = ends_ns;
                truth.is_decoding = true;
                let computed = u64::from(truth.computed_tokens);
                let sample = mtps(computed, ends_ns - truth.admitted_ns);
                if !truth.is_empty {
                    out.push(Note::Started {
                        attempt: truth.attempt,
                    });
                }
                self.count_token(chunk.row, 1, out);
                if computed > 0 {
                    self.prefill_rate
                        .get_or_insert(Ewma::seeded(sample, RATE_SHIFT))
                        .push(sample);
                }
            }
        }
        for ix in 0..self.plan.decode.len() {
            self.count_token(self.plan.decode[ix].row, 1, out);
        }
        self.ended.clear();
        self.scheduler
            .commit(&self.plan, &self.stopped, &mut self.ended);
        self.note_ended(ends_ns, out);
    }

    fn finish_leap(&mut self, steps: u32, ends_ns: u64, out: &mut Vec<Note>) {
        self.steps += u64::from(steps);
        self.stopped.clear();
        for ix in 0..self.leaping.len() {
            self.count_token(self.leaping[ix], steps, out);
        }
        self.ended.clear();
        self.scheduler
            .advance_decode(steps, &self.stopped, &mut self.ended);
        self.note_ended(ends_ns, out);
    }

    fn count_token(&mut self, row: RowId, tokens: u32, out: &mut Vec<Note>) {
        let progress_tokens = self.progress_tokens;
        let truth = self.truth_mut(row);
        truth.generated += tokens;
        let (attempt, generated) = (truth.attempt, truth.generated);
        assert!(generated <= truth.stop_after, "no row runs past its end");
        if generated == truth.stop_after {
            self.stopped.push(row);
        } else if generated.is_multiple_of(progress_tokens) {
            out.push(Note::Progressed {
                attempt,
                tokens: generated,
            });
        }
    }

    fn note_ended(&mut self, ends_ns: u64, out: &mut Vec<Note>) {
        for ix in 0..self.ended.len() {
            let end = self.ended[ix];
            let truth = self.forget(end.row);
            if end.generated > 1 {
                let sample = mtps(u64::from(end.generated - 1), ends_ns - truth.started_ns);
                self.decode_rate
                    .get_or_insert(Ewma::seeded(sample, RATE_SHIFT))
                    .push(sample);
            }
            out.push(Note::Completed {
                attempt: truth.attempt,
                prompt_tokens: truth.prompt_tokens,
                cached_tokens: truth.prompt_tokens - truth.computed_tokens,
                completion_tokens: if truth.is_empty { 0 } else { end.generated },
            });
        }
    }

    fn apply_cancels(&mut self, out: &mut Vec<Note>) {
        let mut cancels = core::mem::take(&mut self.cancels);
        for attempt in cancels.drain(..) {
            let Some(ix) = self
                .truths
                .iter()
                .position(|truth| truth.attempt == attempt)
            else {
                continue;
            };
            let truth = self.truths.remove(ix);
            let found = self.scheduler.cancel(truth.row);
            assert_ne!(found, Cancelled::Unknown, "truths mirror the scheduler");
            out.push(Note::Cancelled { attempt });
        }
        self.cancels = cancels;
    }

    fn apply_grant(&mut self, out: &mut Vec<Note>) {
        let Some(grant_bytes) = self.next_grant.take() else {
            return;
        };
        let mut evicted = Vec::new();
        self.scheduler.resize(grant_bytes, &mut evicted);
        for row in evicted {
            let attempt = self.forget(row).attempt;
            let found = self.scheduler.cancel(row);
            assert_ne!(found, Cancelled::Unknown, "truths mirror the scheduler");
            out.push(Note::Evicted { attempt });
        }
    }

    /// Ends a leap with the step that is in progress at `now`.
    fn cut_leap(&mut self, now: Tick) -> Option<StepDue> {
        let Work::Leap {
            began_ns,
            steps,
            rows,
            context_tokens,
        } = self.work
        else {
            return None;
        };
        let now_ns = now.0 * 1_000;
        let (mut low, mut high) = (1, steps);
        while low < high {
            let middle = low + (high - low) / 2;
            let ends_ns = began_ns + self.chip.decode(u64::from(middle), rows, context_tokens);
            if ends_ns > now_ns {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        if low == steps {
            return None;
        }
        self.work = Work::Leap {
            began_ns,
            steps: low,
            rows,
            context_tokens,
        };
        self.epoch = self.epoch.wrapping_add(1);
        let ends_ns = began_ns + self.chip.decode(u64::from(low), rows, context_tokens);
        Some(self.due(ends_ns))
    }

    const fn due(&self, ends_ns: u64) -> StepDue {
        StepDue {
            at: Tick(ends_ns.div_ceil(1_000)),
            epoch: self.epoch,
        }
    }

    fn truth_mut(&mut self, row: RowId) -> &mut Truth {
        self.truths
            .iter_mut()
            .find(|truth| truth.row == row)
            .expect("every row of the scheduler has its truth")
    }

    fn forget(&mut self, row: RowId) -> Truth {
        let ix = self.truths.iter().position(|truth| truth.row == row);
        self.truths
            .remove(ix.expect("every row of the scheduler has its truth"))
    }
}

fn load_of(plan: &StepPlan) -> StepLoad {
    let positions = plan.decode.iter().map(|row| u64::from(row.position));
    let mut load = StepLoad {
        rows: plan.decode.len() as u64,
        context_tokens: positions.sum(),
        ..StepLoad::default()
    };
    for piece in &plan.prefill {
        load.add_prefill(piece.start, piece.len);
    }
    load
}

/// Keys and values of a modelled machine. Pages and blocks are coarser than the engine's own 16 and 64
/// tokens: traces name blocks of 512 and nothing smaller, so finer ones would find no more and only take
/// time. A row wastes less than a page of 64, half a thousandth of a machine's memory.
pub(crate) fn layout(bytes_per_token: u64, grant_bytes: u64) -> KvLayout {
    const PAGES: u32 = 4;
    let fine = KvLayout::full_attention(bytes_per_token.saturating_mul(PAGES.into()), grant_bytes);
    KvLayout {
        page_tokens: fine.page_tokens * PAGES,
        block_tokens: crate::workload::BLOCK_TOKENS,
        ..fine
    }
}
