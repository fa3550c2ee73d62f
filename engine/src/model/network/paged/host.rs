//! Pages that the CPU's own kernel reads and writes in place.
#![allow(
    unsafe_code,
    reason = "kernels write pools that this module alone hands out"
)]

use std::sync::Arc;

use mlx_rs::Array;
use mlx_rs::error::Exception;

use super::BlockBytes;
use crate::kernels::{self, PagePool, Projected, RowSpan, Rows};
use crate::kv::PageId;
use crate::model::host;
use crate::model::network::past::{Attention, KeyValue};

#[derive(Debug)]
pub(super) struct HostPool {
    heads: usize,
    head_dim: usize,
    pages: Arc<PagePool>,
}

impl HostPool {
    pub(super) fn new(heads: i32, head_dim: i32) -> Self {
        let size = |size: i32| usize::try_from(size).expect("sizes are positive");
        let (heads, head_dim) = (size(heads), size(head_dim));
        Self {
            heads,
            head_dim,
            pages: Arc::new(PagePool::new(0, heads, head_dim).expect("no page takes no room")),
        }
    }

    /// Takes room for `count` pages, and keeps what is in those that there are.
    pub(super) fn fit(&mut self, count: u32) -> Result<(), Exception> {
        let known = self.pages.page_count();
        if known >= count as usize {
            return Ok(());
        }
        let pages = PagePool::new(count as usize, self.heads, self.head_dim);
        let pages = pages.ok_or_else(|| {
            Exception::custom(format!("no memory for {count} pages of keys and values"))
        })?;
        // SAFETY: nobody else has the new pool, and `&mut self`: no step runs on the old one.
        unsafe { pages.copy_all(&self.pages) };
        self.pages = Arc::new(pages);
        Ok(())
    }

    pub(super) fn copy(&mut self, from: PageId, to: PageId) {
        // SAFETY: `&mut self`: no step runs, and only steps use the pool.
        unsafe { self.pages.copy(from.0, to.0) };
    }

    fn page_bytes(&self) -> usize {
        self.pages.page_bytes()
    }

    /// Appends the pages' keys and values.
    pub(super) fn export(&self, pages: &[PageId], out: &mut Vec<u8>) {
        for page in pages {
            self.pages.export(page.0, out);
        }
    }

    /// Fills pages with what was exported of others, and moves on in what is left of each block.
    pub(super) fn import(&mut self, blocks: &mut [BlockBytes<'_>]) -> Result<(), Exception> {
        for block in blocks {
            let part = block.cut(block.pages.len() * self.page_bytes())?;
            let parts = part.chunks_exact(self.page_bytes());
            for (page, bytes) in block.pages.iter().zip(parts) {
                // SAFETY: `&mut self`: no step runs, and only steps use the pool.
                unsafe { self.pages.import(page.0, bytes) };
            }
        }
        Ok(())
    }

    pub(super) fn attend(
        &mut self,
        layer: &Attention,
        query: &Array,
        key_value: Option<KeyValue<'_>>,
        rows: &Arc<[RowSpan]>,
    ) -> Result<Array, Exception> {
        let on_host = layer.on_host.as_ref();
        let kernel = Attend {
            layer: Arc::clone(on_host.expect("a packed model's layers have kernels")),
            pages: Arc::clone(&self.pages),
            rows: Arc::clone(rows),
        };
        let shape = [
            query.dim(0),
            query.dim(1),
            layer.query_heads * layer.head_dim,
        ];
        match key_value {
            Some(raw) => host::apply_one(&[query, raw.key, raw.value], &shape, kernel),
            None => host::apply_one(&[query], &shape, kernel),
        }
    }
}

struct Attend {
    layer: Arc<kernels::Attention>,
    pages: Arc<PagePool>,
    rows: Arc<[RowSpan]>,
}

impl host::Kernel for Attend {
    fn run(&self, inputs: &[Rows<'_>], outputs: &mut [&mut [f32]]) {
        let projected = match inputs {
            [query, key, value] => Projected {
                query: *query,
                key_value: Some((*key, *value)),
            },
            [query] => Projected {
                query: *query,
                key_value: None,
            },
            _ => unreachable!("attention is given one array or three"),
        };
        // SAFETY: a layer's kernel waits for the layer before, MLX runs one at a time, and the step
        // that they belong to holds the cache alone until all are done. Pages that a row writes are
        // its own, by the contract of `PagedStep::tables`.
        unsafe { kernels::attend(&self.layer, &self.rows, &projected, &self.pages, outputs[0]) };
    }
}
