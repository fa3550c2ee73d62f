//! When the owner lets the machine serve, and the clock on the wall that says so.

use std::fmt;
use std::time::Duration;

use cereus_core::schedule::{LocalTime, Schedule, Weekday};
use jiff::Zoned;
use jiff::tz::TimeZone;

/// The owner's hours, and where the local time comes from.
#[derive(Debug)]
pub struct Hours {
    pub schedule: Schedule,
    pub clock: Box<dyn LocalClock>,
}

impl Hours {
    /// By the system's clock in the system's time zone.
    #[must_use]
    pub fn new(schedule: Schedule) -> Self {
        let clock = Box::new(SystemClock);
        Self { schedule, clock }
    }
}

/// Where the local time comes from.
pub trait LocalClock: Send + fmt::Debug {
    fn read(&self) -> LocalTime;
}

/// The system's.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// Whether the system says where it stands; where it does not, local time is UTC.
    #[must_use]
    pub fn knows_its_zone(self) -> bool {
        !TimeZone::system().is_unknown()
    }
}

impl LocalClock for SystemClock {
    fn read(&self) -> LocalTime {
        wall(&Zoned::now())
    }
}

/// Hours and minutes, rounded up, for people.
#[must_use]
pub fn hours_text(wait: Duration) -> String {
    let minutes = wait.as_secs().div_ceil(60);
    format!("{} h {} min", minutes / 60, minutes % 60)
}

fn wall(zoned: &Zoned) -> LocalTime {
    let days = zoned.weekday().to_monday_zero_offset();
    let days = usize::try_from(days).expect("from 0 to 6");
    let part = |part: i8| u32::try_from(part).expect("no part of a time is negative");
    let (hour, minute, second) = (zoned.hour(), zoned.minute(), zoned.second());
    let second = (part(hour) * 60 + part(minute)) * 60 + part(second);
    LocalTime::new(Weekday::after_monday(days), second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_in_hours_and_minutes() {
        assert_eq!(hours_text(Duration::from_secs(8_039)), "2 h 14 min");
        assert_eq!(hours_text(Duration::ZERO), "0 h 0 min");
    }

    #[test]
    fn the_wall_shows_the_weekday_and_the_time_of_its_zone() {
        let cases = [
            ("2026-01-05T00:00:00+00:00[UTC]", Weekday::Monday, 0),
            (
                "2026-01-04T23:59:59+00:00[UTC]",
                Weekday::Sunday,
                24 * 3_600 - 1,
            ),
            // Monday already, although it is Sunday in Greenwich.
            ("2026-01-05T08:30:00+09:00[+09:00]", Weekday::Monday, 30_600),
        ];
        for (text, weekday, second) in cases {
            let zoned: Zoned = text.parse().unwrap();
            assert_eq!(wall(&zoned), LocalTime::new(weekday, second), "{text}");
        }
    }
}
