//! When a machine's owner lets it serve: windows of the week.
//!
//! A [`Schedule`] answers for a local time that its caller read, and never reads one. The agent asks
//! it; the command line parses it.

mod parse;

#[cfg(test)]
mod tests;

use core::fmt;

use crate::time::Span;

pub use self::parse::WindowError;

/// More than one for each hour of a week has no use.
pub const WINDOWS_MAX: usize = 168;

const DAY_MINUTES: u16 = 24 * 60;
const WEEK_MINUTES: u16 = 7 * DAY_MINUTES;
const DAY_SECONDS: u32 = 24 * 60 * 60;

/// Sorted as the week goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Weekday {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

impl Weekday {
    pub const ALL: [Self; 7] = [
        Self::Monday,
        Self::Tuesday,
        Self::Wednesday,
        Self::Thursday,
        Self::Friday,
        Self::Saturday,
        Self::Sunday,
    ];

    /// So many days after a Monday.
    #[must_use]
    pub const fn after_monday(days: usize) -> Self {
        Self::ALL[days % 7]
    }

    #[must_use]
    pub const fn yesterday(self) -> Self {
        Self::after_monday(self as usize + 6)
    }

    #[must_use]
    pub const fn tomorrow(self) -> Self {
        Self::after_monday(self as usize + 1)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Monday => "monday",
            Self::Tuesday => "tuesday",
            Self::Wednesday => "wednesday",
            Self::Thursday => "thursday",
            Self::Friday => "friday",
            Self::Saturday => "saturday",
            Self::Sunday => "sunday",
        }
    }
}

/// What the clock on the wall shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalTime {
    weekday: Weekday,
    /// Since midnight.
    second: u32,
}

impl LocalTime {
    /// So many seconds after midnight of that day; a leap second counts to the one before it.
    #[must_use]
    pub fn new(weekday: Weekday, second: u32) -> Self {
        let second = second.min(DAY_SECONDS - 1);
        Self { weekday, second }
    }

    #[must_use]
    pub const fn weekday(self) -> Weekday {
        self.weekday
    }

    /// Since midnight.
    #[must_use]
    pub fn minute(self) -> u16 {
        u16::try_from(self.second / 60).expect("a day has 1,440 minutes")
    }
}

/// One window, on each of some days. One that ends no later than it begins ends on the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// A bit for each day, Monday lowest; never zero.
    days: u8,
    /// Minutes since midnight.
    start: u16,
    end: u16,
}

impl Window {
    fn is_listed(self, day: Weekday) -> bool {
        self.days >> (day as u8) & 1 == 1
    }

    #[must_use]
    pub fn is_active(self, weekday: Weekday, minute: u16) -> bool {
        let is_today = self.is_listed(weekday);
        if self.start < self.end {
            return is_today && (self.start..self.end).contains(&minute);
        }
        let is_since_yesterday = self.is_listed(weekday.yesterday()) && minute < self.end;
        is_since_yesterday || (is_today && minute >= self.start)
    }
}

/// As it is parsed.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for day in Weekday::ALL.into_iter().filter(|&day| self.is_listed(day)) {
            write!(f, "{separator}{}", &day.name()[..3])?;
            separator = ",";
        }
        let clock = |minute: u16| (minute / 60, minute % 60);
        let ((from_hour, from), (to_hour, to)) = (clock(self.start), clock(self.end));
        write!(f, " {from_hour:02}:{from:02}-{to_hour:02}:{to:02}")
    }
}

/// The windows in which a machine serves. Without any it always does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Schedule {
    windows: Vec<Window>,
}

impl Schedule {
    /// The first [`WINDOWS_MAX`] of these.
    #[must_use]
    pub fn new(windows: impl IntoIterator<Item = Window>) -> Self {
        let windows = windows.into_iter().take(WINDOWS_MAX).collect();
        Self { windows }
    }

    /// Whether there are no windows, so that nobody need look at a clock.
    #[must_use]
    pub fn is_always(&self) -> bool {
        self.windows.is_empty()
    }

    #[must_use]
    pub fn is_active(&self, weekday: Weekday, minute: u16) -> bool {
        let is_in = |window: &Window| window.is_active(weekday, minute);
        self.is_always() || self.windows.iter().any(is_in)
    }

    #[must_use]
    pub fn is_active_at(&self, local: LocalTime) -> bool {
        self.is_active(local.weekday(), local.minute())
    }

    /// How long it stays as it is, on a clock that nobody puts forward or back; `None`: for ever.
    #[must_use]
    pub fn until_change(&self, local: LocalTime) -> Option<Span> {
        let is_active = self.is_active_at(local);
        let (mut weekday, mut minute) = (local.weekday(), local.minute());
        for minutes in 1..=WEEK_MINUTES {
            minute += 1;
            if minute == DAY_MINUTES {
                (weekday, minute) = (weekday.tomorrow(), 0);
            }
            if self.is_active(weekday, minute) != is_active {
                let seconds = u32::from(minutes) * 60 - local.second % 60;
                return Some(Span::secs(seconds.into()));
            }
        }
        None
    }
}
