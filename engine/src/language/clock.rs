//! Today's date for the templates that tell it to the model.

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

/// A date in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Date {
    year: u64,
    month: u64,
    day: u64,
}

pub(super) fn now() -> Date {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Date::from_days(since.as_secs() / SECONDS_PER_DAY)
}

impl Date {
    /// From days since 1970-01-01. Years are taken to begin in March, so that the leap day is last.
    fn from_days(days: u64) -> Self {
        const DAYS_TO_1970_MARCH_BASED: u64 = 719_468;
        const DAYS_PER_ERA: u64 = 146_097;
        let days = days + DAYS_TO_1970_MARCH_BASED;
        let era = days / DAYS_PER_ERA;
        let day_of_era = days % DAYS_PER_ERA;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let month = if march_month < 10 {
            march_month + 3
        } else {
            march_month - 9
        };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        Self {
            year,
            month,
            day: day_of_year - (153 * march_month + 2) / 5 + 1,
        }
    }

    /// The directives that templates use for dates; any other stands as it is.
    pub(super) fn format(self, format: &str) -> String {
        let name = MONTHS[usize::try_from(self.month - 1).expect("a month is 1 to 12")];
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(char) = chars.next() {
            if char != '%' {
                out.push(char);
                continue;
            }
            match chars.next() {
                Some('Y') => out.push_str(&self.year.to_string()),
                Some('m') => out.push_str(&format!("{:02}", self.month)),
                Some('d') => out.push_str(&format!("{:02}", self.day)),
                Some('B') => out.push_str(name),
                Some('b') => out.push_str(&name[..3]),
                Some('%') | None => out.push('%'),
                Some(other) => out.extend(['%', other]),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_around_leap_days_and_centuries_are_right() {
        let table = [
            (0, "1970-01-01"),
            (58, "1970-02-28"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (19_782, "2024-02-29"),
            (20_088, "2024-12-31"),
            (20_089, "2025-01-01"),
        ];
        for (days, date) in table {
            assert_eq!(Date::from_days(days).format("%Y-%m-%d"), date);
        }
    }

    #[test]
    fn the_directives_that_templates_use_are_known() {
        assert_eq!(
            Date::from_days(19_782).format("%d %b %Y, %B %% %H%"),
            "29 Feb 2024, February % %H%"
        );
    }
}
