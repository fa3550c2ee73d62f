//! A window as a person writes it: `mon-fri,sun 22:00-06:00`.

use core::fmt;
use core::str::FromStr;

use super::{Weekday, Window};

/// Why a text is no window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WindowError {
    /// A word that names no day.
    Day,
    /// Not days, a space, and two times with a dash between them.
    Shape,
    /// A time that no clock shows.
    Time,
}

impl fmt::Display for WindowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Day => {
                "days are mon, tue, wed, thu, fri, sat and sun, as in `mon,wed` or `mon-fri`"
            }
            Self::Shape => "expected days and times, as in `mon-fri 22:00-06:00`",
            Self::Time => "times are from 00:00 to 23:59, as in `22:00-06:00`; a day ends at 00:00",
        })
    }
}

impl core::error::Error for WindowError {}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        let mut words = text.split_whitespace();
        let (Some(days), Some(times), None) = (words.next(), words.next(), words.next()) else {
            return Err(WindowError::Shape);
        };
        let (start, end) = times.split_once('-').ok_or(WindowError::Shape)?;
        Ok(Self {
            days: days_of(days).ok_or(WindowError::Day)?,
            start: minute_of(start).ok_or(WindowError::Time)?,
            end: minute_of(end).ok_or(WindowError::Time)?,
        })
    }
}

/// A bit for each day of a list of days and ranges of days.
fn days_of(text: &str) -> Option<u8> {
    let mut days = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut day, last) = (day_of(first)?, day_of(last)?);
        days |= 1 << (day as u8);
        while day != last {
            day = day.tomorrow();
            days |= 1 << (day as u8);
        }
    }
    Some(days)
}

/// Three letters, or the whole name.
fn day_of(text: &str) -> Option<Weekday> {
    Weekday::ALL.into_iter().find(|day| {
        let name = day.name();
        text.eq_ignore_ascii_case(name) || text.eq_ignore_ascii_case(&name[..3])
    })
}

/// Minutes since midnight of `HH:MM`.
fn minute_of(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let hour = two_digits(hour).filter(|hour| *hour < 24)?;
    let minute = two_digits(minute).filter(|minute| *minute < 60)?;
    Some(hour * 60 + minute)
}

fn two_digits(text: &str) -> Option<u16> {
    let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}
