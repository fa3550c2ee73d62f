//! Importers: public request traces as a stream of arrivals, read row by row.
//!
//! Bad rows are typed errors with their line number; nothing is guessed. The format is known by its
//! first line.

mod delimited;
mod lines;
mod mooncake;
#[cfg(test)]
mod tests;

use std::io::BufRead;

use cereus_core::time::{Span, Tick};
use thiserror::Error;

use delimited::{Row, Table};
use lines::Lines;

/// One request of a trace. The true length of the output is the simulator's secret: core never sees
/// it before it has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Since the first row.
    pub after: Span,
    pub prompt_tokens: u32,
    pub output_tokens: u32,
    /// What the prompt's blocks of [`BLOCK_TOKENS`] are called, as far as the trace says: two prompts
    /// are equal up to the end of a block whose name they share.
    pub blocks: Vec<u64>,
}

/// Of the only format that names blocks, Mooncake's.
pub const BLOCK_TOKENS: u32 = 512;

/// What the first line told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// `TIMESTAMP,ContextTokens,GeneratedTokens`
    Azure,
    /// `Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type`
    BurstGpt,
    /// One JSON object a line.
    Mooncake,
}

impl Format {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Azure => "azure",
            Self::BurstGpt => "burstgpt",
            Self::Mooncake => "mooncake",
        }
    }
}

/// Why a row was not understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Trouble {
    #[error("the column `{0}` is missing")]
    ColumnMissing(&'static str),
    #[error("the trace holds no request")]
    Empty,
    #[error("`{0}` is not a value of its kind")]
    Field(&'static str),
    #[error("not the JSON of a request: {0}")]
    Json(String),
    #[error("longer than {} bytes", lines::LINE_SIZE_MAX)]
    LineTooLong,
    #[error("not UTF-8")]
    NotUtf8,
    #[error("earlier than the row before; sort the trace")]
    OutOfOrder,
    #[error("cannot be read: {0}")]
    Read(std::io::ErrorKind),
    #[error("neither an Azure, a BurstGPT nor a Mooncake trace, by its first line")]
    UnknownFormat,
    #[error("`{0}` is too large")]
    TooLarge(&'static str),
}

/// A trace that cannot be read, and where.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {trouble}")]
pub struct WorkloadError {
    /// From 1.
    pub line: u64,
    pub trouble: Trouble,
}

/// Spreadsheets put it before UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

#[derive(Debug)]
enum Source<R> {
    Delimited(Table<R>),
    Mooncake(Lines<R>),
}

impl<R: BufRead> Source<R> {
    fn open(mut reader: R) -> Result<Self, WorkloadError> {
        let fail = |trouble| WorkloadError { line: 1, trouble };
        let begins = reader.fill_buf();
        let begins = begins.map_err(|error| fail(Trouble::Read(error.kind())))?;
        if begins.is_empty() {
            return Err(fail(Trouble::Empty));
        }
        if begins.starts_with(BYTE_ORDER_MARK) {
            reader.consume(BYTE_ORDER_MARK.len());
        }
        let begins = reader.fill_buf();
        let begins = begins.map_err(|error| fail(Trouble::Read(error.kind())))?;
        if begins.trim_ascii_start().starts_with(b"{") {
            return Ok(Self::Mooncake(Lines::new(reader)));
        }
        Table::open(reader).map(Self::Delimited)
    }

    const fn format(&self) -> Format {
        match self {
            Self::Delimited(table) => table.format(),
            Self::Mooncake(_) => Format::Mooncake,
        }
    }

    /// Of the row returned last, from 1.
    fn line(&self) -> u64 {
        match self {
            Self::Delimited(table) => table.line(),
            Self::Mooncake(lines) => lines.number(),
        }
    }

    fn next_row(&mut self) -> Result<Option<Row>, WorkloadError> {
        match self {
            Self::Delimited(table) => table.next_row(),
            Self::Mooncake(lines) => {
                let row = lines.next_line()?.map(mooncake::row).transpose();
                row.map_err(|trouble| WorkloadError {
                    line: lines.number(),
                    trouble,
                })
            }
        }
    }
}

/// A trace being read.
#[derive(Debug)]
pub struct Workload<R> {
    source: Source<R>,
    /// Absolute microseconds of the first row.
    origin_us: Option<u64>,
    last: Span,
    is_done: bool,
}

impl<R: BufRead> Workload<R> {
    /// Knows the format by how it begins.
    pub fn open(reader: R) -> Result<Self, WorkloadError> {
        Ok(Self {
            source: Source::open(reader)?,
            origin_us: None,
            last: Span::ZERO,
            is_done: false,
        })
    }

    #[must_use]
    pub const fn format(&self) -> Format {
        self.source.format()
    }

    fn error(&self, trouble: Trouble) -> WorkloadError {
        WorkloadError {
            line: self.source.line(),
            trouble,
        }
    }

    fn advance(&mut self) -> Result<Option<Arrival>, WorkloadError> {
        match self.source.next_row()? {
            Some(row) => self.place(row).map(Some),
            None if self.origin_us.is_none() => Err(self.error(Trouble::Empty)),
            None => Ok(None),
        }
    }

    fn place(&mut self, row: Row) -> Result<Arrival, WorkloadError> {
        let origin = *self.origin_us.get_or_insert(row.at_us);
        let Some(after) = row.at_us.checked_sub(origin).map(Span) else {
            return Err(self.error(Trouble::OutOfOrder));
        };
        if after < self.last {
            return Err(self.error(Trouble::OutOfOrder));
        }
        self.last = after;
        Ok(Arrival {
            after,
            prompt_tokens: row.prompt_tokens,
            output_tokens: row.output_tokens,
            blocks: row.blocks,
        })
    }
}

impl<R: BufRead> Iterator for Workload<R> {
    type Item = Result<Arrival, WorkloadError>;

    /// Ends for good at the first error.
    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let item = self.advance().transpose();
        self.is_done = !matches!(item, Some(Ok(_)));
        item
    }
}

/// Where an arrival falls when the trace runs `speedup_ppm` millionths as fast again.
#[must_use]
pub fn sped_up(start: Tick, after: Span, speedup_ppm: u64) -> Tick {
    let wide = u128::from(after.0) * 1_000_000 / u128::from(speedup_ppm.max(1));
    start + Span(u64::try_from(wide).unwrap_or(u64::MAX))
}
