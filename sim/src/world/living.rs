//! What a run's life was: who came and went, who was hot or broken. Only what a run was asked to model is told of.

use core::fmt;
use core::hash::{Hash, Hasher};
use std::collections::BTreeMap;

use cereus_core::event::{GoneCause, Thermal};
use cereus_core::time::Span;
use serde::Serialize;

use super::churn::{Churn, Going};
use super::config::{RunConfig, Telling};
use super::defects::Defect;
use super::fleet::Fleet;
use super::heat::Heat;
use super::shares::Shares;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Living {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub churn: Option<Churned>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heat: Option<Heated>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defects: Option<Defected>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub residency: Option<Resided>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub people: Option<Peopled>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shares: Option<Shares>,
    /// Answers that broke off, or whose consumer left, and that were paid as far as they were shown.
    #[serde(skip_serializing_if = "is_nought")]
    pub charged_in_part: u64,
}

/// Machines that came and went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Churned {
    pub sessions: u64,
    pub slept_silently: u64,
    pub slept_closed: u64,
    /// Networks that were lost, and connections that the coordinator closed.
    pub lost: u64,
    pub goodbyes: u64,
    pub crashes: u64,
    pub for_good: u64,
    /// Rows that ended with their connection.
    pub rows_dropped: u64,
    /// Connections that were closed because nothing was heard of them.
    pub missed: u64,
    /// And those that a newer connection of the machine replaced before.
    pub replaced: u64,
}

/// Heartbeats by the state that they told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Heated {
    pub nominal: u64,
    pub fair: u64,
    pub serious: u64,
}

/// Jobs that came to machines with a defect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Defected {
    pub to_boasters: u64,
    pub to_degraded: u64,
    pub to_refusers: u64,
}

/// Models that came into memory and left it, by what the machines' own slots count; what a process
/// that ended had counted is lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Resided {
    pub loads: u64,
    pub evictions: u64,
    pub idle_unloads: u64,
    pub refusals: u64,
    pub by_model: BTreeMap<String, Served>,
}

/// What consumers did. `asked` of the report counts what they wanted, once over all its tries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Peopled {
    /// Tries after a request's first.
    pub retries: u64,
    /// Answered on a later try than the first.
    pub answered_late: u64,
    /// Given up after more than one try.
    pub given_up: u64,
    pub left_before_content: u64,
    pub left_amid: u64,
}

/// When a consumer leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    AmidAnswer,
    BeforeContent,
}

/// Of one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Served {
    pub asked: u64,
    pub finished: u64,
    pub ttft_mean_us: u64,
    #[serde(skip)]
    ttft_sum_us: u64,
}

impl Living {
    #[must_use]
    pub fn new(config: &RunConfig) -> Self {
        let is_watched = config.churn != Churn::None || !config.newcomers.is_empty();
        Self {
            churn: is_watched.then(Churned::default),
            heat: (config.heat != Heat::None).then(Heated::default),
            defects: (!config.defects.is_empty()).then(Defected::default),
            shares: None,
            people: config.people.do_anything().then(Peopled::default),
            residency: (config.models.len() > 1).then(Resided::default),
            charged_in_part: 0,
        }
    }

    pub(super) fn comes(&mut self) {
        if let Some(churn) = &mut self.churn {
            churn.sessions += 1;
        }
    }

    pub(super) fn goes(&mut self, going: Going, rows: u64) {
        let Some(churn) = &mut self.churn else { return };
        churn.rows_dropped += rows;
        *match going {
            Going::Crashes => &mut churn.crashes,
            Going::LosesConnection => &mut churn.lost,
            Going::SaysGoodbye => &mut churn.goodbyes,
            Going::SleepsClosed => &mut churn.slept_closed,
            Going::SleepsSilently => &mut churn.slept_silently,
        } += 1;
    }

    pub(super) fn stays_away(&mut self) {
        if let Some(churn) = &mut self.churn {
            churn.for_good += 1;
        }
    }

    pub(super) fn is_missed(&mut self, cause: GoneCause) {
        let Some(churn) = &mut self.churn else { return };
        match cause {
            GoneCause::Silent => churn.missed += 1,
            GoneCause::Replaced => churn.replaced += 1,
            GoneCause::Closed
            | GoneCause::Contested
            | GoneCause::Lost
            | GoneCause::Violation
            | GoneCause::WriteStalled => {}
        }
    }

    pub(super) fn feels(&mut self, thermal: Thermal) {
        let Some(heat) = &mut self.heat else { return };
        *match thermal {
            Thermal::Nominal => &mut heat.nominal,
            Thermal::Fair => &mut heat.fair,
            Thermal::Serious | Thermal::Critical => &mut heat.serious,
        } += 1;
    }

    pub(super) fn is_defective(&mut self, defect: Defect) {
        let Some(defects) = &mut self.defects else {
            return;
        };
        *match defect {
            Defect::Boasts { .. } => &mut defects.to_boasters,
            Defect::Degrades { .. } => &mut defects.to_degraded,
            Defect::Refuses => &mut defects.to_refusers,
        } += 1;
    }

    pub(super) fn is_asked(&mut self, model: &str) {
        if let Some(residency) = &mut self.residency {
            residency.of(model).asked += 1;
        }
    }

    pub(super) fn is_finished(&mut self, model: &str, ttft: Span) {
        if let Some(residency) = &mut self.residency {
            let served = residency.of(model);
            served.finished += 1;
            served.ttft_sum_us += ttft.0;
        }
    }

    pub(super) const fn tries_again(&mut self) {
        if let Some(people) = &mut self.people {
            people.retries += 1;
        }
    }

    /// A request was answered after so many tries before.
    pub(super) fn is_answered(&mut self, nth: u8) {
        if let Some(people) = &mut self.people {
            people.answered_late += u64::from(nth > 0);
        }
    }

    pub(super) fn gives_up(&mut self, nth: u8) {
        if let Some(people) = &mut self.people {
            people.given_up += u64::from(nth > 0);
        }
    }

    pub(super) const fn leaves(&mut self, leaving: Leaving) {
        if let Some(people) = &mut self.people {
            match leaving {
                Leaving::AmidAnswer => people.left_amid += 1,
                Leaving::BeforeContent => people.left_before_content += 1,
            }
        }
    }

    pub(super) fn closed(mut self, config: &RunConfig, fleet: &Fleet) -> Self {
        self.shares = match config.shares {
            Telling::Left => None,
            Telling::Told => Some(Shares::of(config, fleet)),
        };
        let Some(residency) = &mut self.residency else {
            return self;
        };
        for host in fleet.hosts() {
            let counts = host.slots.counts();
            residency.loads += counts.loads;
            residency.evictions += counts.evictions;
            residency.idle_unloads += counts.idle_unloads;
            residency.refusals += counts.refusals;
        }
        for served in residency.by_model.values_mut() {
            served.ttft_mean_us = served.ttft_sum_us / served.finished.max(1);
        }
        self
    }

    pub(super) const fn is_charged(&mut self) {
        self.charged_in_part += 1;
    }
}

impl Resided {
    fn of(&mut self, model: &str) -> &mut Served {
        if !self.by_model.contains_key(model) {
            self.by_model.insert(model.to_owned(), Served::default());
        }
        self.by_model.get_mut(model).expect("it is there now")
    }
}

/// A run that models none of this has the digest that it had before it could.
impl Hash for Living {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self {
            churn,
            heat,
            defects,
            residency,
            people,
            shares,
            charged_in_part,
        } = self;
        if let Some(churn) = churn {
            churn.hash(state);
        }
        if let Some(heat) = heat {
            heat.hash(state);
        }
        if let Some(defects) = defects {
            defects.hash(state);
        }
        if let Some(residency) = residency {
            residency.hash(state);
        }
        if let Some(people) = people {
            people.hash(state);
        }
        if let Some(shares) = shares {
            shares.hash(state);
        }
        if *charged_in_part > 0 {
            charged_in_part.hash(state);
        }
    }
}

/// Lines of the report, each with its end.
impl fmt::Display for Living {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(churn) = &self.churn {
            churn.fmt(f)?;
        }
        if let Some(heat) = &self.heat {
            heat.fmt(f)?;
        }
        if let Some(defects) = &self.defects {
            defects.fmt(f)?;
        }
        if let Some(residency) = &self.residency {
            residency.fmt(f)?;
        }
        if let Some(people) = &self.people {
            people.fmt(f)?;
        }
        if let Some(shares) = &self.shares {
            shares.fmt(f)?;
        }
        if self.charged_in_part > 0 {
            writeln!(f, "charged        {} answers in part", self.charged_in_part)?;
        }
        Ok(())
    }
}

impl fmt::Display for Churned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "churn          {} sessions; {} slept silently, {} slept, {} lost, {} goodbyes, {} crashed",
            self.sessions,
            self.slept_silently,
            self.slept_closed,
            self.lost,
            self.goodbyes,
            self.crashes
        )?;
        writeln!(
            f,
            "  connections  {} closed as silent, {} replaced; {} machines left for good",
            self.missed, self.replaced, self.for_good
        )?;
        writeln!(
            f,
            "  rows         {} ended with their machine",
            self.rows_dropped
        )
    }
}

impl fmt::Display for Heated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = (self.nominal + self.fair + self.serious).max(1);
        let percent = |count: u64| count * 100 / all;
        writeln!(
            f,
            "heat           {} % of heartbeats fair, {} % serious",
            percent(self.fair),
            percent(self.serious)
        )
    }
}

impl fmt::Display for Defected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "defects        {} jobs went to degraded machines, {} to refusers, {} to boasters",
            self.to_degraded, self.to_refusers, self.to_boasters
        )
    }
}

impl fmt::Display for Resided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "models         {} loads, {} evictions, {} unloads for want of use, {} refusals",
            self.loads, self.evictions, self.idle_unloads, self.refusals
        )?;
        for (model, served) in &self.by_model {
            writeln!(
                f,
                "  {model:20} {} asked, {} finished, TTFT {} ms on average",
                served.asked,
                served.finished,
                served.ttft_mean_us / 1_000
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Peopled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "consumers      {} tries again; {} answered late, {} given up; {} left before content, {} amid",
            self.retries,
            self.answered_late,
            self.given_up,
            self.left_before_content,
            self.left_amid
        )
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_nought(count: &u64) -> bool {
    *count == 0
}
