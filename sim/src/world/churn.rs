//! When machines come and go: the Macs of people at home.
//!
//! [`Churn::Home`] is a fit, not a census. Public figures of a network of this kind are three: 65 % of
//! all disconnects are sleep; the median machine has 18 sessions a week; the most frequent session
//! lasts two to three minutes. They leave open how long a machine stays away, so this is assumed: it
//! is here half of the time. Hence two sessions in five last 120 to 180 s (a Mac that wakes to look
//! for mail), the others 7.75 hours on average, exponentially; who sleeps comes back after 7.1 hours
//! on average, exponentially; and 168 h / (0.6 x 7.75 h + 60 s + 0.65 x 7.1 h + ...) is 18. Of the
//! disconnects that are no sleep 20 in 35 are a lost network (the agent dials again within 1 to 30 s),
//! 10 a goodbye (an update, a restart: 20 s to 5 min), 5 an end of the process (10 to 60 s; its
//! caches are gone). Half of those who sleep are silent, half have their connection closed by the
//! system. One departure in 250 is for good. Machines differ by up to three times either way.
//!
//! Each machine has a stream of its own: what one does does not depend on any other nor on the
//! policy, but for the time that a goodbye waits for what was accepted.

use cereus_core::time::Span;

use crate::stream::{Ratio, Stream};

/// Whether machines come and go, and how much faster than at home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Churn {
    None,
    /// All times are this many times shorter than [the fit](self) has them.
    Home {
        hurry: u32,
    },
}

/// No machine comes or goes twice within this time, whatever the hurry.
const STAY_MIN: Span = Span::secs(1);

const SHORT: Ratio = Ratio::new(2, 5);
const SHORT_S: (u64, u64) = (120, 180);
const LONG_MEAN_S: u64 = 27_900;
const SLEEPS: Ratio = Ratio::new(65, 100);
const SLEEPS_SILENTLY: Ratio = Ratio::new(1, 2);
const SLEEP_MEAN_S: u64 = 25_600;
/// Of the disconnects that are no sleep, in 35.
const LOSES: Ratio = Ratio::new(20, 35);
const SAYS_GOODBYE: Ratio = Ratio::new(10, 15);
const LOST_S: (u64, u64) = (1, 30);
const GOODBYE_S: (u64, u64) = (20, 300);
const CRASHED_S: (u64, u64) = (10, 60);
const FOR_GOOD: Ratio = Ratio::new(1, 250);
const IS_HERE_AT_FIRST: Ratio = Ratio::new(1, 2);
/// How much longer than the median everything takes on one machine, in thousandths.
const PACES_MILLI: [u64; 7] = [333, 500, 1_000, 1_000, 1_000, 2_000, 3_000];

/// How a machine goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Going {
    /// Its process ends.
    Crashes,
    SaysGoodbye,
    /// Its network is gone, and the coordinator sees that at once.
    LosesConnection,
    /// It sleeps, and the system has closed its connections.
    SleepsClosed,
    /// It sleeps, and nobody is told.
    SleepsSilently,
}

/// Whether a machine is here when the world begins, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtFirst {
    Away(Span),
    Here(Span),
}

/// What one machine does.
#[derive(Clone, Debug)]
pub struct Habit {
    stream: Stream,
    pace_milli: u64,
    hurry: u32,
}

impl Habit {
    #[must_use]
    pub fn new(seed: u64, machine: u32, hurry: u32) -> Self {
        let mut stream = Stream::new(seed, &format!("churn {machine}"));
        Self {
            pace_milli: stream.pick(&PACES_MILLI),
            stream,
            hurry: hurry.max(1),
        }
    }

    pub fn at_first(&mut self) -> AtFirst {
        if self.stream.chance(IS_HERE_AT_FIRST) {
            AtFirst::Here(self.long(LONG_MEAN_S))
        } else {
            AtFirst::Away(self.long(SLEEP_MEAN_S))
        }
    }

    /// How long a session lasts that begins now.
    pub fn session(&mut self) -> Span {
        if self.stream.chance(SHORT) {
            self.within(SHORT_S)
        } else {
            self.long(LONG_MEAN_S)
        }
    }

    pub fn going(&mut self) -> Going {
        if self.stream.chance(SLEEPS) {
            return match self.stream.chance(SLEEPS_SILENTLY) {
                true => Going::SleepsSilently,
                false => Going::SleepsClosed,
            };
        }
        if self.stream.chance(LOSES) {
            Going::LosesConnection
        } else if self.stream.chance(SAYS_GOODBYE) {
            Going::SaysGoodbye
        } else {
            Going::Crashes
        }
    }

    /// How long it stays away; `None`: for good.
    pub fn away(&mut self, going: Going) -> Option<Span> {
        if self.stream.chance(FOR_GOOD) {
            return None;
        }
        Some(match going {
            Going::Crashes => self.within(CRASHED_S),
            Going::SaysGoodbye => self.within(GOODBYE_S),
            Going::LosesConnection => self.within(LOST_S),
            Going::SleepsClosed | Going::SleepsSilently => self.long(SLEEP_MEAN_S),
        })
    }

    /// Before it dials again after its coordinator has hung up.
    pub fn redial(&mut self) -> Span {
        Span(self.stream.between(1_000_000, 3_000_000))
    }

    fn within(&mut self, (least_s, most_s): (u64, u64)) -> Span {
        let us = self.stream.between(least_s * 1_000_000, most_s * 1_000_000);
        self.hurried(us)
    }

    fn long(&mut self, mean_s: u64) -> Span {
        let us = self.stream.exponential(mean_s * 1_000_000);
        self.hurried(us / 1_000 * self.pace_milli)
    }

    fn hurried(&self, us: u64) -> Span {
        Span(us / u64::from(self.hurry)).max(STAY_MIN)
    }
}

impl core::str::FromStr for Churn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, hurry) = text.split_once(':').unwrap_or((text, "1"));
        let hurry = hurry
            .parse()
            .ok()
            .filter(|hurry| (1..=10_000).contains(hurry));
        match (name, hurry) {
            ("none", Some(1)) => Ok(Self::None),
            ("home", Some(hurry)) => Ok(Self::Home { hurry }),
            _ => Err("write none, home, or home:N for all of it N times as fast".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEEK: Span = Span::secs(7 * 24 * 3_600);

    #[derive(Default)]
    struct Week {
        sessions: u64,
        goings: Vec<Going>,
        lengths: Vec<Span>,
        here: Span,
    }

    fn week(machine: u32) -> Week {
        let mut habit = Habit::new(7, machine, 1);
        let mut week = Week::default();
        let mut now = Span::ZERO;
        let mut here = match habit.at_first() {
            AtFirst::Here(span) => Some(span),
            AtFirst::Away(span) => {
                now = span;
                None
            }
        };
        while now < WEEK {
            let stay = here.take().unwrap_or_else(|| habit.session());
            week.sessions += 1;
            week.lengths.push(stay);
            week.here = week.here + Span(stay.0.min(WEEK.0 - now.0));
            let going = habit.going();
            week.goings.push(going);
            let Some(away) = habit.away(going) else { break };
            now = now + stay + away;
        }
        week
    }

    /// The figures that the module's head states.
    #[test]
    fn a_fleet_at_home_has_the_sessions_that_were_seen() {
        let weeks: Vec<Week> = (0..2_000).map(week).collect();
        let mut sessions: Vec<u64> = weeks.iter().map(|week| week.sessions).collect();
        sessions.sort_unstable();
        assert!((16..=20).contains(&sessions[1_000]), "{}", sessions[1_000]);
        let goings: Vec<Going> = weeks.iter().flat_map(|week| week.goings.clone()).collect();
        let sleeps = |going: &&Going| matches!(going, Going::SleepsClosed | Going::SleepsSilently);
        let asleep = goings.iter().filter(sleeps).count() * 100 / goings.len();
        assert!((64..=66).contains(&asleep), "{asleep} % of disconnects");
        let lengths: Vec<Span> = weeks.iter().flat_map(|week| week.lengths.clone()).collect();
        let is_mode = |span: &&Span| (Span::secs(120)..=Span::secs(180)).contains(span);
        let short = lengths.iter().filter(is_mode).count() * 100 / lengths.len();
        assert!(
            (34..=42).contains(&short),
            "{short} % last two to three minutes"
        );
        let here: u64 = weeks.iter().map(|week| week.here.0 / 2_000).sum();
        let here = here * 100 / WEEK.0;
        assert!((40..=60).contains(&here), "{here} % of the time");
    }

    #[test]
    fn what_a_machine_does_depends_on_its_seed_and_number_alone() {
        let draws = |seed, machine| {
            let mut habit = Habit::new(seed, machine, 1);
            [habit.session(), habit.session(), habit.redial()]
        };
        assert_eq!(draws(1, 4), draws(1, 4));
        assert_ne!(draws(1, 4), draws(1, 5));
        assert_ne!(draws(1, 4), draws(2, 4));
    }

    #[test]
    fn churn_is_named_on_the_command_line() {
        assert_eq!("none".parse(), Ok(Churn::None));
        assert_eq!("home".parse(), Ok(Churn::Home { hurry: 1 }));
        assert_eq!("home:30".parse(), Ok(Churn::Home { hurry: 30 }));
        for wrong in ["", "away", "home:0", "home:x", "none:3"] {
            assert!(wrong.parse::<Churn>().is_err(), "{wrong}");
        }
    }
}
