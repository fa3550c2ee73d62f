//! What is left of a plan: the smaller a world that breaks a law, the easier it is to read.
//!
//! Whatever is left keeps its number and its time, so that a world without it goes on as before as far
//! as it can.

use core::fmt;
use core::str::FromStr;
use std::collections::BTreeSet;

use cereus_core::config::Limits;
use cereus_core::money::MicroUsd;
use cereus_core::time::{Span, Tick};
use thiserror::Error;

use super::{Fault, Lie, Plan, Whose};
use crate::stream::Ratio;

/// Something that a world may have and can do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Machines that sign.
    Attestation,
    Journal,
    /// Tasks that have their turn late.
    Lag,
    Latency,
    /// Consumers who go away.
    Leavers,
    Lies,
    /// Accounts that can pay for little.
    Poverty,
    /// Requests that come twice.
    Repeats,
    SecondAttempts,
    /// Few places between the tasks.
    ShortQueues,
    SlowDisk,
    SlowReaders,
    StaleBeats,
    /// Tasks that have no turn for seconds.
    Stalls,
    TightLimits,
    /// Machines that begin without models.
    Warming,
}

impl Part {
    pub const ALL: [Self; 16] = [
        Self::Attestation,
        Self::Journal,
        Self::Lag,
        Self::Latency,
        Self::Leavers,
        Self::Lies,
        Self::Poverty,
        Self::Repeats,
        Self::SecondAttempts,
        Self::ShortQueues,
        Self::SlowDisk,
        Self::SlowReaders,
        Self::StaleBeats,
        Self::Stalls,
        Self::TightLimits,
        Self::Warming,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attestation => "attestation",
            Self::Journal => "journal",
            Self::Lag => "lag",
            Self::Latency => "latency",
            Self::Leavers => "leavers",
            Self::Lies => "lies",
            Self::Poverty => "poverty",
            Self::Repeats => "repeats",
            Self::SecondAttempts => "second-attempts",
            Self::ShortQueues => "short-queues",
            Self::SlowDisk => "slow-disk",
            Self::SlowReaders => "slow-readers",
            Self::StaleBeats => "stale-beats",
            Self::Stalls => "stalls",
            Self::TightLimits => "tight-limits",
            Self::Warming => "warming",
        }
    }
}

/// See the module. The default leaves everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Only {
    /// Numbers of those that stay; `None`: all.
    pub machines: Option<Vec<u32>>,
    pub asks: Option<Vec<u32>>,
    pub faults: Option<Vec<u32>>,
    pub without: BTreeSet<Part>,
}

/// What `--only` cannot take.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OnlyError {
    #[error("{0:?} is none of machines=, asks=, faults= and without=")]
    Key(String),
    #[error("{0:?} is no number and no range of numbers, as in 1,4-7")]
    Number(String),
    #[error("{0:?} is nothing that a world can do without; there are {known}", known = names())]
    Part(String),
}

fn names() -> String {
    Part::ALL.map(Part::name).join(", ")
}

impl Plan {
    /// Leaves out what is not in `only`.
    pub fn keep(&mut self, only: &Only) {
        let is_kept = |list: &Option<Vec<u32>>, number: u32| {
            list.as_ref().is_none_or(|list| list.contains(&number))
        };
        for (number, machine) in (0..).zip(&mut self.machines) {
            if !is_kept(&only.machines, number) {
                machine.joins_at = Tick::NEVER;
                machine.lie = Lie::None;
            }
        }
        for (number, ask) in (0..).zip(&mut self.asks) {
            if !is_kept(&only.asks, number) {
                ask.at = Tick::NEVER;
            }
        }
        let faults = (0..).zip(core::mem::take(&mut self.faults));
        let faults = faults.filter(|(number, timed)| {
            let is_there = machine_of(&timed.fault).is_none_or(|it| is_kept(&only.machines, it));
            is_there && is_kept(&only.faults, *number)
        });
        self.faults = faults.map(|(_, timed)| timed).collect();
        for part in &only.without {
            self.drop_part(*part);
        }
    }

    fn drop_part(&mut self, part: Part) {
        let machines = self.machines.iter_mut();
        let asks = self.asks.iter_mut();
        match part {
            Part::Attestation => machines.for_each(|machine| machine.is_attested = false),
            Part::Journal => self.has_journal = false,
            Part::Lag => self.tasks.lag_max = Span::ZERO,
            Part::Latency => {
                self.latency_min = Span(200);
                self.latency_spread = Span::ZERO;
            }
            Part::Leavers => asks.for_each(|ask| ask.leaves_after = None),
            Part::Lies => machines.for_each(|machine| machine.lie = Lie::None),
            Part::Poverty => self.balance = MicroUsd(10_000_000),
            Part::Repeats => asks.for_each(|ask| ask.repeats_after = None),
            Part::SecondAttempts => self.limits.second_attempt_percent = 0,
            Part::ShortQueues => {
                self.tasks.inbox_max = 16_384;
                self.tasks.orders_max = 1_024;
            }
            Part::SlowDisk => {
                self.disk_min = Span(100);
                self.disk_spread = Span::ZERO;
                self.disk_news_max = Span::ZERO;
            }
            Part::SlowReaders => asks.for_each(|ask| ask.reads_after = Span::ZERO),
            Part::StaleBeats => self.stale_beats = Ratio::NEVER,
            Part::Stalls => self.tasks.stalls = Ratio::NEVER,
            Part::TightLimits => {
                let second_attempt_percent = self.limits.second_attempt_percent;
                self.limits = Limits {
                    second_attempt_percent,
                    ..Limits::reference()
                };
            }
            Part::Warming => self.warm_min = None,
        }
    }
}

/// The one machine that a fault happens to.
const fn machine_of(fault: &Fault) -> Option<u32> {
    match *fault {
        Fault::Clock {
            whose: Whose::Machine(machine),
            ..
        }
        | Fault::Clog { machine, .. }
        | Fault::Crash { machine, .. }
        | Fault::Cut { machine, .. }
        | Fault::Drain { machine } => Some(machine),
        Fault::Clock {
            whose: Whose::Coordinator,
            ..
        }
        | Fault::CoordinatorCrash { .. }
        | Fault::CoordinatorDrain { .. }
        | Fault::DiskDamage { .. }
        | Fault::DiskStall { .. }
        | Fault::Partition { .. }
        | Fault::WriteError => None,
    }
}

impl fmt::Display for Only {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gap = "";
        for (key, list) in [
            ("machines", &self.machines),
            ("asks", &self.asks),
            ("faults", &self.faults),
        ] {
            if let Some(list) = list {
                let numbers: Vec<String> = list.iter().map(u32::to_string).collect();
                write!(f, "{gap}{key}={}", numbers.join(","))?;
                gap = " ";
            }
        }
        if !self.without.is_empty() {
            let names: Vec<&str> = self.without.iter().map(|part| part.name()).collect();
            write!(f, "{gap}without={}", names.join(","))?;
        }
        Ok(())
    }
}

impl FromStr for Only {
    type Err = OnlyError;

    fn from_str(text: &str) -> Result<Self, OnlyError> {
        let mut only = Self::default();
        for word in text.split_whitespace() {
            let key_error = || OnlyError::Key(word.to_owned());
            let (key, list) = word.split_once('=').ok_or_else(key_error)?;
            match key {
                "machines" => only.machines = Some(numbers(list)?),
                "asks" => only.asks = Some(numbers(list)?),
                "faults" => only.faults = Some(numbers(list)?),
                "without" => {
                    for name in list.split(',') {
                        let part = Part::ALL.into_iter().find(|part| part.name() == name);
                        let part = part.ok_or_else(|| OnlyError::Part(name.to_owned()))?;
                        only.without.insert(part);
                    }
                }
                _ => return Err(key_error()),
            }
        }
        Ok(only)
    }
}

fn numbers(list: &str) -> Result<Vec<u32>, OnlyError> {
    let mut numbers = Vec::new();
    for item in list.split(',').filter(|item| !item.is_empty()) {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let number = |digits: &str| {
            // No plan has more, and a range is spelt out.
            let number = digits
                .parse::<u32>()
                .ok()
                .filter(|number| *number < 100_000);
            number.ok_or_else(|| OnlyError::Number(item.to_owned()))
        };
        numbers.extend(number(first)?..=number(last)?);
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_again() {
        let text = "machines=0,2 asks= faults=1,2,3 without=lies,stalls";
        let only: Only = text.parse().unwrap();
        assert_eq!(only.asks, Some(Vec::new()));
        assert_eq!(only.to_string(), text);
        let ranged: Only = "faults=1-3 machines=0,2 asks= without=stalls,lies"
            .parse()
            .unwrap();
        assert_eq!(ranged, only);
        assert_eq!("".parse(), Ok(Only::default()));
    }

    #[test]
    fn what_cannot_be_is_told() {
        for (text, part) in [
            ("machine=1", "machines="),
            ("asks=1,x", "1,4-7"),
            ("without=rain", "tight-limits"),
        ] {
            let error = text.parse::<Only>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_kept_keeps_its_number_and_its_time() {
        let whole = Plan::draw(3);
        let mut less = whole.clone();
        less.keep(&"asks=1 faults=0 without=leavers".parse().unwrap());
        assert_eq!(less.asks.len(), whole.asks.len());
        assert_eq!(less.asks[1].at, whole.asks[1].at);
        assert_eq!(less.asks[0].at, Tick::NEVER);
        assert!(less.asks.iter().all(|ask| ask.leaves_after.is_none()));
        assert!(less.faults.len() <= 1);
        less = whole.clone();
        less.keep(&Only::default());
        assert_eq!(less, whole);
    }
}
