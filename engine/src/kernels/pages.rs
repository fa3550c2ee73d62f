//! The memory of one layer's keys and values, in pages that attention reads in place.
#![allow(
    unsafe_code,
    reason = "the pool is written while others hold it, by one thread at a time"
)]

use std::cell::UnsafeCell;

use super::LANES;

/// Tokens of a page: as many as a vector has numbers, so that the keys of a page, stored component
/// by component, meet a query in one multiplication for each component.
pub const PAGE_TOKENS: usize = LANES;

/// One layer's pages. A page holds for each head its keys, component after component, and then its
/// values, token after token.
///
/// Memory is asked for at once and taken by the system page by page as it is first written, so a
/// large pool costs nothing until it is used.
#[derive(Debug)]
pub struct PagePool {
    heads: usize,
    head_dim: usize,
    cells: Box<[UnsafeCell<f32>]>,
}

// SAFETY: see `tile_mut`: writing is unsafe and its caller promises that nobody reads meanwhile.
unsafe impl Sync for PagePool {}

impl PagePool {
    #[must_use]
    pub fn new(pages: usize, heads: usize, head_dim: usize) -> Self {
        let zeros = vec![0.0_f32; pages * heads * 2 * PAGE_TOKENS * head_dim].into_boxed_slice();
        // SAFETY: an `UnsafeCell` has the layout of what it holds.
        let cells = unsafe { Box::from_raw(Box::into_raw(zeros) as *mut [UnsafeCell<f32>]) };
        Self {
            heads,
            head_dim,
            cells,
        }
    }

    #[must_use]
    pub fn page_count(&self) -> usize {
        self.cells.len() / (self.heads * self.tile_len())
    }

    /// Numbers that one page holds for one head.
    fn tile_len(&self) -> usize {
        2 * PAGE_TOKENS * self.head_dim
    }

    /// Keys (component, token) and values (token, component) of one head in one page.
    #[inline(always)]
    pub(super) fn tile(&self, page: u32, head: usize) -> (&[f32], &[f32]) {
        let cells = &self.cells[self.tile_start(page, head)..][..self.tile_len()];
        // SAFETY: writers promise that nobody reads while they write.
        let numbers = unsafe { &*(std::ptr::from_ref(cells) as *const [f32]) };
        numbers.split_at(PAGE_TOKENS * self.head_dim)
    }

    /// The same, to be written.
    ///
    /// # Safety
    /// Nobody else reads or writes this head of this page until the result is dropped.
    #[inline(always)]
    #[expect(
        clippy::mut_from_ref,
        reason = "the cells allow it; exclusion is the caller's promise"
    )]
    pub(super) unsafe fn tile_mut(&self, page: u32, head: usize) -> (&mut [f32], &mut [f32]) {
        let cells = &self.cells[self.tile_start(page, head)..][..self.tile_len()];
        // SAFETY: the cells allow writing through a shared reference; the caller promises the rest.
        let numbers = unsafe {
            std::slice::from_raw_parts_mut(cells.as_ptr().cast_mut().cast(), cells.len())
        };
        numbers.split_at_mut(PAGE_TOKENS * self.head_dim)
    }

    /// Copies a page, before a row writes into one that others read.
    ///
    /// # Panics
    /// A page is outside the pool.
    pub fn copy(&mut self, from: u32, to: u32) {
        let page_len = self.heads * self.tile_len();
        let (from, to) = (self.tile_start(from, 0), self.tile_start(to, 0));
        for ix in 0..page_len {
            let value = *self.cells[from + ix].get_mut();
            *self.cells[to + ix].get_mut() = value;
        }
    }

    #[inline(always)]
    fn tile_start(&self, page: u32, head: usize) -> usize {
        assert!(head < self.heads);
        (page as usize * self.heads + head) * self.tile_len()
    }
}
