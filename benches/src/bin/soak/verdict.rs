//! What came of all requests, and whether the claims hold.

use std::collections::BTreeMap;
use std::time::Duration;

use cereus_engine::runtime::CapacitySnapshot;
use serde_json::{Value, json};

use crate::resident::Samples;

/// Memory may differ by so much of its least, once it is warm.
const SPREAD_PERCENT_MAX: f64 = 5.0;
/// Of wrong ends, so many are told.
const WRONG_TOLD_MAX: usize = 16;

/// What a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    Cancelled,
    Complete,
    /// The engine lost what was computed, or could not compute.
    Lost,
    NeverFits,
    QueueFull,
    /// Its time was over, after all stood still.
    TooLate,
    /// Not what the request asked for, or twice.
    Wrong,
}

impl End {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Complete => "complete",
            Self::Lost => "lost",
            Self::NeverFits => "never_fits",
            Self::QueueFull => "queue_full",
            Self::TooLate => "too_late",
            Self::Wrong => "wrong",
        }
    }
}

/// The books of a soak.
#[derive(Default)]
pub(crate) struct Ends {
    pub(crate) submitted: u64,
    /// Answers that were compared with an earlier one of the same request.
    pub(crate) compared: u64,
    counts: BTreeMap<End, u64>,
    wrong: Vec<String>,
}

impl Ends {
    pub(crate) fn note(&mut self, end: End) {
        *self.counts.entry(end).or_default() += 1;
    }

    /// Something that must not be; `why` holds no text of a request.
    pub(crate) fn note_wrong(&mut self, end: End, why: String) {
        self.note(end);
        eprintln!("    {why}");
        if self.wrong.len() < WRONG_TOLD_MAX {
            self.wrong.push(why);
        }
    }

    pub(crate) fn count(&self, end: End) -> u64 {
        self.counts.get(&end).copied().unwrap_or(0)
    }

    fn ended(&self) -> u64 {
        self.counts.values().sum()
    }

    pub(crate) fn line(&self) -> String {
        let of = |end| self.count(end);
        format!(
            "{} complete, {} cancelled, {} refused as too long, {} as too many",
            of(End::Complete),
            of(End::Cancelled),
            of(End::NeverFits),
            of(End::QueueFull),
        )
    }
}

/// What a soak found.
pub(crate) struct Found {
    pub(crate) time: Duration,
    /// Beside that time, because the machine slept or the process was stopped.
    pub(crate) stood_still: Duration,
    pub(crate) warm_up: Duration,
    pub(crate) ends: Ends,
    /// Requests that never ended.
    pub(crate) unended: usize,
    /// Grants that were given.
    pub(crate) grants: u64,
    pub(crate) samples: Samples,
    /// When all had ended.
    pub(crate) capacity: CapacitySnapshot,
    /// A request as large as its grant was served at the end, so nothing else held a page.
    pub(crate) whole_grant_was_free: bool,
}

struct Claim {
    name: &'static str,
    /// `None` where it cannot be measured.
    holds: Option<bool>,
    figures: String,
}

impl Found {
    fn claims(&self) -> [Claim; 6] {
        let Self { ends, capacity, .. } = self;
        let lost = ends.count(End::Lost);
        let wrong = ends.count(End::Wrong);
        let (submitted, ended) = (ends.submitted, ends.ended());
        let flatness = self.samples.flatness(self.warm_up);
        let used = capacity.active_token_budget_used + capacity.queued_token_budget;
        let rows = capacity.num_running + capacity.num_waiting;
        let is_pressed = capacity.preemptions > 0 && ends.count(End::QueueFull) > 0;
        [
            Claim {
                name: "no allocation fails",
                holds: Some(lost == 0 && !capacity.has_crashed),
                figures: format!("{lost} requests lost to the backend"),
            },
            Claim {
                name: "resident memory is flat",
                holds: flatness.map(|flat| flat.percent() <= SPREAD_PERCENT_MAX),
                figures: flatness.map_or_else(
                    || "not read: this system has no /proc".to_owned(),
                    |flat| {
                        format!(
                            "{:.1} to {:.1} MiB between steps after {} s, {:.2} % of its least; at \
                             most {:.1} within one",
                            flat.least_mib,
                            flat.most_mib,
                            self.warm_up.as_secs(),
                            flat.percent(),
                            flat.peak_mib
                        )
                    },
                ),
            },
            Claim {
                name: "no request is lost",
                holds: Some(submitted == ended && self.unended == 0 && wrong == 0),
                figures: format!(
                    "{submitted} submitted, {ended} ended, {} did not, {wrong} wrongly",
                    self.unended
                ),
            },
            Claim {
                name: "all pages are free at the end",
                holds: Some(rows == 0 && used == 0 && self.whole_grant_was_free),
                figures: format!(
                    "{rows} rows, {used} tokens reserved, a row as large as its grant {}",
                    if self.whole_grant_was_free {
                        "was served"
                    } else {
                        "was not served"
                    }
                ),
            },
            Claim {
                name: "an answer is the same each time",
                holds: Some(wrong == 0),
                figures: format!("{} compared", ends.compared),
            },
            Claim {
                name: "the grant was too small for the load",
                holds: Some(is_pressed),
                figures: format!(
                    "{} preemptions, {} grants, {} refused as too many",
                    capacity.preemptions,
                    self.grants,
                    ends.count(End::QueueFull)
                ),
            },
        ]
    }

    pub(crate) fn holds(&self) -> bool {
        self.claims()
            .iter()
            .all(|claim| claim.holds.unwrap_or(true))
    }

    pub(crate) fn print(&self) {
        println!("{} s: {}", self.time.as_secs(), self.ends.line());
        if !self.stood_still.is_zero() {
            println!(
                "all stood still for {} s more; {} requests missed their time",
                self.stood_still.as_secs(),
                self.ends.count(End::TooLate)
            );
        }
        for claim in self.claims() {
            let verdict = match claim.holds {
                Some(true) => "holds",
                Some(false) => "FAILS",
                None => "not measured",
            };
            println!("{verdict}: {} ({})", claim.name, claim.figures);
        }
        for why in &self.ends.wrong {
            println!("  {why}");
        }
    }

    pub(crate) fn json(&self, seed: u64) -> Value {
        let by_name = self.ends.counts.iter();
        let ends: BTreeMap<&str, u64> =
            by_name.map(|(end, count)| (end.as_str(), *count)).collect();
        let claims = self.claims();
        let claims = claims.iter().map(
            |claim| json!({ "claim": claim.name, "holds": claim.holds, "figures": claim.figures }),
        );
        let flatness = self.samples.flatness(self.warm_up);
        json!({
            "seed": seed,
            "seconds": self.time.as_secs(),
            "stood_still_seconds": self.stood_still.as_secs(),
            "warm_up_seconds": self.warm_up.as_secs(),
            "holds": self.holds(),
            "claims": claims.collect::<Value>(),
            "submitted": self.ends.submitted,
            "ends": ends,
            "preemptions": self.capacity.preemptions,
            "steps": self.capacity.steps_executed,
            "prompt_tokens": self.capacity.prompt_tokens,
            "cached_tokens": self.capacity.cached_tokens,
            "resident_spread_percent": flatness.map(crate::resident::Flatness::percent),
            "resident_mib": self.samples.json(),
        })
    }
}
