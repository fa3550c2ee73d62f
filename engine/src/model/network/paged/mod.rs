//! The past of many rows in shared pages, and a packed step over them.
//!
//! Which page is whose is decided elsewhere, by pure books ([`crate::kv`]); here pages are read and
//! written where a step's tables say. Rows may share pages that neither writes. Recurrent layers
//! keep a state for each slot, and copies of states that rows to come may begin from.

mod device;
mod host;
mod states;

use std::sync::Arc;

use mlx_rs::Array;
use mlx_rs::error::Exception;
use mlx_rs::ops::indexing::TryIndexOp;

use self::device::{DevicePool, DeviceRows};
use self::host::HostPool;
use self::states::States;
use super::delta::{DeltaInput, GatedDelta};
use super::past::{Attention, KeyValue, Past};
use super::rows::token_count;
use super::{Layout, Model, Output};
use crate::kernels::RowSpan;
use crate::kv::{PageId, StateId};
use crate::model::config::{Store, StoreGroup};

/// Pages of one model's layers, and states of its recurrent ones.
#[derive(Debug)]
pub struct PagedCache {
    groups: Vec<StoreGroup>,
    /// By store.
    pools: Vec<Pool>,
    states: States,
}

#[derive(Debug)]
enum Pool {
    /// Read in place by the CPU's own kernel.
    Host {
        group: usize,
        pages: HostPool,
    },
    /// Arrays of MLX, for a GPU.
    Device {
        group: usize,
        pages: DevicePool,
    },
    Recurrent,
}

/// What one row does in a step.
#[derive(Clone, Copy, Debug)]
pub struct PagedStep<'a> {
    /// Where its recurrent state is kept.
    pub slot: u16,
    /// Position of the first token; at 0 a row begins.
    pub start: u32,
    pub tokens: &'a [u32],
    /// By group of [`PagedCache::groups`]: the pages up to that of the last token. Those that the
    /// tokens lie in are this row's alone.
    pub tables: &'a [&'a [PageId]],
    pub output: Output,
}

/// A block to be filled: its pages of one group, and what [`PagedCache::export`] told of it.
#[derive(Clone, Copy)]
pub struct BlockBytes<'a> {
    pub pages: &'a [PageId],
    /// What has not been read of it.
    pub bytes: &'a [u8],
}

/// Prints no bytes.
impl std::fmt::Debug for BlockBytes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlockBytes({} bytes)", self.bytes.len())
    }
}

impl<'a> BlockBytes<'a> {
    fn cut(&mut self, size: usize) -> Result<&'a [u8], Exception> {
        let (part, rest) = self
            .bytes
            .split_at_checked(size)
            .ok_or_else(|| Exception::custom("a block is shorter than its pages"))?;
        self.bytes = rest;
        Ok(part)
    }
}

impl PagedCache {
    /// Without any page yet.
    #[must_use]
    pub fn new(model: &Model) -> Self {
        let groups = model.config().store_groups(model.element_bytes());
        let pool = |(ix, store): (usize, &Store)| {
            let Store::Attention {
                kv_heads, head_dim, ..
            } = *store
            else {
                return Pool::Recurrent;
            };
            let group = groups.iter().position(|group| group.stores.contains(&ix));
            let group = group.expect("each store with keys is in a group");
            match model.layout {
                Layout::Packed => Pool::Host {
                    group,
                    pages: HostPool::new(kv_heads, head_dim),
                },
                Layout::Apart | Layout::Joined => Pool::Device {
                    group,
                    pages: DevicePool::new(kv_heads, head_dim),
                },
            }
        };
        let pools = model.stores().iter().enumerate().map(pool).collect();
        Self {
            groups,
            pools,
            states: States::new(model.stores().len()),
        }
    }

    #[must_use]
    pub fn groups(&self) -> &[StoreGroup] {
        &self.groups
    }

    /// Makes sure that a group's pages below `extent` exist, of at most `max`. The CPU takes room
    /// for all at once, because the system gives memory only when it is written; a GPU as pages are
    /// handed out.
    ///
    /// # Errors
    /// There is no memory for them.
    pub fn fit(&mut self, group: usize, extent: u32, max: u32) -> Result<(), Exception> {
        for pool in &mut self.pools {
            match pool {
                Pool::Host { group: own, pages } if *own == group => pages.fit(max)?,
                Pool::Device { group: own, pages } if *own == group => pages.fit(extent, max)?,
                Pool::Host { .. } | Pool::Device { .. } | Pool::Recurrent => {}
            }
        }
        Ok(())
    }

    /// Copies one page of a group, in all its layers, before a step writes into the copy.
    ///
    /// # Errors
    /// MLX fails.
    pub fn copy(&mut self, group: usize, from: PageId, to: PageId) -> Result<(), Exception> {
        for store in &self.groups[group].stores {
            match &mut self.pools[*store] {
                Pool::Host { pages, .. } => pages.copy(from, to),
                Pool::Device { pages, .. } => pages.copy(from, to)?,
                Pool::Recurrent => unreachable!("groups are of layers with keys and values"),
            }
        }
        Ok(())
    }

    /// Keys and values of pages of one group, in all its layers, as bytes.
    ///
    /// # Errors
    /// MLX fails, or no page has been written yet.
    pub fn export(&self, group: usize, pages: &[PageId]) -> Result<Vec<u8>, Exception> {
        let mut bytes = Vec::new();
        for store in &self.groups[group].stores {
            match &self.pools[*store] {
                Pool::Host { pages: pool, .. } => pool.export(pages, &mut bytes),
                Pool::Device { pages: pool, .. } => pool.export(pages, &mut bytes)?,
                Pool::Recurrent => unreachable!("groups are of layers with keys and values"),
            }
        }
        Ok(bytes)
    }

    /// Fills pages that exist with what was exported of others, to the last bit.
    ///
    /// # Errors
    /// The bytes are of another layout, or MLX fails; then the pages hold nothing of use.
    pub fn import(&mut self, group: usize, blocks: &[BlockBytes<'_>]) -> Result<(), Exception> {
        let mut blocks = blocks.to_vec();
        for store in &self.groups[group].stores {
            match &mut self.pools[*store] {
                Pool::Host { pages, .. } => pages.import(&mut blocks)?,
                Pool::Device { pages, .. } => pages.import(&mut blocks)?,
                Pool::Recurrent => unreachable!("groups are of layers with keys and values"),
            }
        }
        if blocks.iter().all(|block| block.bytes.is_empty()) {
            Ok(())
        } else {
            Err(Exception::custom("a block is longer than its pages"))
        }
    }

    /// Keys and values of all pages, where MLX holds them, and the states of one slot.
    pub fn tensors(&self, slot: u16) -> impl Iterator<Item = &Array> {
        let pages = self.pools.iter().flat_map(Pool::arrays);
        pages.chain(self.states.arrays(slot))
    }

    /// Keeps the recurrent state that a slot has now.
    pub fn save(&mut self, slot: u16, to: StateId) {
        self.states.save(slot, to);
    }

    /// The slot's row goes on from a state that was kept.
    pub fn restore(&mut self, slot: u16, from: StateId) {
        self.states.restore(slot, from);
    }

    /// The slot's row has ended: its recurrent state is of no more use.
    pub fn release(&mut self, slot: u16) {
        self.states.release(slot);
    }
}

impl Model {
    /// Runs one step of all `rows`. Returns the logits, (rows asking for them, vocabulary) in
    /// float32, evaluated; absent when no row asks.
    ///
    /// # Errors
    /// MLX fails; the pages and the states that the step was to write hold nothing of use.
    ///
    /// # Panics
    /// A row brings no token, or its tables do not reach its last token.
    pub fn step_paged(
        &self,
        cache: &mut PagedCache,
        rows: &[PagedStep<'_>],
    ) -> Result<Option<Array>, Exception> {
        let mut tokens = Vec::new();
        let mut outputs = Vec::new();
        let mut spans = vec![Vec::with_capacity(rows.len()); cache.groups.len()];
        for row in rows {
            assert!(
                !row.tokens.is_empty(),
                "a row in a step runs at least one token"
            );
            let first = tokens.len();
            tokens.extend_from_slice(row.tokens);
            for (spans, table) in spans.iter_mut().zip(row.tables) {
                spans.push(RowSpan {
                    first,
                    count: row.tokens.len(),
                    start: row.start as usize,
                    table: table.iter().map(|page| page.0).collect(),
                });
            }
            if row.output == Output::Logits {
                outputs.push(token_count(tokens.len() - 1));
            }
        }
        let total = token_count(tokens.len());
        let mut past = Paged {
            device_rows: DeviceRows::new(self.layout, rows),
            spans: spans.into_iter().map(Arc::from).collect(),
            pools: &mut cache.pools,
            states: &mut cache.states,
            rows,
        };
        let hidden = self.hidden(&Array::from_slice(&tokens, &[1, total]), &mut past)?;
        let logits = if outputs.is_empty() {
            None
        } else {
            let asked = token_count(outputs.len());
            let packed = hidden.try_index(0)?;
            let last = if asked == total {
                packed
            } else {
                packed.take_axis(Array::from_slice(&outputs, &[asked]), 0)?
            };
            Some(self.head(&last)?.as_type::<f32>()?)
        };
        let kept = cache.pools.iter().flat_map(Pool::arrays);
        let states = rows.iter().flat_map(|row| cache.states.arrays(row.slot));
        let outcome = logits.as_ref().unwrap_or(&hidden);
        mlx_rs::transforms::eval([outcome].into_iter().chain(kept).chain(states))?;
        Ok(logits)
    }
}

impl Pool {
    fn arrays(&self) -> impl Iterator<Item = &Array> {
        let held = match self {
            Self::Device { pages, .. } => pages.arrays(),
            Self::Host { .. } | Self::Recurrent => None,
        };
        held.into_iter().flatten()
    }
}

struct Paged<'a> {
    /// By group.
    spans: Vec<Arc<[RowSpan]>>,
    device_rows: Option<DeviceRows>,
    /// By store.
    pools: &'a mut [Pool],
    states: &'a mut States,
    rows: &'a [PagedStep<'a>],
}

impl Past for Paged<'_> {
    fn attend(
        &mut self,
        layer: &Attention,
        query: &Array,
        key_value: Option<KeyValue<'_>>,
    ) -> Result<Array, Exception> {
        match &mut self.pools[layer.store] {
            Pool::Host { group, pages } => {
                pages.attend(layer, query, key_value, &self.spans[*group])
            }
            Pool::Device { group, pages } => {
                let rows = self.device_rows.as_ref();
                let rows = rows.expect("a model that is not packed has its rows as arrays");
                pages.attend(layer, query, key_value, &self.spans[*group], rows)
            }
            Pool::Recurrent => unreachable!("attention has a store of keys and values"),
        }
    }

    fn recur(&mut self, layer: &GatedDelta, input: &DeltaInput) -> Result<Array, Exception> {
        self.states.run(layer, input, self.rows)
    }
}
