//! Policies side by side over the same seeds: what each is, and what it differs by from the first.

use core::fmt;
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::interval::{Interval, median, median_between};
use super::measure::{Measure, Measured};

/// One policy and its runs, in the order of their seeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contender {
    pub name: String,
    pub runs: Vec<Measured>,
}

/// See the module. Runs of one seed have the same arrivals, fleet and draws whatever the policy, so
/// the differences of pairs say more than those of means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// Share of the fleet's capacity, in a million; none where the speed-up was given.
    pub load_ppm: Option<u64>,
    pub speedup_ppm: u64,
    pub rate_milli: u64,
    /// The first is what the others are compared with.
    pub contenders: Vec<Contender>,
}

impl Contender {
    /// Over the seeds.
    #[must_use]
    pub fn median(&self, measure: Measure) -> i64 {
        let values: Vec<i64> = self.runs.iter().map(|run| run.value(measure)).collect();
        median(&values).unwrap_or(0)
    }

    /// See [`median_between`].
    #[must_use]
    pub fn median_between(&self, measure: Measure) -> Option<(i64, i64)> {
        let values: Vec<i64> = self.runs.iter().map(|run| run.value(measure)).collect();
        median_between(&values)
    }

    #[must_use]
    pub fn interval(&self, measure: Measure) -> Option<Interval> {
        let values: Vec<i64> = self.runs.iter().map(|run| run.value(measure)).collect();
        Interval::of(&values)
    }

    /// What it has more than another, seed by seed.
    #[must_use]
    pub fn less(&self, other: &Self, measure: Measure) -> Option<Interval> {
        let pairs = self.runs.iter().zip(&other.runs);
        let differences = pairs.map(|(own, other)| {
            assert_eq!(own.seed, other.seed, "pairs are of one seed");
            own.value(measure) - other.value(measure)
        });
        Interval::of(&differences.collect::<Vec<i64>>())
    }

    /// Of all seeds together, by the API's code.
    #[must_use]
    pub fn refusals(&self) -> BTreeMap<&'static str, u64> {
        let mut sum = BTreeMap::new();
        for run in &self.runs {
            for (code, count) in &run.refusals {
                *sum.entry(*code).or_default() += count;
            }
        }
        sum
    }
}

/// By how much the medians of one policy differ between two sets of seeds, in a million of their mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Apart {
    pub policy: String,
    pub measures: Vec<(Measure, u64)>,
}

impl Comparison {
    /// What figures are quoted of.
    const QUOTED: [Measure; 5] = [
        Measure::TtftP50,
        Measure::TtftP90,
        Measure::TtftP99,
        Measure::TpotP99,
        Measure::Goodput,
    ];

    /// How far another set of seeds of the same policies is from this one.
    #[must_use]
    pub fn apart(&self, other: &Self) -> Vec<Apart> {
        let pairs = self.contenders.iter().zip(&other.contenders);
        let of = |(one, other): (&Contender, &Contender)| {
            let measures = Self::QUOTED.map(|measure| {
                let (here, there) = (one.median(measure), other.median(measure));
                let sum = i128::from(here) + i128::from(there);
                let apart_ppm =
                    u128::from(here.abs_diff(there)) * 2_000_000 / sum.unsigned_abs().max(1);
                (measure, u64::try_from(apart_ppm).unwrap_or(u64::MAX))
            });
            Apart {
                policy: one.name.clone(),
                measures: measures.to_vec(),
            }
        };
        pairs.map(of).collect()
    }

    /// For a script.
    #[must_use]
    pub fn json(&self) -> Value {
        let first = self.contenders.first();
        let of = |contender: &Contender| {
            let measures = Measure::ALL.map(|measure| {
                let less = first.and_then(|first| contender.less(first, measure));
                let value = json!({
                    "median": contender.median(measure),
                    "median_between": contender.median_between(measure).map(|(low, high)| [low, high]),
                    "runs": contender.runs.iter().map(|run| run.value(measure)).collect::<Vec<_>>(),
                    "difference": less.map(|less| less.mean),
                    "difference_half_width": less.and_then(|less| less.half_width),
                });
                (measure.name().to_owned(), value)
            });
            json!({
                "policy": contender.name,
                "measures": measures.into_iter().collect::<serde_json::Map<_, _>>(),
                "refusals": contender.refusals(),
                "digests": contender.runs.iter().map(|run| &run.digest).collect::<Vec<_>>(),
            })
        };
        json!({
            "load_ppm": self.load_ppm,
            "speedup_ppm": self.speedup_ppm,
            "rate_milli": self.rate_milli,
            "policies": self.contenders.iter().map(of).collect::<Vec<_>>(),
        })
    }
}

const NAME_WIDTH: usize = 18;
const CELL_WIDTH: usize = 11;

fn line(f: &mut fmt::Formatter<'_>, name: &str, cell: impl Fn(Measure) -> String) -> fmt::Result {
    write!(f, "{name:<NAME_WIDTH$}")?;
    for measure in Measure::ALL {
        write!(f, "{:>CELL_WIDTH$}", cell(measure))?;
    }
    writeln!(f)
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, others)) = self.contenders.split_first() else {
            return Ok(());
        };
        if let Some(load_ppm) = self.load_ppm {
            write!(
                f,
                "load {}.{:02}, ",
                load_ppm / 1_000_000,
                load_ppm / 10_000 % 100
            )?;
        }
        writeln!(
            f,
            "{}.{:03} requests/s, {}.{:03} times the trace's",
            self.rate_milli / 1_000,
            self.rate_milli % 1_000,
            self.speedup_ppm / 1_000_000,
            self.speedup_ppm / 1_000 % 1_000,
        )?;
        line(f, "", |measure| measure.title()[0].to_owned())?;
        line(f, "policy", |measure| measure.title()[1].to_owned())?;
        for contender in &self.contenders {
            line(f, &contender.name, |measure| {
                measure.unit().text(contender.median(measure))
            })?;
            let between = |measure| contender.median_between(measure);
            if between(Measure::Goodput).is_some() {
                let cell = |measure: Measure, one: Option<i64>| {
                    one.map_or_else(String::new, |one| measure.unit().text(one))
                };
                line(f, "            from", |measure| {
                    cell(measure, between(measure).map(|(low, _)| low))
                })?;
                line(f, "              to", |measure| {
                    cell(measure, between(measure).map(|(_, high)| high))
                })?;
            }
        }
        let pairs = first.runs.len();
        if !others.is_empty() {
            writeln!(
                f,
                "minus {}: mean of {pairs} pairs, and its 95 % interval",
                first.name
            )?;
        }
        for contender in others {
            let less = |measure| contender.less(first, measure);
            line(f, &contender.name, |measure| {
                less(measure).map_or_else(String::new, |it| measure.unit().signed(it.mean))
            })?;
            line(f, "                +-", |measure| {
                let half = less(measure).and_then(|it| it.half_width);
                half.map_or_else(|| "?".to_owned(), |half| measure.unit().text(half))
            })?;
        }
        writeln!(f, "without a whole answer, over all seeds")?;
        for contender in &self.contenders {
            let refusals = contender.refusals();
            let parts = refusals
                .iter()
                .map(|(code, count)| format!("{count} {code}"));
            let parts = parts.collect::<Vec<_>>();
            let text = if parts.is_empty() {
                "none".to_owned()
            } else {
                parts.join(", ")
            };
            writeln!(f, "{:<NAME_WIDTH$}{text}", contender.name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use cereus_core::coordinator::Policy;
    use cereus_core::time::Span;

    use super::*;
    use crate::study::run;
    use crate::workload::Arrival;
    use crate::world::config::RunConfig;

    fn contender(name: &str, policy: Policy) -> Contender {
        contender_of(name, policy, 1..=4)
    }

    fn contender_of(name: &str, policy: Policy, seeds: std::ops::RangeInclusive<u64>) -> Contender {
        let arrivals = (0..300u64).map(|ix| Arrival {
            after: Span::millis(ix * 700),
            prompt_tokens: 200 + u32::try_from(ix * 977 % 3_000).unwrap(),
            output_tokens: 20 + u32::try_from(ix * 331 % 400).unwrap(),
            blocks: Vec::new(),
        });
        let arrivals: Vec<Arrival> = arrivals.collect();
        let runs = seeds.map(|seed| {
            let config = RunConfig {
                seed,
                policy,
                ..RunConfig::reference(12)
            };
            Measured::of(&run(config, &arrivals).unwrap())
        });
        Contender {
            name: name.to_owned(),
            runs: runs.collect(),
        }
    }

    #[test]
    fn two_sets_of_seeds_are_apart_by_the_share_of_their_mean() {
        let of = |seeds: std::ops::RangeInclusive<u64>| Comparison {
            load_ppm: None,
            speedup_ppm: 1_000_000,
            rate_milli: 1_429,
            contenders: vec![contender_of("random", Policy::Random, seeds)],
        };
        let (one, other) = (of(1..=3), of(4..=6));
        let apart = one.apart(&other);
        assert_eq!(apart, other.apart(&one));
        let (measure, ppm) = apart[0].measures[2];
        let medians = [&one, &other].map(|it| it.contenders[0].median(measure) as f64);
        let share = (medians[0] - medians[1]).abs() / f64::midpoint(medians[0], medians[1]);
        assert!(
            share > 0.0 && (share * 1e6 - ppm as f64).abs() < 1.0,
            "{share} {ppm}"
        );
        assert!(one.apart(&one)[0].measures.iter().all(|(_, ppm)| *ppm == 0));
    }

    #[test]
    fn a_policy_differs_from_itself_by_nothing_and_chance_is_surely_worse_than_ours() {
        let ours = contender("expected", Policy::Expected);
        let chance = contender("random", Policy::Random);
        for measure in Measure::ALL {
            let nothing = ours.less(&ours, measure).unwrap();
            assert_eq!((nothing.mean, nothing.half_width), (0, Some(0)));
        }
        let worse = chance.less(&ours, Measure::TtftP50).unwrap();
        assert!(worse.is_sure() && worse.mean > 0, "{worse:?}");
        let comparison = Comparison {
            load_ppm: Some(800_000),
            speedup_ppm: 1_000_000,
            rate_milli: 1_429,
            contenders: vec![ours, chance],
        };
        let text = comparison.to_string();
        assert!(text.contains("load 0.80, 1.429 requests/s"), "{text}");
        assert!(text.contains("minus expected: mean of 4 pairs"), "{text}");
        let json = comparison.json();
        let difference = &json["policies"][1]["measures"]["ttft_p50_us"]["difference"];
        assert_eq!(difference.as_i64(), Some(worse.mean));
    }
}
