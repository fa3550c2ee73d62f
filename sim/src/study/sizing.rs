//! How few machines are enough, and how sure that is: means over seeds vary, and so does the size at which
//! they reach a goal.

use super::interval::Interval;
use super::smallest::{Smallest, smallest};

/// What a fleet has to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goal {
    /// Of all requests, in a million.
    pub goodput_ppm: u64,
    /// What the first token of 99 of 100 answers may take, if that is asked for.
    pub ttft_p99_us: Option<u64>,
}

/// What one size of the fleet came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub machines: u32,
    pub goodput: Interval,
    pub ttft_p99: Interval,
}

/// The answer, and what it was found by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizing {
    pub smallest: Smallest,
    /// The smallest fleet that may be good enough, and the smallest that surely is, where there are several
    /// seeds and such fleets: 95 % confidence in each direction.
    pub between: Option<(u32, u32)>,
    /// All that were tried, by their size.
    pub sizes: Vec<Size>,
}

/// How much of an interval has to reach the goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Any,
    Mean,
    All,
}

impl Goal {
    /// Whether the mean reaches it.
    #[must_use]
    pub fn is_met(&self, size: &Size) -> bool {
        self.is_met_by(size, Part::Mean)
    }

    fn is_met_by(&self, size: &Size, part: Part) -> bool {
        // The most that is good, or the least that is bad.
        let best = |interval: Interval, towards: i64| {
            let half = interval.half_width.unwrap_or(0);
            match part {
                Part::Any => interval.mean + towards * half,
                Part::Mean => interval.mean,
                Part::All => interval.mean - towards * half,
            }
        };
        let least = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        best(size.goodput, 1) >= least(self.goodput_ppm)
            && (self.ttft_p99_us).is_none_or(|most| best(size.ttft_p99, -1) <= least(most))
    }
}

/// Looks for the smallest fleet that meets a goal; `measure` runs one of a size.
///
/// # Errors
/// What `measure` says.
pub fn sizing<E>(
    start: u32,
    most: u32,
    goal: Goal,
    mut measure: impl FnMut(u32) -> Result<Size, E>,
) -> Result<Sizing, E> {
    let mut known = std::collections::BTreeMap::<u32, Size>::new();
    let mut search = |start: u32, part: Part| {
        smallest(start, most, |machines| {
            let size = match known.get(&machines) {
                Some(size) => *size,
                None => {
                    let size = measure(machines)?;
                    known.insert(machines, size);
                    size
                }
            };
            Ok::<bool, E>(goal.is_met_by(&size, part))
        })
    };
    let found = search(start, Part::Mean)?;
    let mut between = None;
    if let Some(middle) = found.machines {
        let low = search(middle, Part::Any)?;
        let high = search(middle, Part::All)?;
        between = low.machines.zip(high.machines);
    }
    let sizes: Vec<Size> = known.into_values().collect();
    let is_varied = sizes.iter().all(|size| size.goodput.half_width.is_some());
    Ok(Sizing {
        smallest: found,
        // A larger fleet may do worse: what is found lies between all the same.
        between: between
            .filter(|_| is_varied)
            .map(|(low, high)| (low.min(high), high)),
        sizes,
    })
}

#[cfg(test)]
mod tests {
    use core::convert::Infallible;

    use super::*;

    /// Each machine more serves one in a hundred more, and chance moves that by so much.
    fn found(goal: Goal, half_width: Option<i64>) -> (Sizing, usize) {
        let mut runs = 0;
        let measure = |machines: u32| {
            runs += 1;
            let machines_wide = i64::from(machines);
            Ok::<Size, Infallible>(Size {
                machines,
                goodput: Interval {
                    mean: (machines_wide * 10_000).min(1_000_000),
                    half_width,
                },
                ttft_p99: Interval {
                    mean: 10_000_000 / machines_wide,
                    half_width,
                },
            })
        };
        let sizing = sizing(10, 1_000, goal, measure).unwrap();
        (sizing, runs)
    }

    #[test]
    fn the_interval_of_a_size_is_where_chance_could_turn_the_answer() {
        let goal = Goal {
            goodput_ppm: 600_000,
            ttft_p99_us: None,
        };
        let (sizing, runs) = found(goal, Some(35_000));
        assert_eq!(sizing.smallest.machines, Some(60));
        assert_eq!(sizing.between, Some((57, 64)));
        assert_eq!(runs, sizing.sizes.len(), "no size is run twice");
        assert_eq!(found(goal, Some(0)).0.between, Some((60, 60)));
        assert_eq!(
            found(goal, None).0.between,
            None,
            "one seed says nothing of chance"
        );
    }

    #[test]
    fn a_second_goal_needs_more_machines_and_an_impossible_one_is_told() {
        let goal = Goal {
            goodput_ppm: 600_000,
            ttft_p99_us: Some(125_000),
        };
        let (sizing, _) = found(goal, Some(1_000));
        assert_eq!(sizing.smallest.machines, Some(80));
        assert_eq!(
            sizing.between,
            Some((80, 81)),
            "126,582 - 1,000 is too long"
        );
        let beyond = Goal {
            goodput_ppm: 1_000_001,
            ttft_p99_us: None,
        };
        let (sizing, _) = found(beyond, Some(0));
        assert_eq!((sizing.smallest.machines, sizing.between), (None, None));
    }
}
