//! Finds marks (such as `</think>`) in text that is still growing, and how much of its end may
//! be the beginning of one.

/// A mark in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) start: usize,
    /// Which of the marks.
    pub(super) mark: usize,
}

/// The first mark in `text`. No mark may be a part of another, so that the way in which a text is
/// cut into pieces changes nothing.
pub(super) fn first(text: &str, marks: &[&str]) -> Option<Found> {
    let found = marks.iter().enumerate().filter_map(|(mark, pattern)| {
        let start = text.find(pattern)?;
        Some(Found { start, mark })
    });
    found.min_by_key(|found| found.start)
}

/// Where the longest end of `text` starts that begins a mark, or its length.
pub(super) fn hold_from<'a>(text: &str, marks: impl Iterator<Item = &'a str> + Clone) -> usize {
    let longest = marks.clone().map(str::len).max().unwrap_or(0);
    let from = text.len().saturating_sub(longest.saturating_sub(1));
    let mut starts = (from..text.len()).filter(|&start| text.is_char_boundary(start));
    let held = starts.find(|&start| marks.clone().any(|mark| mark.starts_with(&text[start..])));
    held.unwrap_or(text.len())
}
