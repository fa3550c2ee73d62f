//! Comma-separated traces: Azure's and BurstGPT's, whose columns are found by name.

use super::{Format, Trouble};

/// What a row says, whatever its format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Absolute, in the trace's own reckoning.
    pub(super) at_us: u64,
    pub(super) prompt_tokens: u32,
    pub(super) output_tokens: u32,
    /// See [`super::Arrival::blocks`].
    pub(super) blocks: Vec<u64>,
}

/// Where the columns are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    format: Format,
    at: Column,
    prompt: Column,
    output: Column,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Column {
    name: &'static str,
    ix: usize,
}

const AZURE: [&str; 3] = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"];
const BURST_GPT: [&str; 3] = ["Timestamp", "Request tokens", "Response tokens"];

impl Columns {
    pub(super) fn of_header(line: &str) -> Result<Self, Trouble> {
        let line = line.trim_start_matches('\u{feff}');
        let names: Vec<&str> = line.split(',').map(str::trim).collect();
        let (format, wanted) = if names.contains(&AZURE[0]) {
            (Format::Azure, AZURE)
        } else if names.contains(&BURST_GPT[0]) {
            (Format::BurstGpt, BURST_GPT)
        } else {
            return Err(Trouble::UnknownFormat);
        };
        let find = |name: &'static str| {
            let ix = names.iter().position(|other| *other == name);
            ix.map(|ix| Column { name, ix })
                .ok_or(Trouble::ColumnMissing(name))
        };
        Ok(Self {
            format,
            at: find(wanted[0])?,
            prompt: find(wanted[1])?,
            output: find(wanted[2])?,
        })
    }

    pub(super) const fn format(&self) -> Format {
        self.format
    }

    pub(super) fn row(&self, line: &str) -> Result<Row, Trouble> {
        let value = |column: Column| {
            let value = line.split(',').nth(column.ix).map(str::trim);
            value.ok_or(Trouble::ColumnMissing(column.name))
        };
        let at = value(self.at)?;
        let at_us = match self.format {
            Format::Azure => wall_clock_us(at),
            Format::BurstGpt | Format::Mooncake => decimal_seconds_us(at),
        };
        Ok(Row {
            at_us: at_us.ok_or(Trouble::Field(self.at.name))?,
            prompt_tokens: tokens(value(self.prompt)?, self.prompt.name)?,
            output_tokens: tokens(value(self.output)?, self.output.name)?,
            blocks: Vec::new(),
        })
    }
}

fn tokens(text: &str, name: &'static str) -> Result<u32, Trouble> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Trouble::Field(name));
    }
    text.parse().map_err(|_| Trouble::TooLarge(name))
}

/// `2023-11-16 18:15:46.6805900`, any number of fraction digits; microseconds since the year 0.
fn wall_clock_us(text: &str) -> Option<u64> {
    let (date, time) = text.split_once([' ', 'T'])?;
    let mut date = date.splitn(3, '-').map(digits);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.trim_end_matches('Z').splitn(3, ':');
    let (hour, minute) = (digits(time.next()?)?, digits(time.next()?)?);
    let second_us = decimal_seconds_us(time.next()?)?;
    let is_in_range = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second_us < 61_000_000
        && year < 10_000;
    if !is_in_range {
        return None;
    }
    let seconds = (days_since_year_zero(year, month, day) * 24 + hour) * 3_600 + minute * 60;
    Some(seconds * 1_000_000 + second_us)
}

/// Of the Gregorian calendar; the year begins in March, so that the leap day comes last.
const fn days_since_year_zero(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month < 3 {
        (year.saturating_sub(1), month + 9)
    } else {
        (year, month - 3)
    };
    year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day
}

/// `46.6805900` as microseconds, rounded down.
fn decimal_seconds_us(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let kept = &fraction[..fraction.len().min(6)];
    let padding = u32::try_from(6 - kept.len()).ok()?;
    let micros = digits(kept)? * 10u64.pow(padding);
    digits(whole)?.checked_mul(1_000_000)?.checked_add(micros)
}

fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}
