//! What a run is judged by, each measure as a whole number.

use std::collections::BTreeMap;

use crate::world::Ran;

/// Sorted as they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// Time to first token, in microseconds.
    TtftP50,
    TtftP90,
    TtftP99,
    /// Time for each token after the first.
    TpotP99,
    /// Requests served within the objective, in a million of all that were sent.
    Goodput,
    /// Requests that got no whole answer, in a million.
    Refused,
    /// Time of the busiest machine over the mean of its kind, in thousandths.
    Busiest,
    /// Attempts of the machine with the fewest over those of the one with the most, in a million.
    LeastServed,
    /// Prompt tokens that were found and not computed, in a million.
    PrefixHits,
}

/// How its numbers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Micros,
    Milli,
    Ppm,
}

impl Measure {
    pub const ALL: [Self; 9] = [
        Self::TtftP50,
        Self::TtftP90,
        Self::TtftP99,
        Self::TpotP99,
        Self::Goodput,
        Self::Refused,
        Self::Busiest,
        Self::LeastServed,
        Self::PrefixHits,
    ];

    /// As a heading of two lines.
    #[must_use]
    pub const fn title(self) -> [&'static str; 2] {
        match self {
            Self::TtftP50 => ["TTFT", "p50 ms"],
            Self::TtftP90 => ["TTFT", "p90 ms"],
            Self::TtftP99 => ["TTFT", "p99 ms"],
            Self::TpotP99 => ["TPOT", "p99 ms"],
            Self::Goodput => ["goodput", "%"],
            Self::Refused => ["refused", "%"],
            Self::Busiest => ["busiest", "of mean"],
            Self::LeastServed => ["least", "% most"],
            Self::PrefixHits => ["hits", "%"],
        }
    }

    /// In JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TtftP50 => "ttft_p50_us",
            Self::TtftP90 => "ttft_p90_us",
            Self::TtftP99 => "ttft_p99_us",
            Self::TpotP99 => "tpot_p99_us",
            Self::Goodput => "goodput_ppm",
            Self::Refused => "refused_ppm",
            Self::Busiest => "busiest_milli",
            Self::LeastServed => "least_served_ppm",
            Self::PrefixHits => "prefix_hit_ppm",
        }
    }

    #[must_use]
    pub const fn unit(self) -> Unit {
        match self {
            Self::TtftP50 | Self::TtftP90 | Self::TtftP99 | Self::TpotP99 => Unit::Micros,
            Self::Busiest => Unit::Milli,
            Self::Goodput | Self::Refused | Self::LeastServed | Self::PrefixHits => Unit::Ppm,
        }
    }
}

impl Unit {
    /// One digit after the point for milliseconds, two for percent and ratios.
    #[must_use]
    pub fn text(self, value: i64) -> String {
        let size = value.unsigned_abs();
        let (units, text) = match self {
            Self::Micros => {
                let tenths = (size + 50) / 100;
                (tenths, format!("{}.{}", tenths / 10, tenths % 10))
            }
            Self::Milli => {
                let hundredths = (size + 5) / 10;
                let text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
                (hundredths, text)
            }
            Self::Ppm => {
                let hundredths = (size + 50) / 100;
                let text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
                (hundredths, text)
            }
        };
        match value < 0 && units > 0 {
            true => format!("-{text}"),
            false => text,
        }
    }

    /// The same with a sign before it whatever it is, for a difference.
    #[must_use]
    pub fn signed(self, value: i64) -> String {
        let text = self.text(value);
        match text.starts_with('-') {
            true => text,
            false => format!("+{text}"),
        }
    }
}

/// One run in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    pub seed: u64,
    values: [i64; Measure::ALL.len()],
    /// Requests without a whole answer, by the API's code.
    pub refusals: BTreeMap<&'static str, u64>,
    pub digest: String,
}

impl Measured {
    #[must_use]
    pub fn of(ran: &Ran) -> Self {
        let report = &ran.report;
        let fairness = ran.record.fairness();
        let mut refusals = report.refused.clone();
        for (code, count) in &report.failed {
            *refusals.entry(code).or_default() += count;
        }
        let refused: u64 = refusals.values().sum();
        let value = |measure| match measure {
            Measure::TtftP50 => report.ttft.p50_us,
            Measure::TtftP90 => report.ttft.p90_us,
            Measure::TtftP99 => report.ttft.p99_us,
            Measure::TpotP99 => report.tpot.p99_us,
            Measure::Goodput => report.goodput_ppm,
            Measure::Refused => refused * 1_000_000 / report.asked.max(1),
            Measure::Busiest => fairness.busiest_milli,
            Measure::LeastServed => fairness.least_ppm,
            Measure::PrefixHits => report.prefix_hit_ppm,
        };
        Self {
            seed: report.seed,
            values: Measure::ALL.map(|measure| i64::try_from(value(measure)).unwrap_or(i64::MAX)),
            refusals,
            digest: report.digest.clone(),
        }
    }

    #[must_use]
    pub fn value(&self, measure: Measure) -> i64 {
        let ix = Measure::ALL.iter().position(|other| *other == measure);
        self.values[ix.expect("all are listed")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_to_the_digit_that_counts() {
        assert_eq!(Unit::Micros.text(1_234_567), "1234.6");
        assert_eq!(Unit::Micros.text(-49), "0.0");
        assert_eq!(Unit::Micros.signed(-51), "-0.1");
        assert_eq!(Unit::Micros.signed(49), "+0.0");
        assert_eq!(Unit::Ppm.text(987_654), "98.77");
        assert_eq!(Unit::Milli.text(1_318), "1.32");
    }
}
