//! Lines of bounded length, with their numbers, from any reader.

use std::io::{BufRead, Read};

use super::{Trouble, WorkloadError};

/// A Mooncake row of a million tokens has 2,000 hash ids of up to 8 characters.
pub(super) const LINE_SIZE_MAX: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            buffer: Vec::new(),
            number: 0,
        }
    }

    /// Of the line returned last, from 1.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// The next line without its end, or `None` after the last.
    pub(super) fn next_line(&mut self) -> Result<Option<&str>, WorkloadError> {
        self.buffer.clear();
        self.number += 1;
        let line = self.number;
        let fail = |trouble| WorkloadError { line, trouble };
        let mut bounded = self.reader.by_ref().take(LINE_SIZE_MAX);
        let size = bounded
            .read_until(b'\n', &mut self.buffer)
            .map_err(|error| fail(Trouble::Read(error.kind())))?;
        if size == 0 {
            return Ok(None);
        }
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
            if self.buffer.last() == Some(&b'\r') {
                self.buffer.pop();
            }
        } else if size as u64 == LINE_SIZE_MAX {
            return Err(fail(Trouble::LineTooLong));
        }
        core::str::from_utf8(&self.buffer)
            .map(Some)
            .map_err(|_| fail(Trouble::NotUtf8))
    }
}
