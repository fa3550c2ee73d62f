//! The time for the templates that tell it to the model, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

const SECONDS_PER_DAY: u64 = 86_400;
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
/// 1970-01-01 was a Thursday.
const WEEKDAY_OF_1970: u64 = 4;

/// A second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    unix_s: u64,
}

pub(super) fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Moment::from_unix(since.unwrap_or_default().as_secs())
}

struct Date {
    year: u64,
    month: u64,
    day: u64,
    /// From 1.
    day_of_year: u64,
}

impl Date {
    /// From days since 1970-01-01. Years are taken to begin in March, so that the leap day is last.
    fn from_days(days: u64) -> Self {
        const DAYS_TO_1970_MARCH_BASED: u64 = 719_468;
        const DAYS_PER_ERA: u64 = 146_097;
        /// Of January and February in a common year, and of the other months.
        const DAYS_TO_MARCH: u64 = 59;
        const DAYS_FROM_MARCH: u64 = 306;
        let days = days + DAYS_TO_1970_MARCH_BASED;
        let era = days / DAYS_PER_ERA;
        let day_of_era = days % DAYS_PER_ERA;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let march_day = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * march_day + 2) / 153;
        let month = if march_month < 10 {
            march_month + 3
        } else {
            march_month - 9
        };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let is_century = year.is_multiple_of(100) && !year.is_multiple_of(400);
        let is_leap = year.is_multiple_of(4) && !is_century;
        let day_of_year = if month > 2 {
            march_day + DAYS_TO_MARCH + u64::from(is_leap) + 1
        } else {
            march_day - DAYS_FROM_MARCH + 1
        };
        Self {
            year,
            month,
            day: march_day - (153 * march_month + 2) / 5 + 1,
            day_of_year,
        }
    }
}

impl Moment {
    pub(super) const fn from_unix(unix_s: u64) -> Self {
        Self { unix_s }
    }

    /// `strftime` as Python has it on Linux in the C locale. A directive that is unknown stands as
    /// it is.
    pub(super) fn format(self, format: &str) -> String {
        let mut out = String::new();
        let mut rest = format;
        while let Some(at) = rest.find('%') {
            out.push_str(&rest[..at]);
            let mut directive = rest[at + 1..].chars();
            let mut kind = directive.next();
            let flag = kind.filter(|it| matches!(it, '-' | '_' | '0' | '^'));
            if flag.is_some() {
                kind = directive.next();
            }
            let end = rest.len() - directive.as_str().len();
            match kind.and_then(|kind| self.field(kind, flag)) {
                Some(text) => out.push_str(&text),
                None => out.push_str(&rest[at..end]),
            }
            rest = &rest[end..];
        }
        out + rest
    }

    fn field(self, kind: char, flag: Option<char>) -> Option<String> {
        let days = self.unix_s / SECONDS_PER_DAY;
        let date = Date::from_days(days);
        let second_of_day = self.unix_s % SECONDS_PER_DAY;
        let (hour, minute) = (second_of_day / 3_600, second_of_day / 60 % 60);
        let weekday = (days + WEEKDAY_OF_1970) % 7;
        let place = |number: u64| usize::try_from(number).expect("below twelve");
        let (month, day_name) = (MONTHS[place(date.month - 1)], WEEKDAYS[place(weekday)]);
        let twelve = match hour % 12 {
            0 => 12,
            hour => hour,
        };
        let (number, width, pad) = match kind {
            'Y' => (date.year, 4, '0'),
            'C' => (date.year / 100, 2, '0'),
            'y' => (date.year % 100, 2, '0'),
            'm' => (date.month, 2, '0'),
            'd' => (date.day, 2, '0'),
            'e' => (date.day, 2, ' '),
            'j' => (date.day_of_year, 3, '0'),
            'H' => (hour, 2, '0'),
            'I' => (twelve, 2, '0'),
            'k' => (hour, 2, ' '),
            'l' => (twelve, 2, ' '),
            'M' => (minute, 2, '0'),
            'S' => (second_of_day % 60, 2, '0'),
            'f' => (0, 6, '0'),
            's' => (self.unix_s, 1, '0'),
            'w' => (weekday, 1, '0'),
            'u' => ((weekday + 6) % 7 + 1, 1, '0'),
            _ => {
                let text = match kind {
                    'A' => day_name.to_owned(),
                    'a' => day_name[..3].to_owned(),
                    'B' => month.to_owned(),
                    'b' | 'h' => month[..3].to_owned(),
                    'p' => if hour < 12 { "AM" } else { "PM" }.to_owned(),
                    'D' | 'x' => self.format("%m/%d/%y"),
                    'F' => self.format("%Y-%m-%d"),
                    'T' | 'X' => self.format("%H:%M:%S"),
                    'R' => self.format("%H:%M"),
                    'r' => self.format("%I:%M:%S %p"),
                    'c' => self.format("%a %b %e %H:%M:%S %Y"),
                    // A time without a zone has no name of one.
                    'Z' | 'z' => String::new(),
                    'n' => "\n".to_owned(),
                    't' => "\t".to_owned(),
                    '%' => "%".to_owned(),
                    _ => return None,
                };
                return Some(if flag == Some('^') {
                    text.to_uppercase()
                } else {
                    text
                });
            }
        };
        let pad = match flag {
            Some('-') => return Some(number.to_string()),
            Some('_') => ' ',
            Some('0') => '0',
            Some(_) | None => pad,
        };
        let mut out = number.to_string();
        while out.len() < width {
            out.insert(0, pad);
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(days: u64) -> Moment {
        Moment::from_unix(days * SECONDS_PER_DAY)
    }

    #[test]
    fn dates_around_leap_days_and_centuries_are_right() {
        let table = [
            (0, "1970-01-01 001 Thursday"),
            (58, "1970-02-28 059 Saturday"),
            (59, "1970-03-01 060 Sunday"),
            (11_016, "2000-02-29 060 Tuesday"),
            (11_017, "2000-03-01 061 Wednesday"),
            (19_782, "2024-02-29 060 Thursday"),
            (20_088, "2024-12-31 366 Tuesday"),
            (20_089, "2025-01-01 001 Wednesday"),
        ];
        for (days, date) in table {
            assert_eq!(day(days).format("%Y-%m-%d %j %A"), date);
        }
    }

    #[test]
    fn the_directives_are_those_of_python() {
        let afternoon = Moment::from_unix(19_782 * SECONDS_PER_DAY + 14 * 3_600 + 5 * 60 + 9);
        let table = [
            ("%d %b %Y, %B %%", "29 Feb 2024, February %"),
            ("%-d/%-m/%y %a", "29/2/24 Thu"),
            ("%H:%M:%S %I %-I %p", "14:05:09 02 2 PM"),
            (
                "%c|%D|%F|%T",
                "Thu Feb 29 14:05:09 2024|02/29/24|2024-02-29|14:05:09",
            ),
            ("%e|%k|%w|%u|%Z", "29|14|4|4|"),
            ("%Q %", "%Q %"),
        ];
        for (format, text) in table {
            assert_eq!(afternoon.format(format), text, "{format}");
        }
        assert_eq!(day(0).format("%e|%-e|%_m|%I"), " 1|1| 1|12");
    }
}
