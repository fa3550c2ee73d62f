//! One page that says what a fleet does for its users: self-contained HTML, without a script and
//! without the network. A function of what it is given.

mod chart;
mod charts;
mod tables;
#[cfg(test)]
mod tests;

use crate::study::{Comparison, Goal, Interval, Measure, Sizing};
use crate::world::Ran;
use crate::world::config::RunConfig;

use self::chart::escaped;

/// All that a page shows.
#[derive(Clone, Debug)]
pub struct Page {
    /// What makes it again.
    pub command: String,
    pub trace: String,
    pub requests: u64,
    /// The world of every run, but for its seed and its policy.
    pub config: RunConfig,
    /// The share of requests that must be served within the objective, in a million.
    pub goal_ppm: u64,
    /// Ours first; the other, if there is one, is what it is compared with.
    pub comparison: Comparison,
    /// One run of each, of the first seed.
    pub runs: Vec<Ran>,
    /// The same policies under other loads, the lightest first.
    pub loads: Vec<Comparison>,
    /// Requests a second that the fleet can take, in thousandths, if that is known.
    pub capacity_milli: Option<u64>,
    /// How few machines of this mix reach which goal, if that was looked for.
    pub sizing: Option<(Goal, Sizing)>,
}

/// What the runs say about the goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Meets,
    Misses,
    /// The goal lies within what chance moves.
    Open,
}

impl Verdict {
    #[must_use]
    pub fn of(goodput: Interval, goal_ppm: u64) -> Self {
        let goal = i64::try_from(goal_ppm).unwrap_or(i64::MAX);
        let Some(half) = goodput.half_width else {
            return Self::Open;
        };
        if goodput.mean - half >= goal {
            Self::Meets
        } else if goodput.mean + half < goal {
            Self::Misses
        } else {
            Self::Open
        }
    }
}

impl Page {
    /// # Panics
    /// There is no run.
    #[must_use]
    pub fn html(&self) -> String {
        let ran = self.runs.first().expect("a page is of at least one run");
        let mut body = self.head();
        body += &self.tiles(ran);
        body += "<h2>How long users wait</h2>";
        body += "<p class=\"soft\">Shares of all requests that were sent: one that was refused or broken \
                 off never counts as served, so a line that ends below 100 % shows how many were.</p>";
        body += &charts::distributions(self);
        body += &self.differences();
        body += "<h2>What more load does</h2>";
        body += &charts::loads(self);
        if let Some((goal, sizing)) = &self.sizing {
            body += "<h2>How large the fleet has to be</h2>";
            body += &tables::sizes(*goal, sizing);
        }
        body += "<h2>Over time</h2>";
        body += &self.of_first_seed();
        body += &charts::over_time(ran);
        body += "<h2>Machines</h2>";
        body += &charts::machines(ran);
        body += &tables::fairness(ran);
        body += &tables::kinds(ran);
        body += "<h2>Prompts</h2>";
        body += &tables::lengths(ran);
        body += "<h2>Refusals</h2>";
        body += &tables::refusals(self);
        body += "<h2>Money</h2>";
        body += &tables::money(ran);
        body += "<h2>Where this comes from</h2>";
        body += &tables::origin(self);
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <title>{}</title><style>{}</style></head><body>{body}</body></html>\n",
            escaped(&self.title()),
            include_str!("style.css"),
        )
    }

    fn title(&self) -> String {
        format!(
            "{} machines, {}",
            self.config.machines,
            self.config.model_names()
        )
    }

    fn head(&self) -> String {
        let kinds = self.config.census();
        let kinds = kinds.iter().map(|(kind, count)| format!("{count} {kind}"));
        let kinds = kinds.collect::<Vec<_>>().join(", ");
        let rate = self.comparison.rate_milli;
        format!(
            "<h1>{}</h1><p class=\"soft\">{}: {} requests at {} a second. {}</p>{}",
            escaped(&self.title()),
            escaped(&self.trace),
            grouped(self.requests),
            milli(rate),
            escaped(&kinds),
            self.verdict(),
        )
    }

    /// The first thing to read.
    fn verdict(&self) -> String {
        let first = &self.comparison.contenders[0];
        let goodput = first.interval(Measure::Goodput).expect("there is a run");
        let (class, says) = match Verdict::of(goodput, self.goal_ppm) {
            Verdict::Meets => ("good", "This fleet meets the objective."),
            Verdict::Misses => ("bad", "This fleet misses the objective."),
            Verdict::Open => ("open", "Too close to call."),
        };
        let half = goodput.half_width.map_or_else(
            || "one seed, so nothing is known of chance".to_owned(),
            |half| {
                format!(
                    "&plusmn; {} with 95 % confidence over {} seeds",
                    percent(half),
                    first.runs.len()
                )
            },
        );
        let mut text = format!(
            "<p class=\"verdict {class}\"><b>{says}</b> {} % of requests ({half}) have their first token \
             within {} and each later one within {}; {} % is asked for.",
            percent(goodput.mean),
            time(self.config.slo.ttft.0),
            time(self.config.slo.tpot.0),
            percent(i64::try_from(self.goal_ppm).unwrap_or(i64::MAX)),
        );
        if let Some((goal, sizing)) = &self.sizing {
            text += &format!("</p><p class=\"verdict\">{}", smallest(*goal, sizing));
        }
        text + "</p>"
    }

    fn tiles(&self, ran: &Ran) -> String {
        let first = &self.comparison.contenders[0];
        let of = |measure: Measure| first.median(measure);
        let time_of = |measure| time(u64::try_from(of(measure)).unwrap_or(0));
        let mut tiles = vec![
            (
                format!("{} %", percent(of(Measure::Goodput))),
                "within the objective",
            ),
            (time_of(Measure::TtftP50), "to first token, the middle"),
            (time_of(Measure::TtftP99), "to first token, 99 of 100"),
            (time_of(Measure::TpotP99), "for each token, 99 of 100"),
            (
                format!("{} %", percent(of(Measure::Refused))),
                "without a whole answer",
            ),
            (
                format!("{} %", percent_of(ran.report.busy_ppm)),
                "of machines' time in use",
            ),
        ];
        if let Some(capacity) = self.capacity_milli {
            tiles.push((format!("{}/s", milli(capacity)), "requests is the capacity"));
        }
        let tiles = tiles
            .iter()
            .map(|(value, name)| format!("<div><b>{value}</b><span>{name}</span></div>"));
        format!("<div class=\"tiles\">{}</div>", tiles.collect::<String>())
    }

    fn differences(&self) -> String {
        match self.comparison.contenders.as_slice() {
            [ours, other] => tables::differences(ours, other),
            _ => String::new(),
        }
    }

    fn of_first_seed(&self) -> String {
        let first = &self.comparison.contenders[0];
        let seed = first.runs.first().map_or(0, |run| run.seed);
        format!(
            "<p class=\"soft\">Of {} at seed {seed}, as are the charts and tables below.</p>",
            escaped(&first.name)
        )
    }
}

/// The answer of a sweep as a sentence.
fn smallest(goal: Goal, sizing: &Sizing) -> String {
    let Some(machines) = sizing.smallest.machines else {
        return "<b>No fleet of this mix is large enough for the objective.</b>".to_owned();
    };
    let sure = match sizing.between {
        Some((low, high)) => format!("{low} to {high} with 95 % confidence"),
        None => "one seed, so nothing is known of chance".to_owned(),
    };
    let also = goal.ttft_p99_us.map_or_else(String::new, |most| {
        format!(" and 99 of 100 first tokens within {}", time(most))
    });
    format!(
        "<b>Smallest fleet for the objective: {machines} machines ({sure})</b>, of this mix, for {} % of \
         requests{also}.",
        percent_of(goal.goodput_ppm)
    )
}

/// Microseconds as people say them.
pub(crate) fn time(us: u64) -> String {
    let tenths = |value: u64, unit: u64, name: &str| {
        let tenths = (value * 10 + unit / 2) / unit;
        match tenths % 10 {
            0 => format!("{} {name}", tenths / 10),
            rest => format!("{}.{rest} {name}", tenths / 10),
        }
    };
    match us {
        0..1_000 => format!("{us} \u{b5}s"),
        1_000..1_000_000 => tenths(us, 1_000, "ms"),
        1_000_000..120_000_000 => tenths(us, 1_000_000, "s"),
        _ => tenths(us, 60_000_000, "min"),
    }
}

/// Of parts of a million, with two digits after the point.
fn percent(ppm: i64) -> String {
    crate::study::Unit::Ppm.text(ppm)
}

fn percent_of(ppm: u64) -> String {
    percent(i64::try_from(ppm).unwrap_or(i64::MAX))
}

/// Thousandths, with two digits after the point.
fn milli(value: u64) -> String {
    crate::study::Unit::Milli.text(i64::try_from(value).unwrap_or(i64::MAX))
}

/// Digits in groups of three.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (ix, digit) in digits.chars().enumerate() {
        if ix > 0 && (digits.len() - ix).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
