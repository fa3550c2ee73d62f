//! Rows of numbers, maybe a part of wider ones.

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

    #[inline(always)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'a [f32]> {
        let rows = *self;
        (0..self.count).map(move |ix| rows.row(ix))
    }
}
