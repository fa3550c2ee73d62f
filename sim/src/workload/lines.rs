//! Lines of bounded length, from any reader.

use std::io::{self, BufRead, BufReader, Read};

use super::{Trouble, WorkloadError};

/// A Mooncake row of a million tokens has 2,000 hash ids of up to 8 characters.
pub(super) const LINE_SIZE_MAX: u64 = 1 << 20;

/// Fails at a line that is longer, before it fills the memory.
#[derive(Debug)]
pub(super) struct Bounded<R> {
    reader: R,
    /// Of the line that is not at its end.
    line_size: u64,
}

impl<R> Bounded<R> {
    pub(super) const fn new(reader: R) -> Self {
        Self {
            reader,
            line_size: 0,
        }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let size = self.reader.read(into)?;
        match into[..size].iter().rposition(|&byte| byte == b'\n') {
            Some(end) => self.line_size = (size - end - 1) as u64,
            None => self.line_size += size as u64,
        }
        if self.line_size > LINE_SIZE_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(size)
    }
}

/// What went wrong in a [`Bounded`] reader.
pub(super) fn trouble(error: &io::Error) -> Trouble {
    match error.kind() {
        io::ErrorKind::FileTooLarge => Trouble::LineTooLong,
        io::ErrorKind::InvalidData => Trouble::NotUtf8,
        kind => Trouble::Read(kind),
    }
}

/// Lines with their numbers.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: BufReader<Bounded<R>>,
    buffer: String,
    number: u64,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader: BufReader::new(Bounded::new(reader)),
            buffer: String::new(),
            number: 0,
        }
    }

    /// Of the line returned last, from 1.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// The next line that is not blank, or `None` after the last.
    pub(super) fn next_line(&mut self) -> Result<Option<&str>, WorkloadError> {
        loop {
            self.buffer.clear();
            self.number += 1;
            let size = self.reader.read_line(&mut self.buffer);
            let size = size.map_err(|error| WorkloadError {
                line: self.number,
                trouble: trouble(&error),
            })?;
            if size == 0 {
                return Ok(None);
            }
            if !self.buffer.trim().is_empty() {
                return Ok(Some(&self.buffer));
            }
        }
    }
}
