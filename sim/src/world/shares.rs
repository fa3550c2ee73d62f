//! What machines of each kind got to do.

use core::fmt;
use std::collections::BTreeMap;

use serde::Serialize;

use super::config::RunConfig;
use super::fleet::Fleet;

/// By the machines' names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Shares(pub BTreeMap<String, Share>);

/// Machines of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Share {
    pub machines: u64,
    /// Of a lone row, by the chip: thousandths of a token a second.
    pub decode_mtps: u32,
    /// Jobs that came to them.
    pub jobs: u64,
    /// To the one that got the fewest, and to the one that got the most.
    pub least: u64,
    pub most: u64,
    /// Machines that got none.
    pub idle: u64,
}

impl Shares {
    pub(super) fn of(config: &RunConfig, fleet: &Fleet) -> Self {
        let mut shares = BTreeMap::new();
        for (machine, place) in (0..).zip(config.places()) {
            let jobs = fleet.jobs(machine);
            let share = shares.entry(place.to_string()).or_insert(Share {
                decode_mtps: fleet.chip(machine).decode_mtps(),
                least: u64::MAX,
                ..Share::default()
            });
            share.machines += 1;
            share.jobs += jobs;
            share.least = share.least.min(jobs);
            share.most = share.most.max(jobs);
            share.idle += u64::from(jobs == 0);
        }
        Self(shares)
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: u64 = self.0.values().map(|share| share.jobs).sum();
        writeln!(
            f,
            "shares         machines  tokens/s  jobs each  least   most  got none  of all jobs"
        )?;
        for (kind, share) in &self.0 {
            let tenths = share.jobs * 10 / share.machines;
            writeln!(
                f,
                "  {kind:12} {:>8} {:>9} {:>8}.{} {:>6} {:>6} {:>9} {:>10} %",
                share.machines,
                share.decode_mtps / 1_000,
                tenths / 10,
                tenths % 10,
                share.least,
                share.most,
                share.idle,
                share.jobs * 100 / all.max(1)
            )?;
        }
        Ok(())
    }
}
