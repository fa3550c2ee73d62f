//! Lists for people: columns that line up, amounts to the millionth, moments in UTC.

use crate::{Outcome, say};

/// Rows of text under a head, each column as wide as its widest cell.
pub(super) struct Table<const N: usize> {
    head: [&'static str; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(super) const fn new(head: [&'static str; N]) -> Self {
        Self {
            head,
            rows: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, row: [String; N]) {
        self.rows.push(row);
    }

    /// Prints it, or what there is to say where it is empty.
    pub(super) fn print(&self, empty: &str) -> Outcome {
        if self.rows.is_empty() {
            return say(&format!("{empty}\n"));
        }
        let mut widths = self.head.map(str::len);
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = line(&self.head, &widths);
        for row in &self.rows {
            text += &line(row, &widths);
        }
        say(&text)
    }
}

fn line<T: AsRef<str>, const N: usize>(cells: &[T; N], widths: &[usize; N]) -> String {
    let cells = cells.iter().zip(widths);
    let text: Vec<String> = cells
        .map(|(cell, width)| format!("{:<width$}", cell.as_ref()))
        .collect();
    format!("{}\n", text.join("  ").trim_end())
}

/// Whole millionths as dollars, exactly.
pub(crate) fn dollars(amount: i64) -> String {
    const PARTS: u64 = 1_000_000;
    let sign = if amount < 0 { "-" } else { "" };
    let size = amount.unsigned_abs();
    format!("{sign}${}.{:06}", size / PARTS, size % PARTS)
}

/// Seconds since 1970 as `2026-11-29 12:30:05Z`.
pub(super) fn moment(unix_s: i64) -> String {
    jiff::Timestamp::from_second(unix_s).map_or_else(
        |_| unix_s.to_string(),
        |at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_shown_to_the_millionth() {
        assert_eq!(dollars(5_000_000), "$5.000000");
        assert_eq!(dollars(-101), "-$0.000101");
        assert_eq!(dollars(i64::MIN), "-$9223372036854.775808");
    }

    #[test]
    fn moments_are_shown_in_utc() {
        assert_eq!(moment(0), "1970-01-01 00:00:00Z");
        assert_eq!(moment(1_795_955_405), "2026-11-29 12:30:05Z");
    }
}
