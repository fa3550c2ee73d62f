//! Rows of numbers, maybe a part of wider ones.

use std::sync::Mutex;

/// `count` rows of `width` numbers, each `stride` after the one before.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    numbers: &'a [f32],
    count: usize,
    width: usize,
    stride: usize,
}

impl<'a> Rows<'a> {
    /// # Panics
    /// The rows overlap or reach beyond the numbers.
    #[must_use]
    pub fn new(numbers: &'a [f32], count: usize, width: usize, stride: usize) -> Self {
        assert!(stride >= width, "rows do not overlap");
        let end = count.checked_sub(1).map_or(0, |last| last * stride + width);
        assert!(end <= numbers.len(), "rows lie among the numbers");
        Self {
            numbers,
            count,
            width,
            stride,
        }
    }

    /// Rows that lie side by side.
    #[must_use]
    pub fn dense(numbers: &'a [f32], width: usize) -> Self {
        Self::new(numbers, numbers.len() / width, width, width)
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    #[inline(always)]
    pub(super) fn row(&self, ix: usize) -> &'a [f32] {
        &self.numbers[ix * self.stride..][..self.width]
    }

    #[cfg(all(test, feature = "mlx"))]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'a [f32]> {
        let rows = *self;
        (0..self.count).map(move |ix| rows.row(ix))
    }
}

/// An output cut into parts of whole rows, each for one thread.
pub(super) struct Shares<'a> {
    parts: Vec<Mutex<Option<Part<'a>>>>,
}

/// The index of its first row, and its numbers.
type Part<'a> = (usize, &'a mut [f32]);

/// Parts of about `grain` numbers.
pub(super) fn shares(output: &mut [f32], width: usize, grain: usize) -> Shares<'_> {
    let rows = grain.div_ceil(width.max(1));
    let parts = output.chunks_mut((rows * width).max(1)).enumerate();
    Shares {
        parts: parts
            .map(|(ix, part)| Mutex::new(Some((ix * rows, part))))
            .collect(),
    }
}

impl<'a> Shares<'a> {
    pub(super) fn count(&self) -> usize {
        self.parts.len()
    }

    /// # Panics
    /// The part was taken before.
    pub(super) fn take(&self, ix: usize) -> Part<'a> {
        let part = self.parts[ix].lock().expect("taking cannot panic").take();
        part.expect("each index is worked on once")
    }
}
