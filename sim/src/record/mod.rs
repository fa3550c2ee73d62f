//! What became of each machine, of requests by their kind and, where that is asked for, of each
//! request; and the run as a series over time. It stands beside the report, and no digest depends
//! on it.

mod row;
mod series;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;

use cereus_core::denial::Denial;
use cereus_core::event::{SlotReport, Usage};
use cereus_core::ids::{AccountId, AttemptKey};
use cereus_core::time::Tick;

pub use row::{COLUMNS, Outcome, Row};
pub use series::{Bucket, SERIES_COLUMNS, Series};
pub use watch::{Watch, digest_of, first_difference, show};

use crate::report::{Histogram, Served};
use crate::world::crowd::Asked;

/// Whether a row of each request is kept: about a hundred bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    Nothing,
    Rows,
}

/// What one machine did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineUse {
    pub kind: String,
    /// Attempts that it was sent.
    pub attempts: u64,
    pub finished: u64,
    /// With at least one row to compute.
    pub busy_ns: u64,
}

/// Requests that have something in common.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part {
    pub asked: u64,
    pub finished: u64,
    pub good: u64,
    pub refused: u64,
    pub failed: u64,
    /// Microseconds, of finished answers that said something.
    pub ttft_us: Histogram,
    pub tpot_us: Histogram,
}

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub machines: Vec<MachineUse>,
    pub all: Part,
    /// Finished requests by the machine that answered.
    pub by_kind: BTreeMap<String, Part>,
    /// By the class of their prompts' length, see [`LENGTHS`].
    pub by_length: [Part; LENGTHS.len()],
    pub series: Series,
    /// By number; none unless they were asked for.
    pub rows: Vec<Row>,
}

/// Classes of prompts: tokens below which each ends, and its name.
pub const LENGTHS: [(u32, &str); 5] = [
    (512, "below 512"),
    (2_048, "512 to 2,047"),
    (8_192, "2,048 to 8,191"),
    (32_768, "8,192 to 32,767"),
    (u32::MAX, "32,768 and more"),
];

/// Which of [`LENGTHS`] a prompt belongs to.
#[must_use]
pub fn length_class(prompt_tokens: u32) -> usize {
    let longer = LENGTHS.iter().position(|(below, _)| prompt_tokens < *below);
    longer.unwrap_or(LENGTHS.len() - 1)
}

/// A request under way.
#[derive(Clone, Debug)]
struct Open {
    row: Row,
    attempts: Vec<AttemptKey>,
}

/// Takes down what happens while it happens.
#[derive(Clone, Debug)]
pub struct Recorder {
    keep: Keep,
    record: Record,
    open: BTreeMap<u64, Open>,
    /// Whose attempt it is, and where.
    attempts: BTreeMap<AttemptKey, (u64, u32)>,
}

impl Recorder {
    /// `kinds`: of each machine. `began`: when the first request may be sent.
    #[must_use]
    pub fn new(began: Tick, kinds: impl Iterator<Item = String>) -> Self {
        let machines = kinds.map(|kind| MachineUse {
            kind,
            attempts: 0,
            finished: 0,
            busy_ns: 0,
        });
        Self {
            keep: Keep::Nothing,
            record: Record {
                machines: machines.collect(),
                all: Part::default(),
                by_kind: BTreeMap::new(),
                by_length: Default::default(),
                series: Series::new(began),
                rows: Vec::new(),
            },
            open: BTreeMap::new(),
            attempts: BTreeMap::new(),
        }
    }

    pub const fn keep(&mut self, keep: Keep) {
        self.keep = keep;
    }

    /// A consumer sent it.
    pub fn asked(&mut self, now: Tick, number: u64, asked: &Asked) {
        self.record.all.asked += 1;
        self.record.by_length[length_class(asked.prompt_tokens)].asked += 1;
        self.record.series.asked(now);
        let open = Open {
            row: Row::of(number, asked),
            attempts: Vec::new(),
        };
        self.open.insert(number, open);
    }

    /// It was turned down, and its consumer asks again, under another number.
    pub fn again(&mut self, before: u64, number: u64) {
        if let Some(open) = self.open.remove(&before) {
            self.open.insert(number, open);
        }
    }

    /// It reached the coordinator, which knows who pays.
    pub fn admitted(&mut self, number: u64, payer: AccountId) {
        if let Some(open) = self.open.get_mut(&number) {
            open.row.account = payer.0;
        }
    }

    /// An attempt was sent to a machine.
    pub fn dispatched(&mut self, now: Tick, number: u64, attempt: AttemptKey, machine: u32) {
        self.record.machines[machine as usize].attempts += 1;
        let Some(open) = self.open.get_mut(&number) else {
            return;
        };
        if open.attempts.is_empty() {
            self.record.series.dispatched(now);
        }
        open.attempts.push(attempt);
        open.row.attempts = open.row.attempts.saturating_add(1);
        open.row.machine = Some(machine);
        open.row.dispatched_at = Some(now);
        self.attempts.insert(attempt, (number, machine));
    }

    /// A machine completed an attempt, of whose prompt it had found so much.
    pub fn completed(&mut self, attempt: AttemptKey, cached_tokens: u32) {
        let Some(&(number, machine)) = self.attempts.get(&attempt) else {
            return;
        };
        if let Some(open) = self.open.get_mut(&number) {
            open.row.cached_tokens = cached_tokens;
            open.row.machine = Some(machine);
        }
    }

    /// Its consumer saw the first content.
    pub fn began(&mut self, number: u64, at: Tick) {
        if let Some(open) = self.open.get_mut(&number) {
            open.row.first_at = Some(at);
        }
    }

    pub fn refused(&mut self, now: Tick, number: u64, denial: Denial) {
        let Some(row) = self.end(now, number, now, Outcome::Refused(denial.code())) else {
            return;
        };
        self.record.series.at(now).refused += 1;
        self.record.all.refused += 1;
        self.record.by_length[length_class(row.prompt_tokens)].refused += 1;
    }

    pub fn failed(&mut self, now: Tick, number: u64, denial: Denial) {
        let Some(row) = self.end(now, number, now, Outcome::Failed(denial.code())) else {
            return;
        };
        self.record.series.at(now).failed += 1;
        self.record.all.failed += 1;
        self.record.by_length[length_class(row.prompt_tokens)].failed += 1;
    }

    /// A whole answer reached its consumer at `at`.
    pub fn finished(&mut self, now: Tick, number: u64, at: Tick, usage: Usage, served: &Served) {
        if let Some(open) = self.open.get_mut(&number) {
            open.row.output_tokens = usage.completion_tokens;
            open.row.first_at.get_or_insert(at);
        }
        let outcome = match served.is_good {
            true => Outcome::Good,
            false => Outcome::Late,
        };
        let Some(row) = self.end(now, number, at, outcome) else {
            return;
        };
        let bucket = self.record.series.at(at);
        bucket.finished += 1;
        bucket.good += u64::from(served.is_good);
        self.record.all.note(served);
        self.record.by_length[length_class(row.prompt_tokens)].note(served);
        let Some(machine) = row.machine else {
            return;
        };
        let machine = &mut self.record.machines[machine as usize];
        machine.finished += 1;
        if !self.record.by_kind.contains_key(&machine.kind) {
            let kind = machine.kind.clone();
            self.record.by_kind.insert(kind, Part::default());
        }
        let part = self.record.by_kind.get_mut(&machine.kind);
        part.expect("it is there").note(served);
    }

    /// A machine's report arrived.
    pub fn sampled(&mut self, now: Tick, slot: &SlotReport) {
        if now < self.record.series.began {
            return;
        }
        let bucket = self.record.series.at(now);
        bucket.rows += u64::from(slot.running);
        bucket.rows_max += u64::from(slot.concurrency_max);
    }

    /// `busy_ns`: of each machine.
    #[must_use]
    pub fn close(mut self, now: Tick, busy_ns: impl Iterator<Item = u64>) -> Record {
        for (machine, busy_ns) in self.record.machines.iter_mut().zip(busy_ns) {
            machine.busy_ns = busy_ns;
        }
        self.record.series.close(now);
        self.record.rows.sort_unstable_by_key(|row| row.number);
        self.record
    }

    fn end(&mut self, now: Tick, number: u64, at: Tick, outcome: Outcome) -> Option<Row> {
        let mut open = self.open.remove(&number)?;
        self.record.series.ended(now, open.attempts.is_empty());
        for attempt in &open.attempts {
            self.attempts.remove(attempt);
        }
        // Its links delay each message for itself: the end may overtake the first content.
        open.row.ended_at = at.max(open.row.first_at.unwrap_or(at));
        open.row.outcome = outcome;
        if self.keep == Keep::Rows {
            self.record.rows.push(open.row.clone());
        }
        Some(open.row)
    }
}

impl Part {
    fn note(&mut self, served: &Served) {
        self.finished += 1;
        self.good += u64::from(served.is_good);
        if let Some(ttft) = served.ttft {
            self.ttft_us.note(ttft.0);
        }
        if let Some(tpot) = served.tpot {
            self.tpot_us.note(tpot.0);
        }
    }

    /// Good ones among all that were asked, in a million.
    #[must_use]
    pub fn goodput_ppm(&self) -> u64 {
        (self.good * 1_000_000).checked_div(self.asked).unwrap_or(0)
    }
}

/// How evenly work lies on the machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fairness {
    /// Time of the busiest machine over the mean of its kind, in thousandths: the worst of all kinds.
    pub busiest_milli: u64,
    /// Attempts of the machine with the fewest over those of the one with the most, in a million.
    pub least_ppm: u64,
}

impl Record {
    #[must_use]
    pub fn fairness(&self) -> Fairness {
        let mut kinds: BTreeMap<&str, (u64, u128, u64)> = BTreeMap::new();
        for machine in &self.machines {
            let (count, sum, most) = kinds.entry(&machine.kind).or_default();
            *count += 1;
            *sum += u128::from(machine.busy_ns);
            *most = (*most).max(machine.busy_ns);
        }
        let ratios = kinds.values().map(|&(count, sum, most)| {
            let ratio = u128::from(most) * u128::from(count) * 1_000 / sum.max(1);
            u64::try_from(ratio).expect("at most so many machines")
        });
        let attempts = || self.machines.iter().map(|machine| machine.attempts);
        let least = attempts().min().unwrap_or(0);
        let most = attempts().max().unwrap_or(0);
        Fairness {
            busiest_milli: ratios.max().unwrap_or(0),
            least_ppm: (least * 1_000_000).checked_div(most).unwrap_or(0),
        }
    }
}
