//! Importers: public request traces as a stream of arrivals, read line by line.
//!
//! Bad rows are typed errors with their line number; nothing is guessed. The format is known by its
//! first line.

mod delimited;
mod lines;
mod mooncake;
#[cfg(test)]
mod tests;

use core::fmt;
use std::io::BufRead;

use cereus_core::time::{Span, Tick};

use delimited::{Columns, Row};
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A column that must be there is not.
    ColumnMissing(&'static str),
    Empty,
    /// The value of this column is not what it should be.
    Field(&'static str),
    Json(String),
    LineTooLong,
    NotUtf8,
    /// Earlier than the row before.
    OutOfOrder,
    Read(std::io::ErrorKind),
    /// The first line fits no known format.
    UnknownFormat,
    /// A number out of range.
    TooLarge(&'static str),
}

/// A trace that cannot be read, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadError {
    /// From 1.
    pub line: u64,
    pub trouble: Trouble,
}

impl fmt::Display for WorkloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match &self.trouble {
            Trouble::ColumnMissing(name) => write!(f, "the column `{name}` is missing"),
            Trouble::Empty => f.write_str("the trace holds no request"),
            Trouble::Field(name) => write!(f, "`{name}` is not a value of its kind"),
            Trouble::Json(why) => write!(f, "not the JSON of a request: {why}"),
            Trouble::LineTooLong => {
                write!(f, "longer than {} bytes", lines::LINE_SIZE_MAX)
            }
            Trouble::NotUtf8 => f.write_str("not UTF-8"),
            Trouble::OutOfOrder => f.write_str("earlier than the row before; sort the trace"),
            Trouble::Read(kind) => write!(f, "cannot be read: {kind}"),
            Trouble::UnknownFormat => {
                f.write_str("neither an Azure, a BurstGPT nor a Mooncake trace, by its first line")
            }
            Trouble::TooLarge(name) => write!(f, "`{name}` is too large"),
        }
    }
}

impl core::error::Error for WorkloadError {}

#[derive(Debug)]
enum TraceLayout {
    Delimited(Columns),
    Mooncake,
}

/// A trace being read.
#[derive(Debug)]
pub struct Workload<R> {
    lines: Lines<R>,
    layout: TraceLayout,
    format: Format,
    /// Absolute microseconds of the first row.
    origin_us: Option<u64>,
    last: Span,
    count: u64,
    /// The first line of a headless format was read already.
    pending: Option<Arrival>,
    is_done: bool,
}

impl<R: BufRead> Workload<R> {
    /// Reads the first line and knows the format by it.
    pub fn open(reader: R) -> Result<Self, WorkloadError> {
        let mut lines = Lines::new(reader);
        let Some(first) = lines.next_line()? else {
            return Err(WorkloadError {
                line: 1,
                trouble: Trouble::Empty,
            });
        };
        let (layout, format, parsed) = if first.trim_start().starts_with('{') {
            (
                TraceLayout::Mooncake,
                Format::Mooncake,
                Some(mooncake::row(first)),
            )
        } else {
            let columns =
                Columns::of_header(first).map_err(|trouble| WorkloadError { line: 1, trouble })?;
            let format = columns.format();
            (TraceLayout::Delimited(columns), format, None)
        };
        let mut workload = Self {
            lines,
            layout,
            format,
            origin_us: None,
            last: Span::ZERO,
            count: 0,
            pending: None,
            is_done: false,
        };
        if let Some(row) = parsed {
            let row = row.map_err(|trouble| workload.error(trouble))?;
            workload.pending = Some(workload.place(row)?);
        }
        Ok(workload)
    }

    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    fn error(&self, trouble: Trouble) -> WorkloadError {
        WorkloadError {
            line: self.lines.number(),
            trouble,
        }
    }

    fn advance(&mut self) -> Result<Option<Arrival>, WorkloadError> {
        if let Some(arrival) = self.pending.take() {
            self.count += 1;
            return Ok(Some(arrival));
        }
        let line = loop {
            match self.lines.next_line()? {
                None if self.count == 0 => return Err(self.error(Trouble::Empty)),
                None => return Ok(None),
                Some(line) if line.trim().is_empty() => {}
                Some(line) => break line,
            }
        };
        let row = match &self.layout {
            TraceLayout::Delimited(columns) => columns.row(line),
            TraceLayout::Mooncake => mooncake::row(line),
        };
        let row = row.map_err(|trouble| self.error(trouble))?;
        let arrival = self.place(row)?;
        self.count += 1;
        Ok(Some(arrival))
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
