//! This process's memory, second by second.
//!
//! It is read on the engine's thread, between two steps: then what the engine holds is there, and what a
//! step had needed for itself is not.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::Outcome;

const EVERY: Duration = Duration::from_secs(1);
/// Where the kernel's note of the most memory so far is set back.
const PEAK_RESET: &str = "/proc/self/clear_refs";

/// glibc keeps what was freed, as much as its thresholds say, and raises them as it goes. That hides a
/// leak and feigns one. These are the values that it begins with; naming them fixes them.
const THRESHOLDS: [(&str, &str); 2] = [
    ("MALLOC_MMAP_THRESHOLD_", "131072"),
    ("MALLOC_TRIM_THRESHOLD_", "131072"),
];

/// Starts this program again with fixed thresholds, where they are not named yet.
///
/// # Errors
/// The program cannot find or start itself.
pub(crate) fn with_fixed_thresholds() -> Outcome<()> {
    let is_named = |(name, _): &(&str, &str)| std::env::var_os(name).is_some();
    if !Path::new(PEAK_RESET).exists() || THRESHOLDS.iter().any(is_named) {
        return Ok(());
    }
    start_again()
}

#[cfg(unix)]
fn start_again() -> Outcome<()> {
    use std::os::unix::process::CommandExt as _;

    let program =
        std::env::current_exe().map_err(|why| format!("this program cannot find itself: {why}"))?;
    let mut command = std::process::Command::new(program);
    command.args(std::env::args_os().skip(1)).envs(THRESHOLDS);
    let why = command.exec();
    Err(format!("this program cannot start itself: {why}"))
}

#[cfg(not(unix))]
fn start_again() -> Outcome<()> {
    Ok(())
}

/// Reads once a second, when asked often enough.
pub(crate) struct Watch {
    next: Instant,
}

#[derive(Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) at: Instant,
    pub(crate) mib: f64,
    /// The most since the reading before.
    pub(crate) peak_mib: f64,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self {
            next: Instant::now(),
        }
    }

    /// `None` when nothing is due, and where the system has no `/proc`.
    pub(crate) fn look(&mut self) -> Option<Reading> {
        let at = Instant::now();
        if at < self.next {
            return None;
        }
        self.next = at + EVERY;
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let mib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u32 = line.split_whitespace().next()?.parse().ok()?;
            Some(f64::from(kib) / 1_024.0)
        };
        let reading = Reading {
            at,
            mib: mib("VmRSS:")?,
            peak_mib: mib("VmHWM:")?,
        };
        // Without it each peak is that of all seconds so far.
        drop(std::fs::write(PEAK_RESET, "5"));
        Some(reading)
    }
}

/// How long memory may still grow: a fifth of the run, at least two minutes of a long one, at most
/// twenty seconds of a short one.
pub(crate) fn warm_up(run: Duration) -> Duration {
    const LONG_RUN: Duration = Duration::from_mins(10);
    const LEAST: Duration = Duration::from_mins(2);
    const MOST_OF_SHORT: Duration = Duration::from_secs(20);
    if run >= LONG_RUN {
        (run / 5).max(LEAST)
    } else {
        (run / 5).min(MOST_OF_SHORT)
    }
}

/// What was read, by the time since the soak began.
#[derive(Default)]
pub(crate) struct Samples(Vec<Sample>);

struct Sample {
    at: Duration,
    mib: f64,
    peak_mib: f64,
}

/// What was read after the warm-up.
#[derive(Clone, Copy)]
pub(crate) struct Flatness {
    pub(crate) least_mib: f64,
    pub(crate) most_mib: f64,
    /// Within a step.
    pub(crate) peak_mib: f64,
}

impl Flatness {
    pub(crate) fn percent(self) -> f64 {
        (self.most_mib - self.least_mib) / self.least_mib * 100.0
    }
}

impl Samples {
    pub(crate) fn note(&mut self, began: Instant, reading: Reading) {
        self.0.push(Sample {
            at: reading.at.duration_since(began),
            mib: reading.mib,
            peak_mib: reading.peak_mib,
        });
    }

    pub(crate) fn newest_mib(&self) -> Option<f64> {
        self.0.last().map(|sample| sample.mib)
    }

    /// `None` when nothing was read after `warm_up`.
    pub(crate) fn flatness(&self, warm_up: Duration) -> Option<Flatness> {
        let later = self.0.iter().filter(|sample| sample.at >= warm_up);
        later
            .map(|sample| Flatness {
                least_mib: sample.mib,
                most_mib: sample.mib,
                peak_mib: sample.peak_mib,
            })
            .reduce(|one, other| Flatness {
                least_mib: one.least_mib.min(other.least_mib),
                most_mib: one.most_mib.max(other.most_mib),
                peak_mib: one.peak_mib.max(other.peak_mib),
            })
    }

    /// Seconds, MiB between steps, and the most MiB since the line before.
    pub(crate) fn json(&self) -> serde_json::Value {
        let line =
            |sample: &Sample| serde_json::json!([sample.at.as_secs(), sample.mib, sample.peak_mib]);
        self.0.iter().map(line).collect()
    }
}
