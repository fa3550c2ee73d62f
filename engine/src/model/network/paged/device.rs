//! Pages as arrays of MLX: written by a scatter, gathered for each row before its attention. The way
//! of a GPU, where the CPU's kernel does not run.

use mlx_rs::error::Exception;
use mlx_rs::ops::indexing::{TryIndexMutOp, TryIndexOp};
use mlx_rs::ops::{concatenate, zeros_dtype};
use mlx_rs::{Array, Dtype};

use super::{BlockBytes, PagedStep};
use crate::kernels::RowSpan;
use crate::kv::{KvLayout, PageId};
use crate::model::network::Layout;
use crate::model::network::past::{Attention, KeyValue};
use crate::model::network::rows::token_count;

const PAGE_TOKENS: usize = KvLayout::PAGE_TOKENS as usize;
/// Pages by which a pool grows at least. Growing copies.
const GROWTH_PAGES: u32 = 64;

/// One layer's pages; nothing until the first step.
#[derive(Debug)]
pub(super) struct DevicePool {
    heads: i32,
    head_dim: i32,
    page_count: u32,
    held: Option<Held>,
}

/// Both (pages * tokens of a page, heads, head_dim).
#[derive(Debug)]
struct Held {
    keys: Array,
    values: Array,
}

/// Keys or values of several blocks, one behind the other.
#[derive(Default)]
struct Joined {
    dtype: Option<Dtype>,
    bytes: Vec<u8>,
}

const OTHER_TYPE: &str = "a block's numbers are of another type";

/// What is the same in all layers of a step.
pub(super) struct DeviceRows {
    /// Each packed token's place in its own row.
    positions: Array,
}

impl DeviceRows {
    pub(super) fn new(layout: Layout, rows: &[PagedStep<'_>]) -> Option<Self> {
        if layout == Layout::Packed {
            return None;
        }
        let positions: Vec<i32> = rows
            .iter()
            .flat_map(|row| (row.start as usize..).take(row.tokens.len()))
            .map(token_count)
            .collect();
        let positions = Array::from_slice(&positions, &[token_count(positions.len())]);
        Some(Self { positions })
    }
}

impl DevicePool {
    pub(super) const fn new(heads: i32, head_dim: i32) -> Self {
        Self {
            heads,
            head_dim,
            page_count: 0,
            held: None,
        }
    }

    pub(super) fn fit(&mut self, extent: u32, max: u32) -> Result<(), Exception> {
        if extent <= self.page_count {
            return Ok(());
        }
        let ahead = extent + (extent / 4).max(GROWTH_PAGES);
        let count = ahead.min(max).max(extent);
        if let Some(held) = &mut self.held {
            let more = token_count((count - self.page_count) as usize * PAGE_TOKENS);
            let grown = |array: &Array| {
                let room = zeros_dtype(&[more, self.heads, self.head_dim], array.dtype())?;
                concatenate(&[array, &room], 0)
            };
            *held = Held {
                keys: grown(&held.keys)?,
                values: grown(&held.values)?,
            };
        }
        self.page_count = count;
        Ok(())
    }

    pub(super) fn copy(&mut self, from: PageId, to: PageId) -> Result<(), Exception> {
        let Some(held) = &mut self.held else {
            return Ok(());
        };
        for array in [&mut held.keys, &mut held.values] {
            let span = |page: PageId| {
                let first = token_count(page.0 as usize * PAGE_TOKENS);
                first..first + token_count(PAGE_TOKENS)
            };
            let page = array.try_index(span(from))?;
            array.try_index_mut(span(to), &page)?;
        }
        Ok(())
    }

    /// Appends the pages' keys, then their values, each behind a byte that tells their type.
    pub(super) fn export(&self, pages: &[PageId], out: &mut Vec<u8>) -> Result<(), Exception> {
        let held = self.held.as_ref();
        let held = held.ok_or_else(|| Exception::custom("no page has been written yet"))?;
        let places = places_of(pages.iter());
        for array in [&held.keys, &held.values] {
            out.push(code_of(array.dtype())?);
            let bytes = array.take_axis(&places, 0)?.view::<u8>()?.contiguous()?;
            let bytes = bytes.try_as_slice::<u8>();
            let bytes = bytes.map_err(|cause| Exception::custom(cause.to_string()))?;
            out.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Fills pages with what was exported of others, and moves on in what is left of each block.
    pub(super) fn import(&mut self, blocks: &mut [BlockBytes<'_>]) -> Result<(), Exception> {
        let (mut keys, mut values) = (Joined::default(), Joined::default());
        for block in &mut *blocks {
            self.cut(block, &mut keys)?;
            self.cut(block, &mut values)?;
        }
        let (Some(key), Some(value)) = (keys.dtype, values.dtype) else {
            return Ok(());
        };
        let (keys, values) = (
            self.numbers(&keys.bytes, key)?,
            self.numbers(&values.bytes, value)?,
        );
        let places = places_of(blocks.iter().flat_map(|block| block.pages));
        let held = self.held(key, value)?;
        if (held.keys.dtype(), held.values.dtype()) != (key, value) {
            return Err(Exception::custom(OTHER_TYPE));
        }
        held.keys.try_index_mut(places.clone(), &keys)?;
        held.values.try_index_mut(places, &values)?;
        mlx_rs::transforms::eval([&held.keys, &held.values])
    }

    /// Takes the next part of a block: a type, and its pages' keys or values.
    fn cut(&self, block: &mut BlockBytes<'_>, into: &mut Joined) -> Result<(), Exception> {
        let dtype = dtype_of(block.cut(1)?[0])?;
        if *into.dtype.get_or_insert(dtype) != dtype {
            return Err(Exception::custom(OTHER_TYPE));
        }
        let numbers = block.pages.len() * PAGE_TOKENS * self.token_numbers();
        let part = block.cut(numbers * size_of_type(dtype))?;
        into.bytes.extend_from_slice(part);
        Ok(())
    }

    fn token_numbers(&self) -> usize {
        let size = |size: i32| usize::try_from(size).expect("sizes are positive");
        size(self.heads) * size(self.head_dim)
    }

    /// (tokens, heads, head_dim)
    fn numbers(&self, bytes: &[u8], dtype: Dtype) -> Result<Array, Exception> {
        let size = size_of_type(dtype);
        let tokens = token_count(bytes.len() / size / self.token_numbers());
        let width = self.head_dim * token_count(size);
        Array::from_slice(bytes, &[tokens, self.heads, width]).view_dtype(dtype)
    }

    fn held(&mut self, keys: Dtype, values: Dtype) -> Result<&mut Held, Exception> {
        let shape = [
            token_count(self.page_count as usize * PAGE_TOKENS),
            self.heads,
            self.head_dim,
        ];
        if self.held.is_none() {
            self.held = Some(Held {
                keys: zeros_dtype(&shape, keys)?,
                values: zeros_dtype(&shape, values)?,
            });
        }
        Ok(self.held.as_mut().expect("made just now"))
    }

    pub(super) fn arrays(&self) -> Option<[&Array; 2]> {
        self.held.as_ref().map(|held| [&held.keys, &held.values])
    }

    pub(super) fn attend(
        &mut self,
        layer: &Attention,
        query: &Array,
        key_value: Option<KeyValue<'_>>,
        spans: &[RowSpan],
        rows: &DeviceRows,
    ) -> Result<Array, Exception> {
        if let Some(raw) = key_value {
            self.write(layer, raw, spans, rows)?;
        }
        let held = self.held.as_ref();
        let held = held.expect("a layer that shares a store comes after the one that fills it");
        let query = turned(layer, &layer.queries(query)?, rows)?;
        let mut answers = Vec::with_capacity(spans.len());
        for span in spans {
            let places = seen_places(span, layer.window);
            let seen = |array: &Array| array.take_axis(&places, 0)?.swap_axes(0, 1)?.expand_dims(0);
            let first = token_count(span.first);
            let own = query.try_index(first..first + token_count(span.count))?;
            // (1, heads, the row's tokens, dim), as the keys and values that it sees.
            let own = own.swap_axes(0, 1)?.expand_dims(0)?;
            let answer = layer.over(&own, &seen(&held.keys)?, &seen(&held.values)?)?;
            answers.push(answer.swap_axes(1, 2)?);
        }
        let answers = concatenate(&answers, 1)?;
        let width = layer.query_heads * layer.head_dim;
        answers.reshape(&[1, answers.dim(1), width])
    }

    fn write(
        &mut self,
        layer: &Attention,
        raw: KeyValue<'_>,
        spans: &[RowSpan],
        rows: &DeviceRows,
    ) -> Result<(), Exception> {
        let key = turned(layer, &layer.keys(raw.key)?, rows)?;
        let value = layer.values(raw.value)?.try_index(0)?;
        let own = |span: &RowSpan| {
            let positions = span.start..span.start + span.count;
            positions
                .map(|position| place(span, position))
                .collect::<Vec<_>>()
        };
        let places: Vec<i32> = spans.iter().flat_map(own).collect();
        let places = Array::from_slice(&places, &[token_count(places.len())]);
        let held = self.held(key.dtype(), value.dtype())?;
        held.keys.try_index_mut(places.clone(), &key)?;
        held.values.try_index_mut(places, &value)
    }
}

/// (1, tokens, heads, dim) to (tokens, heads, dim), each token turned by its own position.
fn turned(layer: &Attention, heads: &Array, rows: &DeviceRows) -> Result<Array, Exception> {
    let apart = heads.try_index(0)?;
    match &layer.rope {
        Some(rope) => {
            let apart = apart.expand_dims(2)?;
            rope.at_positions(&apart, &rows.positions)?
                .squeeze_axes(&[2])
        }
        None => Ok(apart),
    }
}

/// Where the tokens of pages lie in the pool.
fn places_of<'a>(pages: impl Iterator<Item = &'a PageId>) -> Array {
    let tokens = |page: &PageId| {
        let first = page.0 as usize * PAGE_TOKENS;
        (first..first + PAGE_TOKENS).map(token_count)
    };
    let places: Vec<i32> = pages.flat_map(tokens).collect();
    Array::from_slice(&places, &[token_count(places.len())])
}

/// The types that a network computes in, as they stand in exported blocks.
const TYPES: [Dtype; 3] = [Dtype::Float32, Dtype::Float16, Dtype::Bfloat16];

fn code_of(dtype: Dtype) -> Result<u8, Exception> {
    let code = (0..).zip(TYPES).find(|(_, known)| *known == dtype);
    let code = code.map(|(code, _)| code);
    code.ok_or_else(|| Exception::custom(format!("keys of type {dtype:?} are not exported")))
}

fn dtype_of(code: u8) -> Result<Dtype, Exception> {
    let dtype = TYPES.get(usize::from(code)).copied();
    dtype.ok_or_else(|| Exception::custom("a block's numbers are of no known type"))
}

const fn size_of_type(dtype: Dtype) -> usize {
    if matches!(dtype, Dtype::Float32) {
        4
    } else {
        2
    }
}

/// Where a position of a row lies in the pool.
fn place(span: &RowSpan, position: usize) -> i32 {
    let page = span.table[position / PAGE_TOKENS] as usize;
    token_count(page * PAGE_TOKENS + position % PAGE_TOKENS)
}

/// Of all positions that the row's tokens see, the first of which a window bounds.
fn seen_places(span: &RowSpan, window: Option<i32>) -> Array {
    let before = window.map(|window| usize::try_from(window - 1).expect("a window sees its token"));
    let first = before.map_or(0, |before| span.start.saturating_sub(before));
    let positions = first..span.start + span.count;
    let places: Vec<i32> = positions.map(|position| place(span, position)).collect();
    Array::from_slice(&places, &[token_count(places.len())])
}
