//! A run over time, in a few hundred buckets whatever its length: when they are full, two become one.

use cereus_core::time::{Span, Tick};

/// What happened in one stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    pub asked: u64,
    pub refused: u64,
    pub failed: u64,
    pub finished: u64,
    /// Of these, within the objective.
    pub good: u64,
    /// Requests times the time that they waited for a machine, or were on one, in microseconds.
    pub waiting_us: u64,
    pub serving_us: u64,
    /// Over all reports of machines that came: rows that run, and could.
    pub rows: u64,
    pub rows_max: u64,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    pub began: Tick,
    /// Of each bucket.
    pub width: Span,
    pub buckets: Vec<Bucket>,
    waiting: u64,
    serving: u64,
    counted_to: Tick,
}

/// The heads of [`Series::cells`].
pub const SERIES_COLUMNS: [&str; 10] = [
    "from_s",
    "seconds",
    "arrivals",
    "refused",
    "failed",
    "finished",
    "good",
    "waiting_mean_milli",
    "on_machines_mean_milli",
    "rows_in_use_ppm",
];

const WIDTH_FIRST: Span = Span::secs(1);
const BUCKETS_MAX: usize = 480;

impl Series {
    pub(super) const fn new(began: Tick) -> Self {
        Self {
            began,
            width: WIDTH_FIRST,
            buckets: Vec::new(),
            waiting: 0,
            serving: 0,
            counted_to: began,
        }
    }

    pub(super) fn asked(&mut self, now: Tick) {
        self.count_to(now);
        self.waiting += 1;
        self.at(now).asked += 1;
    }

    /// For the first time.
    pub(super) fn dispatched(&mut self, now: Tick) {
        self.count_to(now);
        self.waiting -= 1;
        self.serving += 1;
    }

    pub(super) fn ended(&mut self, now: Tick, is_waiting: bool) {
        self.count_to(now);
        match is_waiting {
            true => self.waiting -= 1,
            false => self.serving -= 1,
        }
    }

    pub(super) fn close(&mut self, now: Tick) {
        self.count_to(now);
    }

    /// For a table, from the first request on: means are over time, in thousandths of a request.
    pub fn cells(&self) -> impl Iterator<Item = [String; SERIES_COLUMNS.len()]> {
        let seconds = self.width.0 / 1_000_000;
        (0u64..).zip(&self.buckets).map(move |(ix, bucket)| {
            let mean_milli = |sum: u64| sum.saturating_mul(1_000) / self.width.0;
            let rows_ppm = (bucket.rows * 1_000_000).checked_div(bucket.rows_max);
            [
                ix * seconds,
                seconds,
                bucket.asked,
                bucket.refused,
                bucket.failed,
                bucket.finished,
                bucket.good,
                mean_milli(bucket.waiting_us),
                mean_milli(bucket.serving_us),
                rows_ppm.unwrap_or(0),
            ]
            .map(|value| value.to_string())
        })
    }

    /// The bucket of that moment; what is before the first belongs to the first.
    pub(super) fn at(&mut self, at: Tick) -> &mut Bucket {
        let since = at.0.saturating_sub(self.began.0);
        while since / self.width.0 >= BUCKETS_MAX as u64 {
            self.halve();
        }
        let ix = usize::try_from(since / self.width.0).expect("below the limit");
        if ix >= self.buckets.len() {
            self.buckets.resize(ix + 1, Bucket::default());
        }
        &mut self.buckets[ix]
    }

    fn halve(&mut self) {
        let pairs = self.buckets.chunks(2).map(|pair| {
            let mut sum = pair[0];
            if let Some(other) = pair.get(1) {
                sum.add(other);
            }
            sum
        });
        self.buckets = pairs.collect();
        self.width = self.width + self.width;
    }

    /// Nobody came or went since the last call.
    fn count_to(&mut self, now: Tick) {
        while self.counted_to < now {
            let since = self.counted_to.0 - self.began.0;
            let (waiting, serving) = (self.waiting, self.serving);
            let at = self.counted_to;
            self.at(at);
            // The bucket's end, by the width that it has now.
            let end = self.began.0 + (since / self.width.0 + 1) * self.width.0;
            let to = Tick(end.min(now.0));
            let took_us = to.0 - at.0;
            let bucket = self.at(at);
            bucket.waiting_us += waiting * took_us;
            bucket.serving_us += serving * took_us;
            self.counted_to = to;
        }
    }
}

impl Bucket {
    const fn add(&mut self, other: &Self) {
        self.asked += other.asked;
        self.refused += other.refused;
        self.failed += other.failed;
        self.finished += other.finished;
        self.good += other.good;
        self.waiting_us += other.waiting_us;
        self.serving_us += other.serving_us;
        self.rows += other.rows;
        self.rows_max += other.rows_max;
    }
}
