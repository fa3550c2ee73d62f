//! Comma-separated traces: Azure's and BurstGPT's, whose columns are found by name.

use std::io::{self, Read};

use csv::{Position, Reader, ReaderBuilder, StringRecord, Trim};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

use super::lines::{self, Bounded};
use super::{Format, Trouble, WorkloadError};

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

/// A trace with its columns found.
#[derive(Debug)]
pub(super) struct Table<R> {
    reader: Reader<Bounded<R>>,
    record: StringRecord,
    columns: Columns,
}

impl<R: Read> Table<R> {
    pub(super) fn open(reader: R) -> Result<Self, WorkloadError> {
        let mut reader = ReaderBuilder::new()
            .flexible(true)
            .trim(Trim::All)
            .from_reader(Bounded::new(reader));
        let fail = |trouble| WorkloadError { line: 1, trouble };
        let header = reader.headers().map_err(|error| fail(trouble(&error)))?;
        let columns = Columns::of_header(header).map_err(fail)?;
        Ok(Self {
            reader,
            record: StringRecord::new(),
            columns,
        })
    }

    pub(super) const fn format(&self) -> Format {
        self.columns.format
    }

    /// Of the row returned last, from 1; after the last row, of the end.
    pub(super) fn line(&self) -> u64 {
        let of_record = self.record.position().map(Position::line);
        of_record.unwrap_or_else(|| self.reader.position().line())
    }

    pub(super) fn next_row(&mut self) -> Result<Option<Row>, WorkloadError> {
        let is_there = self.reader.read_record(&mut self.record);
        let fail = |trouble| WorkloadError {
            line: self.line(),
            trouble,
        };
        if !is_there.map_err(|error| fail(trouble(&error)))? {
            return Ok(None);
        }
        self.columns.row(&self.record).map(Some).map_err(fail)
    }
}

fn trouble(error: &csv::Error) -> Trouble {
    match error.kind() {
        csv::ErrorKind::Io(error) => lines::trouble(error),
        csv::ErrorKind::Utf8 { .. } => Trouble::NotUtf8,
        // Rows may have any length, and nothing is deserialised.
        _ => Trouble::Read(io::ErrorKind::InvalidData),
    }
}

/// Where the columns are.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Columns {
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
    fn of_header(header: &StringRecord) -> Result<Self, Trouble> {
        let names: Vec<&str> = header.iter().collect();
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

    fn row(&self, record: &StringRecord) -> Result<Row, Trouble> {
        let value = |column: Column| {
            let value = record.get(column.ix);
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

/// `2023-11-16 18:15:46.6805900`, in UTC where no offset stands behind it; microseconds since 1970.
fn wall_clock_us(text: &str) -> Option<u64> {
    let at = text.parse::<Timestamp>().or_else(|_| {
        let at: DateTime = text.parse()?;
        Offset::UTC.to_timestamp(at)
    });
    u64::try_from(at.ok()?.as_microsecond()).ok()
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
