//! The memory of one layer's keys and values, in pages that attention reads in place.
#![allow(
    unsafe_code,
    reason = "the pool is written while others hold it, by one thread at a time"
)]

use std::alloc::{Layout, alloc_zeroed};
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
    /// `None` when the system has no such room.
    #[must_use]
    pub fn new(pages: usize, heads: usize, head_dim: usize) -> Option<Self> {
        let page_numbers = heads.checked_mul(2 * PAGE_TOKENS)?.checked_mul(head_dim)?;
        let numbers = pages.checked_mul(page_numbers)?;
        let cells = if numbers == 0 {
            Box::default()
        } else {
            let layout = Layout::array::<UnsafeCell<f32>>(numbers).ok()?;
            // SAFETY: the layout has a size, the memory is all zeros, which is a number, and the box
            // frees it as the global allocator gave it.
            unsafe {
                let start = alloc_zeroed(layout).cast::<UnsafeCell<f32>>();
                if start.is_null() {
                    return None;
                }
                Box::from_raw(std::ptr::slice_from_raw_parts_mut(start, numbers))
            }
        };
        Some(Self {
            heads,
            head_dim,
            cells,
        })
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
    /// # Safety
    /// Nobody else uses the pool meanwhile.
    pub unsafe fn copy(&self, from: u32, to: u32) {
        for head in 0..self.heads {
            let (keys, values) = self.tile(from, head);
            // SAFETY: the caller's promise; the two pages are apart, or nothing changes.
            let (new_keys, new_values) = unsafe { self.tile_mut(to, head) };
            if from != to {
                new_keys.copy_from_slice(keys);
                new_values.copy_from_slice(values);
            }
        }
    }

    /// Bytes of one page in all heads.
    #[must_use]
    pub fn page_bytes(&self) -> usize {
        self.heads * self.tile_len() * size_of::<f32>()
    }

    /// Appends a page as bytes, to the last bit as it is.
    pub fn export(&self, page: u32, out: &mut Vec<u8>) {
        out.reserve(self.page_bytes());
        for head in 0..self.heads {
            let (keys, values) = self.tile(page, head);
            for numbers in [keys, values] {
                out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
            }
        }
    }

    /// Makes a page what [`Self::export`] told of one.
    ///
    /// # Safety
    /// Nobody else uses the pool meanwhile.
    ///
    /// # Panics
    /// `bytes` are not as many as a page has.
    pub unsafe fn import(&self, page: u32, bytes: &[u8]) {
        assert_eq!(bytes.len(), self.page_bytes(), "a page's bytes");
        let head_bytes = self.tile_len() * size_of::<f32>();
        for (head, bytes) in bytes.chunks_exact(head_bytes).enumerate() {
            // SAFETY: the caller's promise.
            let (keys, values) = unsafe { self.tile_mut(page, head) };
            let numbers = keys.iter_mut().chain(values);
            for (number, bytes) in numbers.zip(bytes.as_chunks().0) {
                *number = f32::from_le_bytes(*bytes);
            }
        }
    }

    /// Copies all pages of a pool of the same kind that has no more.
    ///
    /// # Safety
    /// Nobody else uses either pool meanwhile.
    pub unsafe fn copy_all(&self, from: &Self) {
        assert_eq!((self.heads, self.head_dim), (from.heads, from.head_dim));
        for page in 0..u32::try_from(from.page_count()).expect("page ids are u32") {
            for head in 0..self.heads {
                let (keys, values) = from.tile(page, head);
                // SAFETY: the caller's promise.
                let (new_keys, new_values) = unsafe { self.tile_mut(page, head) };
                new_keys.copy_from_slice(keys);
                new_values.copy_from_slice(values);
            }
        }
    }

    #[inline(always)]
    fn tile_start(&self, page: u32, head: usize) -> usize {
        assert!(head < self.heads);
        (page as usize * self.heads + head) * self.tile_len()
    }
}
