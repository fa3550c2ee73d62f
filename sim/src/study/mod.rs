//! Questions that take many runs: policies side by side, how much a fleet can take, how small it may
//! be. What decides here is pure; commands run the worlds, several at a time.

mod capacity;
mod comparison;
mod interval;
mod measure;
mod sizing;
mod smallest;

pub use capacity::{Capacity, GOODPUT_KEPT_PPM, capacity};
pub use comparison::{Apart, Comparison, Contender};
pub use interval::{Interval, median, median_between};
pub use measure::{Measure, Measured, Unit};
pub use sizing::{Goal, Size, Sizing, sizing};
pub use smallest::{Smallest, smallest};

use crate::workload::Arrival;
use crate::world::config::RunConfig;
use crate::world::{Ran, RunError, World};

/// Runs one world over a trace that is in memory.
///
/// # Errors
/// See [`RunError`].
pub fn run(config: RunConfig, arrivals: &[Arrival]) -> Result<Ran, RunError> {
    let arrivals = arrivals.iter().cloned().map(Ok);
    World::new(config, arrivals)?.run_recorded(|_| {})
}

/// Requests a second of a trace at a speed-up, in thousandths.
#[must_use]
pub fn rate_milli(arrivals: &[Arrival], speedup_ppm: u64) -> u64 {
    let span_us = arrivals.last().map_or(0, |last| last.after.0);
    let requests = arrivals.len() as u128 * 1_000 * u128::from(speedup_ppm);
    u64::try_from(requests / u128::from(span_us.max(1))).unwrap_or(u64::MAX)
}
